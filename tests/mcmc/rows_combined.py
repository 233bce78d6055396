# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Rows of the kernels that draw from conditional laws, and of those that combine kernels."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from pyro_deepgen.mcmc.block_gibbs import BlockGibbs
from pyro_deepgen.mcmc.discrete_gibbs import DiscreteGibbs
from pyro_deepgen.mcmc.gibbs import Gibbs
from pyro_deepgen.mcmc.mala import MALA
from pyro_deepgen.mcmc.random_walk import RandomWalk
from pyro_deepgen.mcmc.slice_sampler import SliceSampler
from pyro_deepgen.mcmc.state import Info, State, Values
from tests.mcmc.kernel_row import KernelRow


class AllAtOnce(BlockGibbs):
    """Draws every block given the old values of the others."""

    def step(self, state: State) -> tuple[State, Info]:
        moved: State = {}
        values = self.values(state)
        for name in self.sites:
            moved[name] = self.sampler.sample_block(name, values)
        return {**state, **moved}, {}


class TakesAllForFree(DiscreteGibbs):
    """Draws coupled elements at once."""

    def init(self, state: State) -> State:
        self.plates = tuple((name, (-1,)) for name in self.sites)
        return self.values(state)


class WrongConditional(DiscreteGibbs):
    """Draws from the square root of the conditional law."""

    def _log_density(self, *args: Any) -> torch.Tensor:
        return 0.5 * super()._log_density(*args)


class Unmodified(DiscreteGibbs):
    """Proposes another value and always takes it."""

    def _log_density(self, *args: Any) -> torch.Tensor:
        logits = super()._log_density(*args)
        return torch.where(logits > logits.amax(0), logits, 0.0)


class Stale(Gibbs):
    """Lets a kernel go on with what it knew before another kernel moved."""

    def step(self, state: State) -> tuple[State, Info]:
        inits = [kernel.init for kernel in self.kernels]
        for kernel in self.kernels:
            kernel.init = lambda state: state  # type: ignore[method-assign]
        moved = super().step(state)
        for kernel, init in zip(self.kernels, inits, strict=True):
            kernel.init = init  # type: ignore[method-assign]
        return moved


class Conditionals:
    """The conditional laws of the two sites of the labels' model that are not labels."""

    blocks = ("k", "w")

    def __init__(self, prior: float = 0.4) -> None:
        self.prior = prior

    def sample_block(self, block: str, values: Values) -> torch.Tensor:
        z = values["z"]
        if block == "w":
            return torch.bernoulli(torch.tensor([0.1, 0.5, 0.9])[z])
        probs = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])[:, z].prod(-1)
        weights = torch.tensor([1 - self.prior, self.prior])[:, None] * probs
        return torch.bernoulli(weights[1] / weights.sum(0))


def labels_and_rest(program: Any, discrete: type[DiscreteGibbs] = DiscreteGibbs) -> Gibbs:
    return Gibbs(
        [
            (RandomWalk(program, scale=1.0, compile=False), "loc"),
            (discrete(program, compile=False), ["z"]),
            (MALA(program, step_size=0.7, compile=False), ["x"]),
        ]
    )


def two_halves(program: Any, combination: type[Gibbs] = Gibbs) -> Gibbs:
    return combination(
        [
            (SliceSampler(program, compile=False), "scale"),
            (MALA(program, step_size=1.0, compile=False), "y"),
        ]
    )


def conjugate(program: Any, prior: float = 0.4) -> Gibbs:
    return Gibbs(
        [
            (BlockGibbs(program, Conditionals(prior), compile=False), ["k", "w"]),
            (DiscreteGibbs(program, compile=False), "z"),
        ]
    )


DISCRETE = ("discrete", "labels", "lattice")

ROWS = [
    KernelRow(
        "block_gibbs",
        BlockGibbs,
        partial(BlockGibbs, compile=False),
        targets=("normal_pair",),
        broken={"all at once": ("normal_pair", partial(AllAtOnce, compile=False))},
    ),
    KernelRow(
        "discrete_gibbs",
        DiscreteGibbs,
        partial(DiscreteGibbs, compile=False),
        targets=DISCRETE,
        broken={
            "coupled elements at once": ("lattice", partial(TakesAllForFree, compile=False)),
            "wrong conditional": ("discrete", partial(WrongConditional, compile=False)),
        },
    ),
    KernelRow(
        "discrete_gibbs_modified",
        DiscreteGibbs,
        partial(DiscreteGibbs, modified=True, scan="fixed", compile=False),
        targets=DISCRETE,
        broken={
            "flat conditional": (
                "discrete",
                partial(Unmodified, modified=True, scan="fixed", compile=False),
            ),
        },
    ),
    KernelRow(
        "gibbs_mixture",
        Gibbs,
        labels_and_rest,
        targets=("mixture",),
        broken={
            "wrong conditional": ("mixture", partial(labels_and_rest, discrete=WrongConditional))
        },
    ),
    KernelRow(
        "gibbs_continuous",
        Gibbs,
        two_halves,
        targets=("scale_mixture",),
        broken={"stale caches": ("scale_mixture", partial(two_halves, combination=Stale))},
    ),
    KernelRow(
        "gibbs_conjugate",
        Gibbs,
        conjugate,
        targets=("labels",),
        broken={"wrong prior": ("labels", partial(conjugate, prior=0.5))},
    ),
]
