# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Greedy training of deep machines, one layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from .negative_phase import NegativePhase
from .rbm import RBM
from .units import BinaryUnits, Units

if TYPE_CHECKING:
    from .deep_boltzmann_machine import DeepBoltzmannMachine


class NegativeLogProb(nn.Module):
    """Minus the log-density of data, summed: what :func:`~pyro_deepgen.fit.fit` takes as a loss.

    Args:
        distribution: a distribution that is a module.

    Example:
        >>> import torch
        >>> from pyro_deepgen.energy import RBM
        >>> rbm, x = RBM(3, 2).eval(), torch.ones(4, 3)
        >>> bool(torch.isclose(NegativeLogProb(rbm)(x), -4 * rbm.log_prob(torch.ones(3))))
        True
    """

    def __init__(self, distribution: nn.Module) -> None:
        super().__init__()
        self.distribution: Any = distribution

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The loss ``()`` of data ``(B, *event_shape)``."""
        loss: torch.Tensor = -self.distribution.log_prob(x).sum()
        return loss


class Stage(NamedTuple):
    """One part of a training in parts.

    Args:
        name: what is trained.
        loss: a module whose ``loss(batch)`` is a scalar summed over the batch.
        transform: from data ``(B, *event_shape)`` to what the loss takes.
    """

    name: str
    loss: nn.Module
    transform: Callable[[torch.Tensor], torch.Tensor]


class Copies(Units):
    """Some units several times side by side, which share the parameters of the units.

    Args:
        units: the units.
        num_copies: how many times.

    Example:
        >>> import torch
        >>> copies = Copies(BinaryUnits(3), 2)
        >>> copies.mean(torch.zeros(6)).tolist()
        [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    """

    def __init__(self, units: Units, num_copies: int) -> None:
        super().__init__(units.num_units * num_copies)
        self.units, self.num_copies = units, num_copies
        self.support = units.support

    def _apart(self, x: torch.Tensor) -> torch.Tensor:
        apart: torch.Tensor = x.unflatten(-1, (self.num_copies, self.units.num_units))
        return apart

    def statistic(self, x: torch.Tensor) -> torch.Tensor:
        """That of each copy."""
        return self.units.statistic(self._apart(x)).flatten(-2)

    def self_energy(self, x: torch.Tensor) -> torch.Tensor:
        """The sum over the copies."""
        return self.units.self_energy(self._apart(x)).sum(-1)

    def log_normalizer(self, field: torch.Tensor) -> torch.Tensor:
        """The sum over the copies."""
        return self.units.log_normalizer(self._apart(field)).sum(-1)

    def mean(self, field: torch.Tensor) -> torch.Tensor:
        """That of each copy."""
        return self.units.mean(self._apart(field)).flatten(-2)

    def sample(self, field: torch.Tensor) -> torch.Tensor:
        """A draw of each copy."""
        return self.units.sample(self._apart(field)).flatten(-2)


class _Tiled(nn.Module):
    """A small tensor, repeated to the size of a large one."""

    def __init__(self, *counts: int) -> None:
        super().__init__()
        self.counts = counts

    def forward(self, small: torch.Tensor) -> torch.Tensor:
        return small.repeat(self.counts)

    def right_inverse(self, large: torch.Tensor) -> torch.Tensor:
        for dim, count in enumerate(self.counts):
            large = large.narrow(dim, 0, large.shape[dim] // count)
        return large.clone()


def tied_rbm(
    visible: Units,
    weight: torch.Tensor,
    visible_bias: torch.Tensor,
    hidden_bias: torch.Tensor,
    up: int,
    down: int,
    negative_phase: NegativePhase,
) -> RBM:
    r"""An RBM of several copies of the visible and the hidden units, with the same weights.

    .. math:: P(h_j = 1 | v, \dots, v) = \sigma(u\, (s(v)^T W)_j + c_j)

    Args:
        visible: the units of one copy, ``V``.
        weight: where its weights start, ``(V, H)``.
        visible_bias: where its visible biases start, ``(V,)``.
        hidden_bias: where its hidden biases start, ``(H,)``.
        up: copies ``u`` of the visible units, hence what multiplies fields on the way up.
        down: copies of the hidden units.
        negative_phase: of the machine.

    Returns:
        A machine of ``u * V`` visible units, which shares the parameters of ``visible``.
    """
    size = weight.shape[-1] * down
    rbm = RBM(Copies(visible, up), size, negative_phase=negative_phase)
    rbm = rbm.to(weight.device, weight.dtype)
    start = {
        "weight": (weight, (up, down)),
        "visible_bias": (visible_bias, (up,)),
        "hidden_bias": (hidden_bias, (down,)),
    }
    for name, (value, counts) in start.items():
        parametrize.register_parametrization(rbm, name, _Tiled(*counts))
        setattr(rbm, name, value.detach().repeat(counts))
    return rbm


def of_one_copy(rbm: RBM) -> list[torch.Tensor]:
    """Weights ``(V, H)``, visible and hidden biases of one copy of a tied machine."""
    tied: Any = rbm.parametrizations
    return [tied[name].original for name in ("weight", "visible_bias", "hidden_bias")]


def pretrained_layers(
    machine: DeepBoltzmannMachine, negative_phase: Callable[[], NegativePhase]
) -> Iterator[Stage]:
    r"""Pretrain a deep Boltzmann machine layer by layer, each as an RBM of its own.

    In the whole machine a layer between two others gets fields from both sides. An RBM sees one
    side alone, which therefore counts twice: the first has two copies of the visible units, the
    last two copies of its hidden ones, those between two of both. The whole takes the weights of
    one copy, and for the bias of a layer that two RBMs share the mean of both.

    Each stage takes what it has learned to the machine when the next is asked for, so run through
    all of them::

        for stage in machine.stages():
            fit(stage.loss, data, transform=stage.transform, num_epochs=10)

    Args:
        machine: the machine.
        negative_phase: makes the negative phase of each stage.

    References:
        Deep Boltzmann Machines, Ruslan Salakhutdinov and Geoffrey Hinton, 2009.
        An Efficient Learning Procedure for Deep Boltzmann Machines, Ruslan Salakhutdinov and
        Geoffrey Hinton, 2012.
    """
    top = len(machine.sizes) - 1
    below: list[tuple[RBM, int]] = []
    for level in range(1, top + 1):
        up, down = (1 if level == top else 2), (1 if level == 1 else 2)
        units = machine.visible if level == 1 else BinaryUnits(machine.sizes[level - 1])
        weight, bias, hidden_bias = (
            getattr(machine, name)
            for name in (f"weight{level}", f"bias{level - 1}", f"bias{level}")
        )
        rbm = tied_rbm(units, weight, bias, hidden_bias, up, down, negative_phase())
        yield Stage(f"layer {level}", NegativeLogProb(rbm), _Upwards(below.copy(), up))
        with torch.no_grad():
            one_weight, one_bias, one_hidden_bias = of_one_copy(rbm)
            weight.copy_(one_weight)
            # Two machines have an opinion about a layer between them.
            bias.copy_(one_bias if level == 1 else (bias + one_bias) / 2)
            hidden_bias.copy_(one_hidden_bias)
        below.append((rbm, up))


class _Upwards:
    """Data as the next machine gets them: drawn hidden units of those below, and copies."""

    def __init__(self, below: list[tuple[RBM, int]], num_copies: int) -> None:
        self.below, self.num_copies = below, num_copies

    @torch.no_grad()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        for rbm, copies in self.below:
            drawn = rbm.sample_hidden(torch.cat([x] * copies, -1))
            x = drawn[..., : of_one_copy(rbm)[2].shape[-1]]
        return torch.cat([x] * self.num_copies, -1)
