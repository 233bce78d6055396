# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What every test starts from: one seed, one device, an empty parameter store."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import pyro
import pytest
import torch

matplotlib.use("Agg")

SEED = 20240607


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Give each test the same seed and the library's defaults, and take its changes back."""
    settings = pyro.settings.get()
    dtype = torch.get_default_dtype()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pyro.clear_param_store()
    pyro.set_rng_seed(SEED)
    yield
    pyro.settings.set(**settings)
    pyro.clear_param_store()
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Return the device that `PYRO_DEVICE` names, the CPU without it."""
    chosen = torch.device(os.environ.get("PYRO_DEVICE", "cpu"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"PYRO_DEVICE={chosen}, and this machine has no CUDA device")
    return chosen


@pytest.fixture
def float64() -> Iterator[torch.dtype]:
    """Make double precision the default for one test."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch.float64
    torch.set_default_dtype(before)


@pytest.fixture
def data_file() -> Callable[[str], Path]:
    """Return a function from a file's name to its path, which skips where there is no such file.

    Example:
        ``path = data_file("mnist.npz")``
    """

    def find(name: str) -> Path:
        folder = os.environ.get("PYRO_DEEPGEN_DATA")
        if folder is None:
            pytest.skip(f"{name}: PYRO_DEEPGEN_DATA names no data folder")
        path = Path(folder) / name
        if not path.exists():
            pytest.skip(f"{name}: not in the data folder that PYRO_DEEPGEN_DATA names")
        return path

    return find
