# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Some layers of a machine as one value, which chains move and annealing weighs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.distributions import constraints
from torch.nn.functional import pad
from typing_extensions import Self

from .layer_states import LayerStates
from .log_partition import UnknownPartitionError
from .machine import Machine

if TYPE_CHECKING:
    from .layered_machine import LayeredMachine, Layers


class SomeLayers(Machine):
    r"""All layers of a machine, or the even or the odd ones with the others summed out.

    .. math:: p(h_1, h_3, \dots) \propto \sum_{v, h_2, \dots} \exp(-E(v, h_1, h_2, \dots) / T)

    Each has the machine's normalising constant; weights of annealing vary less where layers are
    summed out. A value is the units of the one layer that there is, or those of all side by side in
    one dimension.

    Args:
        machine: the machine, whose parameters these are.
        levels: its layers in their order: all, the even ones or the odd ones.

    References:
        Deep Boltzmann Machines, Ruslan Salakhutdinov and Geoffrey Hinton, 2009.
    """

    def __init__(self, machine: LayeredMachine, levels: range) -> None:
        self.sizes = [math.prod(machine.shapes[level]) for level in levels]
        alone = len(levels) == 1
        shape = machine.shapes[levels[0]] if alone else [sum(self.sizes)]
        super().__init__(shape, machine.batch_shape, validate_args=False)
        self.machine, self.levels, self.alone = machine, levels, alone
        self.context_dim = machine.context_dim
        self.__dict__["_context"] = machine.__dict__["_context"]

    @property
    def support(self) -> Any:
        """That of the visible units, or whole or real numbers."""
        if self.levels[0]:
            return constraints.independent(constraints.boolean, len(self.event_shape))
        if self.alone:
            return self.machine.support
        of_visible: Any = self.machine.support
        each = constraints.nonnegative_integer if of_visible.is_discrete else constraints.real
        return constraints.independent(each, 1)

    def split(self, x: torch.Tensor) -> Layers:
        """All layers of values ``(..., *event_shape)``; ``None`` for those summed out."""
        layers: Layers = [None] * self.machine.num_layers
        if self.alone:
            layers[self.levels[0]] = x
            return layers
        for level, piece in zip(self.levels, x.split(self.sizes, -1), strict=True):
            shape = self.machine.shapes[level]
            layers[level] = piece if len(shape) == 1 else piece.unflatten(-1, shape)
        return layers

    def join(self, layers: Layers) -> torch.Tensor:
        """The value ``(..., *event_shape)`` of some layers."""
        found = [layers[level] for level in self.levels]
        kept = [x for x in found if x is not None]
        if self.alone:
            return kept[0]
        dims = len(self.machine.event_shape)
        return torch.cat([x if dims == 1 else x.flatten(-dims) for x in kept], -1)

    def first(self, x: torch.Tensor) -> torch.Tensor:
        """The first of the layers in values ``(..., *event_shape)``."""
        if self.alone:
            return x
        shape = self.machine.shapes[self.levels[0]]
        flat = x[..., : self.sizes[0]]
        found: torch.Tensor = flat if len(shape) == 1 else flat.unflatten(-1, shape)
        return found

    def known(self, mask: torch.Tensor) -> torch.Tensor:
        """The mask of values where ``mask`` is that of the first layer, and no other is known."""
        if self.alone:
            return mask
        shape = self.machine.shapes[self.levels[0]]
        batch = mask.shape[: mask.dim() - len(shape)]
        full = mask.expand(*batch, *shape).reshape(*batch, self.sizes[0])
        return pad(full, (0, sum(self.sizes[1:])))

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        """The energy ``(...)`` over the temperature, of values ``(..., *event_shape)``."""
        return -self.machine.log_weight(self.split(x))

    def transition(
        self, x: torch.Tensor, num_steps: int = 1, known: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Draw all odd layers, then all even ones, so many times; odd ones last if they are held.

        Args:
            x: values ``(..., *event_shape)``.
            num_steps: how many times.
            known: a mask that broadcasts to ``x``; what is known does not move.
        """
        masks = None if known is None else self.split(known.expand(x.shape))
        layers = self.split(x)
        last = self.levels[0] % 2
        for _ in range(num_steps):
            for parity in (1 - last, last):
                layers = self.machine.redrawn(layers, parity, masks)
        return self.join(layers)

    @torch.no_grad()
    def start(self, num_chains: int) -> torch.Tensor:
        """Units as their biases alone would have them."""
        machine = self.machine
        layers: Layers = [None] * machine.num_layers
        for level in self.levels:
            field = machine.bias(level, None) / machine.temperature
            field = field.expand(num_chains, *machine.shapes[level])
            layers[level] = machine.draw(level, field.contiguous())
        return self.join(layers)

    # ------------------------------------------------ parameters that are the machine's

    def own_parameters(self) -> dict[str, torch.Tensor]:
        """The machine's own parameters by their names."""
        return self.machine.own_parameters()

    def with_parameters(self, **values: torch.Tensor) -> Self:
        """The same of the machine with other values in place of some parameters."""
        return type(self)(self.machine.with_parameters(**values), self.levels)

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

    def bridge(self, beta: torch.Tensor) -> Self:
        """The same of a machine on the way from independent units to this one."""
        return type(self)(self.machine.bridge(beta), self.levels)

    def path_start(self) -> IndependentLayers:
        """Independent units with the base's biases."""
        return IndependentLayers(self.bridge(self.machine.base_bias.new_zeros(())))


class IndependentLayers:
    """Layers of units that nothing couples, as a base of annealing.

    Args:
        layers: the layers, at the beginning of the path.
    """

    def __init__(self, layers: SomeLayers) -> None:
        self.layers = layers
        self.event_shape, self.batch_shape = layers.event_shape, torch.Size()
        self.support = layers.support

    def _fields(self) -> list[tuple[int, torch.Tensor]]:
        machine = self.layers.machine
        nothing: Layers = [None] * machine.num_layers
        return [(k, machine.field_in(k, nothing)) for k in self.layers.levels]

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> torch.Tensor:
        """Draws ``(*sample_shape, *event_shape)``."""
        machine = self.layers.machine
        drawn: Layers = [None] * machine.num_layers
        for level, field in self._fields():
            repeated = field.expand(*sample_shape, *field.shape).contiguous()
            drawn[level] = machine.draw(level, repeated)
        return self.layers.join(drawn)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """The log-density ``(...)`` of ``(..., *event_shape)``."""
        machine, values = self.layers.machine, self.layers.split(x)
        total = x.new_zeros(())
        for level, field in self._fields():
            value = values[level]
            assert value is not None
            total = total + machine.own_score(level, value, field)
            total = total - machine.log_normalizer(level, field)
        return total
