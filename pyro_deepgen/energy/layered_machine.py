# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Machines whose units lie in layers, each coupled to its neighbours."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from typing_extensions import Self

from .energy_distribution import EnergyDistribution
from .some_layers import IndependentLayers, SomeLayers
from .units import Units

# Units by layer; ``None`` for layers that are not given.
Layers = list[torch.Tensor | None]


class LayeredMachine(EnergyDistribution):
    """Layers of units, the visible one the zeroth, each coupled to the one below and above.

    Given its neighbours, the units of a layer (or blocks of them) are independent: all odd layers
    are drawn at once given the even ones, and the other way round. A layer has a field,

        bias + what the layer below adds + what the layer above adds,

    over the temperature, and its units follow it. A subclass says what a layer adds to its
    neighbours, and what its units make of a field.
    """

    base_bias: torch.Tensor
    visible: Units

    # ------------------------------------------------ what a subclass writes

    @property
    @abstractmethod
    def shapes(self) -> Sequence[tuple[int, ...]]:
        """Shapes of the units of each layer."""

    @property
    def moving(self) -> range:
        """The layers that chains hold; all of them by default. Others are drawn in each step."""
        return range(self.num_layers)

    @abstractmethod
    def bias(self, level: int, context: torch.Tensor | None) -> torch.Tensor:
        """The bias of a layer, which broadcasts to its shape, with what a context adds."""

    @abstractmethod
    def from_below(self, level: int, below: torch.Tensor) -> torch.Tensor:
        """What units of layer ``level - 1`` add to the field of a layer."""

    @abstractmethod
    def from_above(self, level: int, above: torch.Tensor) -> torch.Tensor:
        """What units of layer ``level + 1`` add to the field of a layer."""

    @abstractmethod
    def own_score(self, level: int, x: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
        """The log-weight ``(...)`` of a layer's units for themselves, in a field."""

    @abstractmethod
    def log_normalizer(self, level: int, field: torch.Tensor) -> torch.Tensor:
        """The logarithm ``(...)`` of the sum over a layer's units given the field on them."""

    @abstractmethod
    def mean_of(self, level: int, field: torch.Tensor) -> torch.Tensor:
        """Means ``(..., *shapes[level])`` of a layer's units given the field on them."""

    @abstractmethod
    def draw(self, level: int, field: torch.Tensor) -> torch.Tensor:
        """Units ``(..., *shapes[level])`` of a layer given the field on them."""

    @abstractmethod
    def log2_states(self, level: int) -> float:
        """The binary logarithm of the number of a layer's states; infinite for real units."""

    @abstractmethod
    def all_states(self, level: int) -> torch.Tensor:
        """All states ``(S, *shapes[level])`` of a layer."""

    # ------------------------------------------------ fields and weights

    @property
    def num_layers(self) -> int:
        """Layers, the visible one among them."""
        return len(self.shapes)

    def field(
        self, level: int, below: torch.Tensor | None, above: torch.Tensor | None
    ) -> torch.Tensor:
        """What acts on the units of a layer, over the temperature.

        Args:
            level: the layer.
            below: units ``(..., *shapes[level - 1])``, if there are any.
            above: units ``(..., *shapes[level + 1])``, if there are any.

        Returns:
            ``(..., *shapes[level])``, or what broadcasts to it.
        """
        field = self.bias(level, self.context)
        if below is not None:
            field = field + self.from_below(level, below)
        if above is not None:
            field = field + self.from_above(level, above)
        if self.temperature != 1:  # a chain of many short steps notices a division by 1
            field = field / self.temperature
        return self._on_path(level, field)

    def _on_path(self, level: int, field: torch.Tensor) -> torch.Tensor:
        beta = self.__dict__["_beta"]
        if beta is None:
            return field
        beta = beta.to(field.dtype).reshape(*beta.shape, *[1] * len(self.event_shape))
        moved, base = beta * field, self.base(level)
        on_path: torch.Tensor = moved if base is None else moved + (1 - beta) * base
        return on_path

    def field_in(self, level: int, layers: Layers) -> torch.Tensor:
        """The field of a layer given its neighbours among all layers, in its full shape."""
        below = layers[level - 1] if level else None
        above = layers[level + 1] if level + 1 < self.num_layers else None
        field = self.field(level, below, above)
        shape = self.shapes[level]
        return field.expand(*field.shape[: field.dim() - len(shape)], *shape)

    def log_weight(self, layers: Layers) -> torch.Tensor:
        """The log-weight ``(...)`` of some layers, with the others summed out.

        Args:
            layers: units ``(..., *shapes[level])`` by layer; ``None`` for those to sum out, no two
                of which are neighbours.
        """
        total: Any = 0.0
        for level, x in enumerate(layers):
            if x is None:
                total = total + self.log_normalizer(level, self.field_in(level, layers))
            else:  # the coupling to the layer below is counted here, and that to the one above not
                below = layers[level - 1] if level else None
                total = total + self.own_score(level, x, self.field(level, below, None))
        weight: torch.Tensor = total
        return weight

    def redrawn(self, layers: Layers, parity: int, known: Layers | None = None) -> Layers:
        """All layers with the even or the odd ones drawn anew, given the others.

        Args:
            layers: units by layer.
            parity: 0 for the even layers, 1 for the odd ones.
            known: masks by layer, of what stays; ``None`` for layers of which nothing does.
        """
        new = list(layers)
        for level in range(parity, self.num_layers, 2):
            drawn = self.draw(level, self.field_in(level, layers))
            before, stays = layers[level], None if known is None else known[level]
            if stays is not None and before is not None:
                drawn = torch.where(stays, before, drawn)
            new[level] = drawn
        return new

    # ------------------------------------------------ the layers that chains hold

    @property
    def all_units(self) -> SomeLayers:
        """The machine over the layers that chains hold, the visible one first."""
        return SomeLayers(self, self.moving)

    def visible_part(self, state: torch.Tensor) -> torch.Tensor:
        """The visible units ``(..., *event_shape)`` of what chains hold."""
        return self.all_units.first(state)

    def known_part(self, mask: torch.Tensor) -> torch.Tensor:
        """No hidden unit is known."""
        return self.all_units.known(mask)

    @torch.no_grad()
    def transition(
        self, x: torch.Tensor, num_steps: int = 1, known: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Draw hidden units given ``(..., *event_shape)``, then move all so many times."""
        mask = None if known is None else self.known_part(known.expand(x.shape))
        return self.visible_part(self.all_units.transition(self.complete(x), num_steps, mask))

    def start(self, num_chains: int) -> torch.Tensor:
        """Visible units as their biases alone would have them."""
        return self.visible_part(self.all_units.start(num_chains))

    @torch.no_grad()
    def sample_layers(self, sample_shape: Sequence[int] = torch.Size()) -> list[torch.Tensor]:
        """Draw all layers, ``(*sample_shape, *batch_shape, *shape)`` each, the visible one first.

        Layers that chains do not hold are drawn given the others.
        """
        layers = self.all_units.split(self.sample_all(sample_shape))
        if any(x is None for x in layers):
            layers = self.redrawn(layers, 1)
        return [x for x in layers if x is not None]

    # ------------------------------------------------ the normalising constant

    def num_states(self) -> float:
        """The states of the even or of the odd layers, whichever are fewer."""
        return self.all_units.num_states()

    def exact_log_partition(self) -> torch.Tensor:
        """``log Z`` by enumeration of the even or of the odd layers."""
        return self.all_units.exact_log_partition()

    def exact_sample(self, num_draws: int) -> torch.Tensor:
        """Visible units by enumeration of the even or of the odd layers."""
        return self.visible_part(self.all_units.exact_sample(num_draws))

    def base(self, level: int) -> torch.Tensor | None:
        """What acts on a layer at the beginning of the path; ``None`` for 0, fair hidden units."""
        return None if level else self.base_bias

    def bridge(self, beta: torch.Tensor) -> Self:
        """The machine with its couplings times ``beta``, and biases between the base's and its."""
        view = self.expand(self.batch_shape)
        view.__dict__["_beta"] = beta
        return view

    def path_start(self) -> IndependentLayers:
        """Independent units with the base's biases."""
        return self.all_units.path_start()
