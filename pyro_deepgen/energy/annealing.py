# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A machine as annealed importance sampling sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pyro_deepgen.mcmc import AISResult, BlockGibbs, ais

if TYPE_CHECKING:
    from .machine import Machine


class Annealed(nn.Module):
    """A path from independent units to a machine, for :func:`~pyro_deepgen.mcmc.ais`.

    Args:
        machine: the end of the path, which gives the machines on the way by ``bridge(beta)`` and
            what to draw from at its beginning by ``path_start()``.
        beta: the inverse temperatures of this point of the path.
    """

    def __init__(self, machine: Machine, beta: torch.Tensor | None = None) -> None:
        super().__init__()
        self.machine = machine
        self._here: Any = machine if beta is None else machine.bridge(beta)
        self.event_shape, self.support = machine.event_shape, machine.support
        self.blocks = {"x": machine.event_shape}

    def bridge(self, beta: torch.Tensor) -> Annealed:
        """Another point of the path."""
        return Annealed(self.machine, beta)

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        """The energy ``(C,)`` of values ``(C, *event_shape)`` at this point."""
        energy: torch.Tensor = self._here.energy(x)
        return energy

    def sample_block(self, block: str, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """One step of the machine's own chain at this point."""
        moved: torch.Tensor = self._here.transition(values["x"], 1)
        return moved

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """The log-density at the beginning of the path."""
        score: torch.Tensor = self.machine.path_start().log_prob(x)
        return score

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> torch.Tensor:
        """Draws from the beginning of the path."""
        drawn: torch.Tensor = self.machine.path_start().sample(torch.Size(sample_shape))
        return drawn


def annealed(machine: Machine, compile: bool | str, settings: Mapping[str, Any]) -> AISResult:
    """Annealed importance sampling of a machine, from its base.

    Args:
        machine: the machine, over what its chains move.
        compile: whether the steps are compiled.
        settings: arguments of :func:`~pyro_deepgen.mcmc.ais`, in place of a linear schedule and of
            the machine's own chain.
    """
    path = Annealed(machine)
    given = {"schedule": "linear", "tune": False, **settings}
    make = given.pop("kernel", None) or BlockGibbs
    return ais(path, kernel=make(path, compile=compile), **given)
