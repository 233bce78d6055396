# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What chains of a convolutional machine move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.distributions import constraints
from torch.nn.functional import pad

from .convolutional_enumeration import LayerStates
from .convolutional_layers import ConvolutionalLayers, Layers
from .log_partition import UnknownPartitionError
from .machine import Machine
from .units import BinaryUnits


class EvenLayers(Machine):
    """The even layers of a machine, the image first, with the odd ones summed out.

    A value is the image where there are no other even layers, and else all of them side by side in
    one dimension.

    Args:
        machine: the machine, whose parameters these are.
    """

    def __init__(self, machine: ConvolutionalLayers) -> None:
        sizes = [math.prod(shape) for shape in machine.shapes[::2]]
        shape = machine.event_shape if len(sizes) == 1 else torch.Size([sum(sizes)])
        super().__init__(shape, machine.batch_shape, validate_args=False)
        self.machine, self.sizes, self.context_dim = machine, sizes, machine.context_dim
        self.__dict__["_context"] = machine.__dict__["_context"]

    @property
    def support(self) -> Any:
        """Binary or real numbers."""
        binary = isinstance(self.machine.visible, BinaryUnits)
        each = constraints.boolean if binary else constraints.real
        return constraints.independent(each, len(self.event_shape))

    def split(self, x: torch.Tensor) -> Layers:
        """All layers of values ``(..., *event_shape)``; ``None`` for the odd ones."""
        layers: Layers = [None] * self.machine.num_layers
        if len(self.sizes) == 1:
            layers[0] = x
            return layers
        for place, piece in enumerate(x.split(self.sizes, -1)):
            layers[2 * place] = piece.unflatten(-1, self.machine.shapes[2 * place])
        return layers

    def join(self, layers: Layers) -> torch.Tensor:
        """The value ``(..., *event_shape)`` of the even ones of some layers."""
        even = [x for x in layers[::2] if x is not None]
        return even[0] if len(self.sizes) == 1 else torch.cat([x.flatten(-3) for x in even], -1)

    def image(self, x: torch.Tensor) -> torch.Tensor:
        """The image in values ``(..., *event_shape)``."""
        if len(self.sizes) == 1:
            return x
        image: torch.Tensor = x[..., : self.sizes[0]].unflatten(-1, self.machine.shapes[0])
        return image

    def known(self, mask: torch.Tensor) -> torch.Tensor:
        """The mask of values where ``mask`` is that of the image: no hidden unit is known."""
        if len(self.sizes) == 1:
            return mask
        full = mask.expand(mask.shape[:-3] + self.machine.event_shape)
        return pad(full.flatten(-3), (0, sum(self.sizes[1:])))

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        """The energy ``(...)`` over the temperature, of values ``(..., *event_shape)``."""
        return -self.machine.log_weight(self.split(x))

    def transition(
        self, x: torch.Tensor, num_steps: int = 1, known: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Draw all odd layers, then all even ones except what is known, so many times."""
        mask = None if known is None else self.image(known.expand(x.shape))
        layers = self.split(x)
        for _ in range(num_steps):
            layers = self.machine.redrawn(self.machine.redrawn(layers, 1), 0, mask)
        return self.join(layers)

    @torch.no_grad()
    def start(self, num_chains: int) -> torch.Tensor:
        """Units as their biases alone would have them."""
        layers: Layers = [None] * self.machine.num_layers
        for level in range(0, self.machine.num_layers, 2):
            field = self.machine.own_bias(level)[:, None, None] / self.machine.temperature
            field = field.expand(num_chains, *self.machine.shapes[level])
            layers[level] = self.machine.draw(level, field.contiguous())
        return self.join(layers)

    # ------------------------------------------------ the normalising constant

    def num_states(self) -> float:
        """The states of the even or of the odd layers, whichever are fewer."""
        return LayerStates(self.machine).count

    def exact_log_partition(self) -> torch.Tensor:
        """``log Z`` by enumeration of the even or of the odd layers."""
        if not self.is_small:
            raise UnknownPartitionError(self._too_large())
        return LayerStates(self.machine).log_sum()

    def exact_sample(self, num_draws: int) -> torch.Tensor:
        """Values by enumeration of the even or of the odd layers."""
        if not self.is_small:
            raise UnknownPartitionError(self._too_large())
        return self.join(LayerStates(self.machine).draw(num_draws))

    def bridge(self, beta: torch.Tensor) -> EvenLayers:
        """The same of a machine on the way from independent units to this one."""
        return EvenLayers(self.machine.bridge(beta))

    def path_start(self) -> IndependentLayers:
        """Independent units, the image's with the base's biases."""
        return IndependentLayers(self.bridge(self.machine.base_bias.new_zeros(())))


class IndependentLayers:
    """Even layers of units that nothing couples, as a base of annealing.

    Args:
        even: the layers, at the beginning of the path.
    """

    def __init__(self, even: EvenLayers) -> None:
        self.even = even
        self.event_shape, self.batch_shape = even.event_shape, torch.Size()
        self.support = even.support

    def _fields(self) -> list[tuple[int, torch.Tensor]]:
        machine = self.even.machine
        nothing: Layers = [None] * machine.num_layers
        return [(k, machine.field_in(k, nothing)) for k in range(0, machine.num_layers, 2)]

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> torch.Tensor:
        """Draws ``(*sample_shape, *event_shape)``."""
        drawn: Layers = [None] * self.even.machine.num_layers
        for level, field in self._fields():
            repeated = field.expand(*sample_shape, *field.shape).contiguous()
            drawn[level] = self.even.machine.draw(level, repeated)
        return self.even.join(drawn)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """The log-density ``(...)`` of ``(..., *event_shape)``."""
        machine, values = self.even.machine, self.even.split(x)
        total = x.new_zeros(())
        for level, field in self._fields():
            value = values[level]
            assert value is not None
            total = total + machine.own_score(level, value, field)
            total = total - machine.log_normalizer(level, field)
        return total
