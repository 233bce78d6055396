# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Sums over all states of a machine of several layers, and exact draws from it."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import pyro.distributions as dist
import torch

from .log_partition import CHUNK, log_sum_of

if TYPE_CHECKING:
    from .layered_machine import LayeredMachine, Layers


class LayerStates:
    """All states of the even or of the odd layers, whichever are fewer, the others summed out.

    Args:
        machine: the machine.
        visible: visible units ``(*batch, *event_shape)`` that are given; then of the hidden layers
            only.
    """

    def __init__(self, machine: LayeredMachine, visible: torch.Tensor | None = None) -> None:
        self.machine, self.visible = machine, visible
        first = 0 if visible is None else 2
        parities = [range(first, machine.num_layers, 2), range(1, machine.num_layers, 2)]
        logs = [sum(machine.log2_states(level) for level in levels) for levels in parities]
        self.levels = parities[0] if logs[0] <= logs[1] else parities[1]
        # Far beyond any limit on enumeration, and before powers of floats overflow.
        self.count = float(round(2.0 ** min(logs))) if min(logs) < 1000 else math.inf

    @cached_property
    def batch(self) -> torch.Size:
        """The batch shape of contexts and of given visible units."""
        given = torch.Size()
        if self.visible is not None:
            given = self.visible.shape[: self.visible.dim() - len(self.machine.event_shape)]
        batch: torch.Size = torch.broadcast_shapes(given, self.machine.lead)
        return batch

    @cached_property
    def _tables(self) -> dict[int, torch.Tensor]:
        return {level: self.machine.all_states(level) for level in self.levels}

    def layers(self, index: torch.Tensor) -> Layers:
        """The layers of some states, ``(*index.shape, *shape)`` each; ``None`` if summed out."""
        layers: Layers = [None] * self.machine.num_layers
        layers[0] = self.visible
        for level, states in self._tables.items():
            layers[level] = states[index % len(states)]
            index = index // len(states)
        return layers

    def scores(self, index: torch.Tensor) -> torch.Tensor:
        """Log-weights ``(S, *batch)`` of states ``(S,)``."""
        scores = self.machine.log_weight(self.layers(index.reshape(-1, *[1] * len(self.batch))))
        return scores.expand(len(index), *self.batch)

    def log_sum(self) -> torch.Tensor:
        """The log-sum-exp ``(*batch)`` over all states."""
        return log_sum_of(self.scores, self._index(), self._width())

    def draw(self, num_draws: int) -> Layers:
        """Independent draws ``(num_draws, *batch, *shape)`` of all layers; given ones stay."""
        parts = self._index().split(max(1, CHUNK // self._width()))
        scores = torch.cat([self.scores(part) for part in parts])
        chosen = dist.Categorical(logits=scores.movedim(0, -1)).sample((num_draws,))
        layers = self.layers(chosen)
        if self.visible is not None:
            layers[0] = self.visible.expand(num_draws, *self.visible.shape)
        for level, x in enumerate(layers):
            if x is None:
                layers[level] = self.machine.draw(level, self.machine.field_in(level, layers))
        return layers

    def _index(self) -> torch.Tensor:
        return torch.arange(round(self.count), device=self.machine.base_bias.device)

    def _width(self) -> int:
        return self.batch.numel() * sum(math.prod(shape) for shape in self.machine.shapes)
