# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""One directed layer of a deep belief net, with its recognition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from .negative_phase import NegativePhase
from .pretraining import NegativeLogProb, Stage
from .rbm import RBM
from .units import BinaryUnits, Units


class DeepBeliefLayer(nn.Module):
    r"""A layer of units given the layer above, and the other way round.

    .. math:: p(x | h) = \exp(\eta^T s(x) - e(x) - A(\eta)),\ \eta = h^T G + b, \qquad
        q(h_j = 1 | x) = \sigma((s(x)^T R + c)_j)

    At a temperature, :math:`\eta`, :math:`e` and the argument of :math:`\sigma` are divided by it.

    Args:
        units: the units of the layer, ``N``.
        num_above: binary units of the layer above, ``M``.
        weight_scale: standard deviation of the first weights.
        temperature: ``T``.
    """

    def __init__(
        self, units: Units, num_above: int, weight_scale: float, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.units, self.above = units.at(temperature), BinaryUnits(num_above)
        self.temperature = temperature
        weight = weight_scale * torch.randn(units.num_units, num_above)
        self.recognition_weight = nn.Parameter(weight)
        self.recognition_bias = nn.Parameter(torch.zeros(num_above))
        # Contiguous, as Pyro's store keeps another tensor of a parameter that is not.
        self.generative_weight = nn.Parameter(
            weight.mT.clone(memory_format=torch.contiguous_format)
        )
        self.generative_bias = nn.Parameter(torch.zeros(units.num_units))

    def field_below(self, h: torch.Tensor) -> torch.Tensor:
        """What acts on the units given those above, from ``(..., M)`` to ``(..., N)``."""
        return (h @ self.generative_weight + self.generative_bias) / self.temperature

    def field_above(self, x: torch.Tensor) -> torch.Tensor:
        """What acts on the units above in recognition, from ``(..., N)`` to ``(..., M)``."""
        return self._recognized(self.units.statistic(x))

    def _recognized(self, statistic: torch.Tensor) -> torch.Tensor:
        field = statistic @ self.recognition_weight + self.recognition_bias
        return field / self.temperature

    def draw_below(self, h: torch.Tensor) -> torch.Tensor:
        """Draw ``(..., N)`` from the model."""
        return self.units.sample(self.field_below(h))

    def draw_above(self, x: torch.Tensor) -> torch.Tensor:
        """Draw ``(..., M)`` from the recognition."""
        return self.above.sample(self.field_above(x))

    def log_below(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """``log p(x | h)``, ``(...)``."""
        return _log_prob(self.units, x, self.field_below(h))

    def log_above(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """``log q(h | x)``, ``(...)``; without gradients for what the units share with the model.

        The variances of Gaussian units are learned by the model alone.
        """
        return _log_prob(self.above, h, self._recognized(self.units.statistic(x).detach()))

    def machine(self, negative_phase: NegativePhase, below: RBM | None) -> RBM:
        """An RBM of the two layers with the present generative weights.

        Args:
            negative_phase: of the machine.
            below: the machine of the layers below, which decides how this one starts.
        """
        rbm = RBM(
            self.units, self.above, negative_phase=negative_phase, temperature=self.temperature
        )
        rbm = rbm.to(self.generative_weight.device, self.generative_weight.dtype)
        with torch.no_grad():
            rbm.weight.copy_(self.generative_weight.mT)
            rbm.visible_bias.copy_(self.generative_bias)
            rbm.hidden_bias.copy_(self.recognition_bias)
        if below is not None:
            turn_upside_down(below, rbm)
        return rbm

    @torch.no_grad()
    def take(self, rbm: RBM) -> None:
        """Set both directions to the conditionals of a machine."""
        self.recognition_weight.copy_(rbm.weight)
        self.recognition_bias.copy_(rbm.hidden_bias)
        self.generative_weight.copy_(rbm.weight.mT)
        self.generative_bias.copy_(rbm.visible_bias)


@torch.no_grad()
def turn_upside_down(below: RBM, above: RBM) -> None:
    """Start a machine as another whose hidden units are its visible ones, where sizes allow it."""
    above.visible_bias.copy_(below.hidden_bias)
    fits = below.visible.num_units == above.hidden.num_units
    if fits and isinstance(below.visible, BinaryUnits):
        above.weight.copy_(below.weight.mT)
        above.hidden_bias.copy_(below.visible_bias)


def _log_prob(units: Units, x: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
    own = (units.statistic(x) * field).sum(-1) - units.self_energy(x)
    return own - units.log_normalizer(field)


def greedy_stages(
    layers: Sequence[DeepBeliefLayer], top: RBM, negative_phase: Callable[[], NegativePhase]
) -> Iterator[Stage]:
    """The stages of a deep belief net; see ``DeepBeliefNet.stages``.

    Args:
        layers: its directed layers, upwards.
        top: its top.
        negative_phase: makes the negative phase of the stages below the top.
    """
    rbm = None
    for level, layer in enumerate(layers):
        rbm = layer.machine(negative_phase(), rbm)
        yield Stage(f"layer {level + 1}", NegativeLogProb(rbm), _Recognized(layers[:level]))
        layer.take(rbm)
    assert rbm is not None
    turn_upside_down(rbm, top)
    yield Stage("top", NegativeLogProb(_without_context(top)), _Recognized(layers))


def _without_context(machine: RBM) -> RBM:
    """A view of a machine, with its parameters, that a context adds nothing to."""
    if not machine.context_dim:
        return machine
    view = machine.expand(machine.batch_shape)
    view.__dict__["context_dim"] = 0
    modules = {name: module for name, module in machine._modules.items() if name != "bias"}
    view.__dict__["_modules"] = modules
    return view


class _Recognized:
    """Data as a stage gets them: draws of the layers below it."""

    def __init__(self, layers: Sequence[DeepBeliefLayer]) -> None:
        self.layers = layers

    @torch.no_grad()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer.draw_above(x)
        return x
