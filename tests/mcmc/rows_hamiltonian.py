# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Rows of the kernels that follow Hamilton's equations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import torch

from pyro_deepgen.mcmc import nuts, nuts_tree
from pyro_deepgen.mcmc.chees import ChEES
from pyro_deepgen.mcmc.hmc import HMC
from pyro_deepgen.mcmc.mass_matrix import whitened
from pyro_deepgen.mcmc.nuts import NUTS
from pyro_deepgen.mcmc.state import Info, State, Values
from pyro_deepgen.mcmc.target import Target
from tests.mcmc.kernel_row import KernelRow
from tests.mcmc.rows_simple import WithoutJacobian


class AlwaysAccepts(HMC):
    """Drops the accept step."""

    def _settle(self, state: State) -> tuple[State, Info]:
        self._room(state)["start"].add_(1e3)
        return super()._settle(state)


class KicksBackwards(HMC):
    """Takes the second half of the kick up the gradient."""

    def leapfrog(self, others: Values, q: Any, a: Any, gradient: Any, step_size: Any) -> Any:
        q, a, gradient, potential = super().leapfrog(others, q, a, gradient, step_size)
        return q, a + step_size * whitened(gradient, self.tuning["scale"]), gradient, potential


class KeepsTheOldPotential(HMC):
    """Moves without taking the potential along."""

    def step(self, state: State) -> tuple[State, Info]:
        moved, info = super().step(state)
        return {**moved, "~potential": state["~potential"]}, info


class ForgetsTheMomentum(ChEES):
    """Counts the momentum at the end of a trajectory, and not at its start."""

    def _settle(self, state: State) -> tuple[State, Info]:
        self._room(state)["start"].copy_(state["~potential"])
        return super()._settle(state)


class OnWrongTarget(NUTS):
    """Leaves the Jacobian out."""

    def bind(self, target: Target, sites: Any = None) -> None:
        super().bind(WithoutJacobian(target), sites)


class WithAnotherTree(NUTS):
    """Grows its trees by another rule."""

    def __init__(self, *args: Any, rule: Callable[..., Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rule = rule

    def _grow(self, limit: torch.Tensor) -> Any:
        with mock.patch.object(nuts, "grown", self._rule):
            return super()._grow(limit)


def without_weights(tree: Any, leapfrog: Any, max_depth: int) -> Any:
    """Every leaf proposes as often as any other."""

    def flat(*args: Any) -> Any:
        q, a, gradient, potential = leapfrog(*args)
        level = tree["start"] - 0.5 * a.square().sum(0)
        return q, a, gradient, torch.where(potential.isfinite(), level, potential)

    return nuts_tree.grown(tree, flat, max_depth)


def last_leaf(tree: Any, leapfrog: Any, max_depth: int) -> Any:
    """A sub-tree proposes its last leaf."""
    chance = tree["chance"].clone()
    chance[2] = 0.0
    return nuts_tree.grown({**tree, "chance": chance}, leapfrog, max_depth)


def broken_tree(rule: Callable[..., Any], step_size: float) -> Callable[[Any], NUTS]:
    return partial(WithAnotherTree, rule=rule, step_size=step_size, compile=False)


ROWS = [
    KernelRow(
        "hmc",
        HMC,
        partial(HMC, num_steps=3, step_size=0.7, compile=False),
        broken={
            "always accepts": ("normal", partial(AlwaysAccepts, num_steps=3, compile=False)),
            "second kick backwards": (
                "gamma",
                partial(KicksBackwards, num_steps=3, step_size=0.5, compile=False),
            ),
            "old potential": ("beta", partial(KeepsTheOldPotential, compile=False)),
        },
    ),
    KernelRow(
        "hmc_full_mass",
        HMC,
        partial(HMC, trajectory_length=1.5, step_size=0.6, full_mass=True, compile=False),
        broken={
            "always accepts": ("dirichlet", partial(AlwaysAccepts, full_mass=True, compile=False))
        },
    ),
    KernelRow(
        "chees",
        ChEES,
        partial(ChEES, trajectory_length=2.0, step_size=0.6, compile=False),
        broken={
            "forgets the momentum it began with": (
                "normal",
                partial(ForgetsTheMomentum, step_size=0.6, compile=False),
            )
        },
    ),
    KernelRow(
        "nuts",
        NUTS,
        partial(NUTS, step_size=0.6, compile=False),
        broken={
            "no Jacobian": ("gamma", partial(OnWrongTarget, step_size=0.6, compile=False)),
            "no weights": ("normal", broken_tree(without_weights, 1.1)),
            "last leaf": ("gamma", broken_tree(last_leaf, 1.1)),
        },
    ),
    KernelRow(
        "nuts_full_mass",
        NUTS,
        partial(NUTS, step_size=0.4, full_mass=True, compile=False),
        broken={"no weights": ("dirichlet", broken_tree(without_weights, 1.1))},
    ),
    KernelRow(
        "nuts_shallow",
        NUTS,
        partial(NUTS, step_size=0.4, max_tree_depth=2, compile=False),
        broken={"last leaf": ("gamma", broken_tree(last_leaf, 1.1))},
    ),
]
