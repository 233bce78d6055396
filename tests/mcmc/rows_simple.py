# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Rows of the kernels that move continuous sites without a trajectory."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest import mock

import torch

from pyro_deepgen.mcmc import mala, random_walk
from pyro_deepgen.mcmc.langevin import Langevin
from pyro_deepgen.mcmc.mala import MALA
from pyro_deepgen.mcmc.metropolis import choose
from pyro_deepgen.mcmc.random_walk import RandomWalk
from pyro_deepgen.mcmc.slice_sampler import SliceSampler
from pyro_deepgen.mcmc.state import Info, State, Values
from pyro_deepgen.mcmc.target import Target
from tests.mcmc.exact_targets import LANGEVIN_STEP, LANGEVIN_TEMPERATURE
from tests.mcmc.kernel_row import KernelRow


class AlwaysAccepts(RandomWalk):
    """Drops the accept step."""

    def step(self, state: State) -> tuple[State, Info]:
        with mock.patch.object(
            random_walk, "choose", lambda r, new, old: choose(r * 0 + 1, new, old)
        ):
            return super().step(state)


class ForgetsTheScale(RandomWalk):
    """Makes steps in proportion to where it is, without correcting for it."""

    def step(self, state: State) -> tuple[State, Info]:
        scale = self.tuning["scale"]
        self.tuning["scale"] = state["x"] - 1.0
        moved = super().step(state)
        self.tuning["scale"] = scale
        return moved


class WithoutJacobian(Target):
    """A model's target that forgets that its values are transformed."""

    def __init__(self, target: Target) -> None:
        self.sites, self.device, self._target = target.sites, target.device, target

    def start(self, num_chains: int) -> Values:
        return self._target.start(num_chains)

    def potential(self, values: Values) -> torch.Tensor:
        log_jacobian = sum(
            site.transform.inv.log_abs_det_jacobian(values[n], site.transform.inv(values[n]))
            .reshape(len(values[n]), -1)
            .sum(-1)
            for n, site in self.sites.items()
        )
        return self._target.potential(values) + log_jacobian


class OnWrongTarget(RandomWalk):
    """Leaves the Jacobian out."""

    def bind(self, target: Target, sites: Any = None) -> None:
        super().bind(WithoutJacobian(target), sites)


class ForgetsTheWayBack(MALA):
    """Accepts as if the proposal were symmetric."""

    def step(self, state: State) -> tuple[State, Info]:
        def accept(ratio: torch.Tensor, new: State, old: State) -> tuple[State, Info]:
            return choose(old[mala.POTENTIAL] - new[mala.POTENTIAL], new, old)

        with mock.patch.object(mala, "choose", accept):
            return super().step(state)


class ForgetsTheGradient(MALA):
    """Keeps the gradient of the state before the last."""

    def step(self, state: State) -> tuple[State, Info]:
        moved, info = super().step(state)
        return {**moved, mala.GRADIENT: state[mala.GRADIENT]}, info


class WithoutLevel(SliceSampler):
    """Draws no level below the density, so that it only climbs."""

    def _set_out(self, state: State, axis: torch.Tensor) -> Any:
        line = super()._set_out(state, axis)
        return {**line, "level": line["potential"].clone()}


class WithoutOffset(SliceSampler):
    """Puts the interval to the right of the present point, and does not widen it."""

    def _set_out(self, state: State, axis: torch.Tensor) -> Any:
        line = super()._set_out(state, axis)
        left = torch.zeros_like(line["level"])
        return {
            **line,
            "ends": torch.stack([left, left + 1]),
            "left": torch.zeros_like(line["left"]),
        }


def langevin(program: Any, temperature: float = LANGEVIN_TEMPERATURE) -> Langevin:
    return Langevin(program, step_size=LANGEVIN_STEP, temperature=temperature, compile=False)


ROWS = [
    KernelRow(
        "random_walk",
        RandomWalk,
        partial(RandomWalk, compile=False),
        broken={
            "always accepts": ("normal", partial(AlwaysAccepts, compile=False)),
            "asymmetric proposal": ("normal", partial(ForgetsTheScale, compile=False)),
            "no Jacobian": ("gamma", partial(OnWrongTarget, compile=False)),
        },
    ),
    KernelRow(
        "mala",
        MALA,
        partial(MALA, compile=False),
        broken={
            "forgets the way back": ("normal", partial(ForgetsTheWayBack, compile=False)),
            "stale gradient": ("gamma", partial(ForgetsTheGradient, compile=False)),
        },
    ),
    KernelRow(
        "langevin",
        Langevin,
        langevin,
        targets=("langevin_normal",),
        broken={"forgets the temperature": ("langevin_normal", partial(langevin, temperature=1.0))},
    ),
    KernelRow(
        "slice_coordinates",
        SliceSampler,
        partial(SliceSampler, width=1.0, max_widenings=4, compile=False),
        broken={
            "no level": ("normal", partial(WithoutLevel, compile=False)),
            "no offset": ("gamma", partial(WithoutOffset, compile=False)),
        },
        num_steps=2,
    ),
    KernelRow(
        "slice_directions",
        SliceSampler,
        partial(SliceSampler, along="directions", max_shrinkages=3, compile=False),
        broken={
            "no level": ("dirichlet", partial(WithoutLevel, along="directions", compile=False)),
        },
    ),
]
