# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""One thread for everyone, and the versions that a table was measured with."""

from __future__ import annotations

import atexit
import os
import platform
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = (
    "torch",
    "pyro-ppl",
    "jax",
    "numpyro",
    "zuko",
    "normflows",
    "arviz",
    "scikit-learn",
    "rbms",
)


def one_thread() -> None:
    """Keep every library to one core and compile afresh; call before importing any of them."""
    if hasattr(os, "sched_setaffinity"):  # XLA uses a second thread whatever it is told
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    # Compiled graphs of an earlier run would make the compile times look short.
    folder = tempfile.mkdtemp(prefix="bench-inductor-")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def versions() -> str:
    """One line with the versions of Python and of the libraries that are compared."""
    found = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)


def machine() -> str:
    """The processor, its number of cores, and how busy they were."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, one thread, load {os.getloadavg()[0]:.1f}"
