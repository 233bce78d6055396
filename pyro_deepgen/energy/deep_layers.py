# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""All layers of a deep Boltzmann machine together, and the path to them from independent ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.distributions import constraints

from .deep_enumeration import Enumeration
from .log_partition import UnknownPartitionError
from .machine import Machine
from .units import BinaryUnits, FreeUnits, Units

if TYPE_CHECKING:
    from .deep_boltzmann_machine import DeepBoltzmannMachine


class AllLayers(Machine):
    r"""All units of a deep Boltzmann machine, the visible ones first.

    Given the even layers (the visible one is the zeroth) the units of the odd ones are independent,
    and the other way round.

    Args:
        machine: the machine, whose parameters these are.
        beta: inverse temperatures ``()`` or ``(C,)`` of a point on the path to it.
    """

    def __init__(self, machine: DeepBoltzmannMachine, beta: torch.Tensor | None = None) -> None:
        super().__init__((sum(machine.sizes),), machine.batch_shape, validate_args=False)
        self.machine, self.beta = machine, beta
        self.sizes, self.num_layers = machine.sizes, len(machine.sizes)
        self.context_dim = machine.context_dim
        self.__dict__["_context"] = machine.__dict__["_context"]

    @property
    def support(self) -> Any:
        """The support of the visible units."""
        return self.machine.support

    def split(self, state: torch.Tensor) -> list[torch.Tensor]:
        """The layers ``[(..., V), (..., H1), ...]`` of states ``(..., V + H1 + ...)``."""
        return list(state.split(self.sizes, -1))

    # ------------------------------------------------ fields

    def units(self, level: int) -> Units:
        """The units of a layer; the visible one is the zeroth."""
        units = self.machine.hidden[level - 1] if level else self.machine.visible
        return cast(Units, units)

    def bias(self, level: int) -> torch.Tensor:
        """The bias of a layer over the temperature, with the context's offset, on the path."""
        bias: torch.Tensor = getattr(self.machine, f"bias{level}")
        context, beta = self.context, self.beta
        if context is not None:
            bias = bias + self.machine.offsets(context).split(self.sizes, -1)[level]
        bias = self._over_temperature(bias)
        if beta is None:
            return bias
        moved: torch.Tensor = beta[..., None] * bias
        return moved if level else moved + (1 - beta[..., None]) * self.machine.base_bias

    def _over_temperature(self, field: torch.Tensor) -> torch.Tensor:
        # A chain of many short steps notices a division by 1.
        temperature = self.machine.temperature
        return field if temperature == 1 else field / temperature

    def _scaled(self, field: torch.Tensor) -> torch.Tensor:
        beta = self.beta
        field = self._over_temperature(field)
        return field if beta is None else beta[..., None] * field

    def from_below(self, level: int, below: torch.Tensor) -> torch.Tensor:
        """What values of layer ``level - 1`` add to the field of a layer, ``(..., N_l)``."""
        below = self.units(0).statistic(below) if level == 1 else below
        return self._scaled(below @ getattr(self.machine, f"weight{level}"))

    def from_above(self, level: int, above: torch.Tensor) -> torch.Tensor:
        """What values of layer ``level + 1`` add to the field of a layer, ``(..., N_l)``."""
        return self._scaled(above @ getattr(self.machine, f"weight{level + 1}").mT)

    def field(self, level: int, layers: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """What acts on the units of a layer, ``(..., N_l)``.

        Args:
            level: the layer.
            layers: values (or means) of all layers, of which the neighbours are used; what is
                ``None`` adds nothing.
        """
        field = self.bias(level)
        if level and (below := layers[level - 1]) is not None:
            field = field + self.from_below(level, below)
        if level + 1 < self.num_layers and (above := layers[level + 1]) is not None:
            field = field + self.from_above(level, above)
        return field

    def mean_of(self, level: int, layers: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """The means ``(..., N_l)`` of a layer given its neighbours."""
        return self.units(level).mean(self.field(level, layers))

    def draw_of(self, level: int, layers: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """A draw ``(..., N_l)`` of a layer given its neighbours."""
        return self.units(level).sample(self.field(level, layers))

    # ------------------------------------------------ energies

    def summed_energy(self, layers: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """The energy ``(...)`` over the temperature, with the layers that are ``None`` summed out.

        Args:
            layers: ``[(..., V), (..., H1), ..., (..., HL)]``; of two neighbours one must be there.
        """
        energy = self.machine.base_bias.new_zeros(())
        for level, x in enumerate(layers):
            units = self.units(level)
            if x is None:
                field = self.field(level, layers)
                energy = energy - units.log_normalizer(field)
                continue
            field = self.bias(level)
            if level and (below := layers[level - 1]) is not None:
                field = field + self.from_below(level, below)
            energy = energy + units.self_energy(x)
            energy = energy - (units.statistic(x) * field).sum(-1)
        return energy

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        """The energy ``(...)`` over the temperature, of states ``(..., V + H1 + ...)``."""
        return self.summed_energy(self.split(x))

    # ------------------------------------------------ the chain

    def transition(
        self, x: torch.Tensor, num_steps: int = 1, known: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Draw all odd layers given the even ones, then the even ones, so many times."""
        layers = self.split(x)
        masks = None if known is None else self.split(known.expand(x.shape))
        for _ in range(num_steps):
            for first in (1, 0):
                for level in range(first, self.num_layers, 2):
                    drawn = self.draw_of(level, layers)
                    if masks is not None:
                        drawn = torch.where(masks[level], layers[level], drawn)
                    layers[level] = drawn
        return torch.cat(layers, -1)

    @torch.no_grad()
    def start(self, num_chains: int) -> torch.Tensor:
        """Units as their own biases alone would have them."""
        layers = []
        for level in range(self.num_layers):
            field = getattr(self.machine, f"bias{level}") / self.machine.temperature
            layers.append(FreeUnits(self.units(level), field).sample((num_chains,)))
        return torch.cat(layers, -1)

    # ------------------------------------------------ the normalising constant

    def num_states(self) -> float:
        """The states of the odd or of the even layers, whichever are fewer."""
        return Enumeration(self).num_states()

    def exact_log_partition(self) -> torch.Tensor:
        """``log Z`` by enumeration of every other layer."""
        if not self.is_small:
            raise UnknownPartitionError(self._too_large())
        return Enumeration(self).log_sum()

    def exact_sample(self, num_draws: int) -> torch.Tensor:
        """States by enumeration of every other layer."""
        if not self.is_small:
            raise UnknownPartitionError(self._too_large())
        return Enumeration(self).draw(num_draws)

    def bridge(self, beta: torch.Tensor) -> AllLayers:
        """The machine with its couplings times ``beta``, and biases between the base's and its."""
        return AllLayers(self.machine, beta)

    def path_start(self) -> IndependentLayers:
        """Independent units: visible ones with the base's biases, fair coins for hidden ones."""
        base = self.machine.base_bias
        fields = [base, *(base.new_zeros(size) for size in self.sizes[1:])]
        return IndependentLayers([FreeUnits(self.units(i), f) for i, f in enumerate(fields)])


class IndependentLayers:
    """Layers of units that nothing couples, side by side.

    Args:
        layers: the law of each.
    """

    def __init__(self, layers: Sequence[FreeUnits]) -> None:
        self.layers = layers
        self.sizes = [layer.units.num_units for layer in layers]
        self.event_shape, self.batch_shape = torch.Size([sum(self.sizes)]), torch.Size()
        self.support = layers[0].units.support

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> torch.Tensor:
        """Draws ``(*sample_shape, N)``."""
        return torch.cat([layer.sample(sample_shape) for layer in self.layers], -1)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """The log-density ``(...)`` of ``(..., N)``."""
        parts = zip(self.layers, x.split(self.sizes, -1), strict=True)
        return torch.stack([layer.log_prob(part) for layer, part in parts]).sum(0)


class OddLayers(nn.Module):
    r"""The odd layers of a machine, with the even ones (the visible one too) summed out.

    .. math:: p(h_1, h_3, \dots) \propto \sum_{v, h_2, \dots} \exp(-E(v, h_1, h_2, \dots) / T)

    It has the machine's normalising constant, and weights of annealing that vary less.

    Args:
        layers: all of the machine.

    References:
        Deep Boltzmann Machines, Ruslan Salakhutdinov and Geoffrey Hinton, 2009.
    """

    support = constraints.independent(constraints.boolean, 1)

    def __init__(self, layers: AllLayers) -> None:
        super().__init__()
        self.layers = layers
        self.sizes = layers.sizes[1::2]
        self.event_shape = torch.Size([sum(self.sizes)])

    def part(self, state: torch.Tensor) -> torch.Tensor:
        """The odd layers ``(..., N)`` of states of all layers."""
        return torch.cat(self.layers.split(state)[1::2], -1)

    def _split(self, x: torch.Tensor) -> list[torch.Tensor | None]:
        layers: list[torch.Tensor | None] = [None] * self.layers.num_layers
        layers[1::2] = x.split(self.sizes, -1)
        return layers

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        """The free energy ``(...)`` of odd layers ``(..., N)``, over the temperature."""
        return self.layers.summed_energy(self._split(x))

    def transition(self, x: torch.Tensor, num_steps: int = 1) -> torch.Tensor:
        """Draw all even layers given the odd ones, then the odd ones, so many times."""
        layers = self._split(x)
        for _ in range(num_steps):
            for first in (0, 1):
                for level in range(first, self.layers.num_layers, 2):
                    layers[level] = self.layers.draw_of(level, layers)
        return torch.cat([layer for layer in layers[1::2] if layer is not None], -1)

    def bridge(self, beta: torch.Tensor) -> OddLayers:
        """The same of a machine on the way from independent units to this one."""
        return OddLayers(self.layers.bridge(beta))

    def path_start(self) -> FreeUnits:
        """Fair coins."""
        field = self.layers.machine.base_bias.new_zeros(self.event_shape)
        return FreeUnits(BinaryUnits(len(field)), field)
