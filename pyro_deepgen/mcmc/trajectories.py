# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Trajectories of as many leapfrog steps in every chain, accepted or rejected at their ends."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch

from .compiled import compiled
from .hamiltonian import GRADIENT, MAX_ENERGY_ERROR, POTENTIAL, Hamiltonian
from .state import Info, State, Values, pack, unpack

Trajectory = dict[str, torch.Tensor]
MAX_STEPS = 1000


class Trajectories(Hamiltonian):
    """A Hamiltonian kernel whose trajectories have the same number of steps in all chains.

    Each trajectory's step size is multiplied by a uniform draw from ``(1 - jitter, 1 + jitter)``,
    the same for all chains.
    """

    jitter: float

    def step(self, state: State) -> tuple[State, Info]:
        """Follow one trajectory in every chain, and accept or reject."""
        trajectory = self._set_out(state)
        num_steps = self.count_steps(state)
        for _ in range(num_steps):
            trajectory = self._follow(self.others(state), trajectory)
        moved, info = self._settle(state, trajectory)
        self.look(state, trajectory, info)
        info["num_steps"] = torch.full_like(info["potential"], num_steps, dtype=torch.int32)
        return moved, info

    def look(self, state: State, trajectory: Trajectory, info: Info) -> None:
        """Learn from a trajectory while the kernel warms up."""

    def others(self, state: State) -> Values:
        """The values of the sites that this kernel does not move."""
        return {name: state[name] for name in self.target.sites if name not in self.sites}

    @abstractmethod
    def count_steps(self, state: State) -> int:
        """How many leapfrog steps the next trajectory has."""

    @compiled
    def _set_out(self, state: State) -> Trajectory:
        q = pack(state, self.sites).mT.contiguous()
        a = torch.randn_like(q)
        spread = 2 * torch.rand((), dtype=q.dtype, device=q.device) - 1
        return {
            "q": q,
            "a": a,
            "gradient": state[GRADIENT].mT.contiguous(),
            "potential": state[POTENTIAL],
            "start": state[POTENTIAL] + 0.5 * a.square().sum(0),
            "step_size": self.tuning["step_size"] * (1 + self.jitter * spread),
        }

    @compiled
    def _follow(self, others: Values, trajectory: Trajectory) -> Trajectory:
        t = trajectory
        q, a, gradient, potential = self.leapfrog(
            others, t["q"], t["a"], t["gradient"], t["step_size"]
        )
        return {**t, "q": q, "a": a, "gradient": gradient, "potential": potential}

    @compiled
    def _settle(self, state: State, trajectory: Trajectory) -> tuple[State, Info]:
        t = trajectory
        energy = t["potential"] + 0.5 * t["a"].square().sum(0)
        error = (energy - t["start"]).nan_to_num(torch.inf)
        accept_prob = (-error).exp().clamp(max=1.0)
        accepted = torch.rand_like(accept_prob) < accept_prob
        row = accepted[:, None]
        q = torch.where(row, t["q"].mT, pack(state, self.sites))
        potential = torch.where(accepted, t["potential"], state[POTENTIAL])
        moved: State = {
            **state,
            **unpack(q, self.target.shapes(self.sites)),
            POTENTIAL: potential,
            GRADIENT: torch.where(row, t["gradient"].mT, state[GRADIENT]),
        }
        info = {
            "accept_prob": accept_prob,
            "diverging": error > MAX_ENERGY_ERROR,
            "energy": torch.where(accepted, energy, t["start"]),
            "potential": potential,
        }
        return moved, info


def steps_of(length: float, step_size: float) -> int:
    """How many steps of a size a trajectory of some length has, at least 1."""
    return max(1, min(math.ceil(length / step_size), MAX_STEPS)) if step_size > 0 else MAX_STEPS
