# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Trajectories of as many leapfrog steps in every chain, accepted or rejected at their ends."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from .compiled import compiled, repeated
from .hamiltonian import GRADIENT, MAX_ENERGY_ERROR, POTENTIAL, Hamiltonian
from .state import Info, State, Values, pack, unpack
from .target import Target

Trajectory = dict[str, torch.Tensor]
MAX_STEPS = 1000


class Trajectories(Hamiltonian):
    """A Hamiltonian kernel whose trajectories have the same number of steps in all chains.

    Each trajectory's step size is multiplied by a uniform draw from ``(1 - jitter, 1 + jitter)``,
    the same for all chains.
    """

    jitter: float

    def __init__(self, target: Any = None, **options: Any) -> None:
        super().__init__(target, **options)
        self._rooms: dict[int, Trajectory] = {}

    @torch.no_grad()
    def step(self, state: State) -> tuple[State, Info]:
        """Follow one trajectory in every chain, and accept or reject."""
        trajectory = self._room(state)
        self._set_out(state)
        num_steps = self.count_steps(state)
        follow = repeated(self._follow, self.others(state), trajectory["start"])
        for _ in range(num_steps):
            follow()
        moved, info = self._settle(state)
        self.look(state, trajectory, info)
        info["num_steps"] = torch.full_like(info["potential"], num_steps, dtype=torch.int32)
        return moved, info

    def bind(self, target: Target, sites: Sequence[str] | None = None) -> None:
        """Let the kernel move some sites of a target."""
        super().bind(target, sites)
        if not self.graphs:
            self._rooms.clear()

    def _room(self, state: State) -> Trajectory:
        """The memory of the trajectories of so many chains, which their graphs change in place."""
        chains = len(state[POTENTIAL])
        if chains not in self._rooms:
            u, gradient = state[POTENTIAL], state[GRADIENT].mT.contiguous()
            new = {"q": gradient, "a": gradient, "gradient": gradient, "potential": u, "start": u}
            self._rooms[chains] = {name: torch.zeros_like(value) for name, value in new.items()}
            self._rooms[chains]["step_size"] = torch.zeros_like(self.tuning["step_size"])
        return self._rooms[chains]

    def look(self, state: State, trajectory: Trajectory, info: Info) -> None:
        """Learn from a trajectory while the kernel warms up."""

    def others(self, state: State) -> Values:
        """The values of the sites that this kernel does not move."""
        return {name: state[name] for name in self.target.sites if name not in self.sites}

    @abstractmethod
    def count_steps(self, state: State) -> int:
        """How many leapfrog steps the next trajectory has."""

    @compiled
    def _set_out(self, state: State) -> None:
        """Begin trajectories, in place."""
        t = self._rooms[len(state[POTENTIAL])]
        q = pack(state, self.sites).mT
        a = torch.randn_like(t["a"])
        spread = 2 * torch.rand((), dtype=q.dtype, device=q.device) - 1
        t["q"].copy_(q)
        t["a"].copy_(a)
        t["gradient"].copy_(state[GRADIENT].mT)
        t["potential"].copy_(state[POTENTIAL])
        t["start"].copy_(state[POTENTIAL] + 0.5 * a.square().sum(0))
        t["step_size"].copy_(self.tuning["step_size"] * (1 + self.jitter * spread))

    @compiled
    def _follow(self, others: Values, start: torch.Tensor) -> None:
        """Move along the trajectory, in place; ``start`` ``(C,)`` says whose."""
        t = self._rooms[len(start)]
        moved = self.leapfrog(others, t["q"], t["a"], t["gradient"], t["step_size"])
        for name, value in zip(("q", "a", "gradient", "potential"), moved, strict=True):
            t[name].copy_(value)

    @compiled
    def _settle(self, state: State) -> tuple[State, Info]:
        """Accept or reject the trajectories that began at a state."""
        t = self._rooms[len(state[POTENTIAL])]
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
