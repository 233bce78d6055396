# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Samplers of Pyro models: the vectorised kernels, and Pyro's own NUTS."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer import MCMC
from pyro.infer import NUTS as PyroNUTS

from pyro_deepgen.mcmc import Kernel, run

from .harness import NotHereError
from .mcmc_harness import Draws, Sampler

Model = Callable[..., Any]
# Pyro's one chain takes so much longer that more rounds would be most of a measurement.
PYRO_ROUNDS = 2


@dataclass(frozen=True)
class Length:
    """How much is drawn.

    Args:
        chains: chains of each sampler that draws several at once.
        warmup: steps thrown away.
        draws: draws of each chain.
    """

    chains: int
    warmup: int
    draws: int


def ours(
    make: Callable[[Model], Kernel],
    model: Model,
    data: Sequence[torch.Tensor],
    length: Length,
    device: str = "cpu",
) -> Sampler:
    """A kernel, run as it is with ``run``; later runs find its compiled graphs."""
    if device == "cuda" and not torch.cuda.is_available():
        raise NotHereError("no CUDA device")
    kernel, given = make(model), [d.to(device) for d in data]
    warmed_up = 0.0
    warm_up = kernel.warm_up

    def noting(*args: Any) -> Any:
        nonlocal warmed_up
        state = warm_up(*args)
        if device == "cuda":
            torch.cuda.synchronize()
        warmed_up = time.perf_counter()
        return state

    kernel.warm_up = noting  # type: ignore[assignment, method-assign]

    def draw(seed: int) -> Draws:
        pyro.set_rng_seed(seed)
        # A default device that is set costs every operation some microseconds.
        with torch.device(device) if device != "cpu" else nullcontext():
            chains = run(
                kernel, length.draws, length.warmup, length.chains, args=given, progress=False
            )
        samples = chains.get_samples(group_by_chain=True)
        return Draws({name: value.numpy(force=True) for name, value in samples.items()}, warmed_up)

    return Sampler(draw)


def pyros(model: Model, data: Sequence[torch.Tensor], length: Length, *, jit: bool) -> Sampler:
    """Pyro's NUTS, one chain, validation off; with ``jit`` it traces its potential in each run."""

    def draw(seed: int) -> Draws:
        pyro.set_rng_seed(seed)
        warmed_up = 0.0

        def note(kernel: Any, samples: Any, stage: str, i: int) -> None:
            nonlocal warmed_up
            if stage == "Warmup":
                warmed_up = time.perf_counter()

        kernel = PyroNUTS(model, jit_compile=jit, ignore_jit_warnings=True)
        mcmc = MCMC(kernel, length.draws, length.warmup, disable_progbar=True, hook_fn=note)
        with pyro.validation_enabled(False):
            mcmc.run(*data)
        samples = mcmc.get_samples(group_by_chain=True)
        return Draws({name: value.numpy() for name, value in samples.items()}, warmed_up)

    return Sampler(draw, compiles=False, rounds=PYRO_ROUNDS)
