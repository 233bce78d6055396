# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Sums over all states of small deep Boltzmann machines, and exact draws from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.distributions import Categorical

from .log_partition import CHUNK, all_states, log_sum_of

if TYPE_CHECKING:
    from .deep_layers import AllLayers

Layers = list[torch.Tensor | None]


class Enumeration:
    """Every other layer in all its states, the layers between them summed out.

    Args:
        machine: the machine over all layers.
        visible: visible units ``(*batch, V)`` that are given, or ``None`` to sum over them too.
    """

    def __init__(self, machine: AllLayers, visible: torch.Tensor | None = None) -> None:
        self.machine, self.visible = machine, visible
        halves = range(1, machine.num_layers, 2), range(0, machine.num_layers, 2)
        if visible is not None:
            halves = halves[0], halves[1][1:]
        self.levels = min(halves, key=self._count)

    @property
    def batch(self) -> torch.Size:
        """The batch shape of what is given: visible units and contexts."""
        given = torch.Size() if self.visible is None else self.visible.shape[:-1]
        return torch.Size(torch.broadcast_shapes(given, self.machine.lead))

    def _count(self, levels: range) -> float:
        return math.prod(self.machine.units(level).num_states() for level in levels)

    def num_states(self) -> float:
        """How many states are enumerated."""
        return self._count(self.levels)

    def states(self) -> torch.Tensor:
        """All states of the enumerated layers, ``(S, N)``."""
        like = self.machine.machine.base_bias
        hidden = all_states(sum(self.machine.sizes[k] for k in self.levels if k), like)
        if 0 not in self.levels:
            return hidden
        visible = self.machine.units(0).states(like)
        repeated = visible.repeat_interleave(len(hidden), 0)
        return torch.cat([repeated, hidden.repeat(len(visible), 1)], -1)

    def layers(self, states: torch.Tensor) -> Layers:
        """The layers of states ``(S, ..., N)``; ``None`` for what is summed out."""
        layers: Layers = [None] * self.machine.num_layers
        layers[0] = self.visible
        pieces = states.split([self.machine.sizes[level] for level in self.levels], -1)
        for level, piece in zip(self.levels, pieces, strict=True):
            layers[level] = piece
        return layers

    def score(self, states: torch.Tensor) -> torch.Tensor:
        """The logarithms ``(S, *batch)`` of the terms of some states ``(S, N)``."""
        spread = states.reshape(len(states), *[1] * len(self.batch), states.shape[-1])
        return -self.machine.summed_energy(self.layers(spread)).expand(len(states), *self.batch)

    def log_sum(self) -> torch.Tensor:
        """The logarithm of the sum over all states, ``(*batch)``."""
        width = self.batch.numel() * sum(self.machine.sizes)
        return log_sum_of(self.score, self.states(), width)

    def draw(self, num_draws: int) -> torch.Tensor:
        """States of all layers, ``(num_draws, *batch, N)``; visible ones that are given stay."""
        states = self.states()
        parts = states.split(max(1, CHUNK // (self.batch.numel() * sum(self.machine.sizes))))
        scores = torch.cat([self.score(part) for part in parts])
        chosen = Categorical(logits=scores.movedim(0, -1)).sample(torch.Size([num_draws]))
        layers = self.layers(states[chosen])
        if self.visible is not None:
            layers[0] = self.visible.expand(num_draws, *self.visible.shape)
        for level in range(self.machine.num_layers):
            if layers[level] is None:
                layers[level] = self.machine.draw_of(level, layers)
        return torch.cat([layer for layer in layers if layer is not None], -1)
