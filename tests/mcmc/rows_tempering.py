# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Rows of the kernels that put another kernel at several temperatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch

from pyro_deepgen.mcmc.kernel import Kernel
from pyro_deepgen.mcmc.parallel_tempering import REPLICA, ParallelTempering
from pyro_deepgen.mcmc.random_walk import RandomWalk
from pyro_deepgen.mcmc.state import Info, State
from pyro_deepgen.mcmc.tempered_transitions import TemperedTransitions
from tests.mcmc.exact_targets import COVARIANCE, MEAN, gamma, normal
from tests.mcmc.kernel_row import KernelRow

LADDER = (1.0, 1.5, 3.0)


def powers(program: Any, betas: torch.Tensor) -> dist.TorchDistribution:
    """The law of a target's power, whose normalised density is known; `betas` is ``(T,)``.

    That of the gamma target is a power of the density of its logarithm, which a chain holds.
    """
    if program is normal:
        return dist.MultivariateNormal(MEAN, COVARIANCE / betas[:, None, None])
    assert program is gamma
    return dist.Gamma(2.5 * betas, 3.0 * betas)


class ExactReplicas(ParallelTempering):
    """Starts from exact draws at every temperature, given those at the first."""

    def init(self, state: State) -> State:
        if REPLICA + "x" in state:
            return super().init(state)
        law = powers(self.model, self.betas)
        drawn = self.target.unconstrain({"x": law.sample(state["x"].shape[:1])})
        return super().init({**state, REPLICA + "x": drawn["x"]})


class SwapsBackwards(ExactReplicas):
    """Accepts a swap by the inverse ratio."""

    def bind(self, target: Any, sites: Sequence[str] | None = None) -> None:
        super().bind(target, sites)
        difference = self.tempered.difference
        self.tempered.difference = lambda *args: -difference(*args)  # type: ignore[method-assign]


class AlwaysSwaps(ExactReplicas):
    """Accepts every swap."""

    def bind(self, target: Any, sites: Sequence[str] | None = None) -> None:
        super().bind(target, sites)
        difference = self.tempered.difference
        self.tempered.difference = lambda *args: 0 * difference(*args)  # type: ignore[method-assign]


class CountsOneWay(TemperedTransitions):
    """Forgets the weights of the way down."""

    def step(self, state: State) -> tuple[State, Info]:
        difference = self.tempered.difference
        self.tempered.difference = (  # type: ignore[method-assign]
            lambda values, beta, to: difference(values, beta, to) * (beta > to)
        )
        moved = super().step(state)
        self.tempered.difference = difference  # type: ignore[method-assign]
        return moved


class RisesTwice(TemperedTransitions):
    """Comes down by the weights of the way up."""

    def step(self, state: State) -> tuple[State, Info]:
        difference = self.tempered.difference
        self.tempered.difference = (  # type: ignore[method-assign]
            lambda values, beta, to: difference(
                values, torch.maximum(beta, to), torch.minimum(beta, to)
            )
        )
        moved = super().step(state)
        self.tempered.difference = difference  # type: ignore[method-assign]
        return moved


def tempering(program: Any, cls: type[Kernel]) -> Kernel:
    # A short step at temperature 1, so that what the temperatures bring is not lost in it.
    return cls(RandomWalk(program, scale=0.8, compile=False), LADDER)  # type: ignore[call-arg, arg-type]


def parallel(program: Any) -> Kernel:
    return tempering(program, ExactReplicas)


def transitions(program: Any) -> Kernel:
    return tempering(program, TemperedTransitions)


ROWS = [
    KernelRow(
        "parallel_tempering",
        ParallelTempering,
        parallel,
        targets=("normal", "gamma"),
        broken={
            "swaps backwards": ("normal", lambda program: tempering(program, SwapsBackwards)),
            "always swaps": ("gamma", lambda program: tempering(program, AlwaysSwaps)),
        },
    ),
    KernelRow(
        "tempered_transitions",
        TemperedTransitions,
        transitions,
        broken={
            "counts one way": ("normal", lambda program: tempering(program, CountsOneWay)),
            "wrong sign": ("gamma", lambda program: tempering(program, RisesTwice)),
        },
    ),
]
