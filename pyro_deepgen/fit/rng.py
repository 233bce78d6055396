# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The random streams of a run: keep them, put them back, branch off from them."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_of(*words: int) -> int:
    """Return one seed for several integers, unrelated for neighbouring ones."""
    entropy = [word & (2**64 - 1) for word in words]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def torch_streams(device: torch.device) -> dict[str, Tensor]:
    """Return the state of torch's global generators, that of the host and that of `device`."""
    streams = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        streams["cuda"] = torch.cuda.get_rng_state(device)
    return streams


def restore_torch_streams(streams: dict[str, Tensor], device: torch.device) -> None:
    """Put back what :func:`torch_streams` returned."""
    torch.set_rng_state(streams["cpu"])
    if "cuda" in streams and device.type == "cuda":
        torch.cuda.set_rng_state(streams["cuda"], device)


def streams(device: torch.device) -> dict[str, Any]:
    """Return the state of every global generator: torch's, Python's and NumPy's."""
    _, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch_streams(device),
        "python": random.getstate(),
        # As plain types: a checkpoint is read with weights_only=True.
        "numpy": (torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached),
    }


def restore_streams(saved: dict[str, Any], device: torch.device) -> None:
    """Put back what :func:`streams` returned."""
    restore_torch_streams(saved["torch"], device)
    random.setstate(saved["python"])
    keys, position, has_gauss, cached = saved["numpy"]
    np.random.set_state(
        ("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, float(cached))
    )


def set_seed(seed: int) -> None:
    """Start every global generator from `seed`."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextmanager
def branched(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Run the block on streams of its own (from `seed` if given); put the old ones back after."""
    saved = streams(device)
    try:
        if seed is not None:
            set_seed(seed)
        yield
    finally:
        restore_streams(saved, device)
