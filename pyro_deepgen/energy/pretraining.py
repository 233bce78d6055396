# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Greedy training of deep machines, one layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from torch.nn.utils import parametrize

from .negative_phase import NegativePhase


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

    Example:
        >>> import torch
        >>> from pyro_deepgen.energy import DeepBoltzmannMachine
        >>> machine = DeepBoltzmannMachine(4, (3, 2))
        >>> for stage in machine.stages():  # the first layer's machine has two copies of the data
        ...     print(stage.name, tuple(stage.transform(torch.ones(5, 4)).shape))
        layer 1 (5, 8)
        layer 2 (5, 3)
    """

    name: str
    loss: nn.Module
    transform: Callable[[torch.Tensor], torch.Tensor]


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


def tie(rbm: nn.Module, **values: tuple[torch.Tensor, tuple[int, ...]]) -> None:
    """Make parameters of a machine so many copies of smaller ones, in each dimension.

    Args:
        rbm: the machine.
        values: for each parameter, where the smaller one starts, and the numbers of copies.
    """
    for name, (value, counts) in values.items():
        parametrize.register_parametrization(rbm, name, _Tiled(*counts))
        setattr(rbm, name, value.detach().repeat(counts))


def of_one_copy(rbm: nn.Module) -> list[torch.Tensor]:
    """Weights, visible and hidden biases of one copy of a tied machine."""
    tied: Any = rbm.parametrizations
    return [tied[name].original for name in ("weight", "visible_bias", "hidden_bias")]


class TiedStage:
    r"""A layer and the one below it as a machine of their own, of copies with the same weights.

    .. math:: P(h_j = 1 | v, \dots, v) = \sigma(u\, (s(v)^T W)_j + c_j)

    Args:
        rbm: the machine, tied.
        weight: of the whole machine, between the layers.
        below: the whole machine's biases of the layer below.
        above: those of the layer.
        first: whether the layer below is the visible one.
        num_copies: copies ``u`` of the layer below, hence what multiplies fields on the way up.
        dim: along which dimension copies lie.
        pool: what the next stage sees of the layer; its units by default.
        shift: by how much a bias of the layer below is larger here.
    """

    def __init__(
        self,
        rbm: Any,
        weight: torch.Tensor,
        below: torch.Tensor,
        above: torch.Tensor,
        *,
        first: bool,
        num_copies: int,
        dim: int = -1,
        pool: Callable[[torch.Tensor], torch.Tensor] | None = None,
        shift: float = 0.0,
    ) -> None:
        self.rbm, self.weight, self.below, self.above = rbm, weight, below, above
        self.first, self.num_copies, self.dim = first, num_copies, dim
        self.pool, self.shift = pool, shift

    def copied(self, x: torch.Tensor) -> torch.Tensor:
        """The layer below as the machine takes it."""
        return torch.cat([x] * self.num_copies, self.dim)

    @torch.no_grad()
    def draw(self, x: torch.Tensor) -> torch.Tensor:
        """One copy of the layer, drawn given the layer below, as the next stage sees it."""
        drawn = self.rbm.sample_hidden(self.copied(x))
        drawn = drawn if self.pool is None else self.pool(drawn)
        return drawn.narrow(self.dim, 0, len(self.above))

    @torch.no_grad()
    def take(self) -> None:
        """Give the whole machine what this one has learned."""
        weight, below, above = of_one_copy(self.rbm)
        self.weight.copy_(weight)
        below = below - self.shift
        # Two machines have an opinion about a layer between them.
        self.below.copy_(below if self.first else (self.below + below) / 2)
        self.above.copy_(above)


def pretrained_layers(
    machine: _Staged, negative_phase: Callable[[], NegativePhase]
) -> Iterator[Stage]:
    r"""Pretrain a deep Boltzmann machine layer by layer, each as an RBM of its own.

    In the whole machine a layer between two others gets fields from both sides. An RBM sees one
    side alone, which therefore counts twice: the first has two copies of the visible units, the
    last two copies of its hidden ones, those between two of both. The whole takes the weights of
    one copy, and for the bias of a layer that two RBMs share the mean of both. What a context adds
    to biases is not pretrained.

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
    top = machine.num_layers - 1
    below: list[TiedStage] = []
    for level in range(1, top + 1):
        up, down = (1 if level == top else 2), (1 if level == 1 else 2)
        stage = machine.stage(level, up, down, negative_phase())
        yield Stage(f"layer {level}", NegativeLogProb(stage.rbm), _Upwards(below.copy(), stage))
        stage.take()
        below.append(stage)


class _Staged(Protocol):
    """A machine that makes its stages."""

    @property
    def num_layers(self) -> int: ...

    def stage(self, level: int, up: int, down: int, negative_phase: NegativePhase) -> TiedStage: ...


class _Upwards:
    """Data as the next machine gets them: drawn hidden units of those below, and copies."""

    def __init__(self, below: list[TiedStage], stage: TiedStage) -> None:
        self.below, self.stage = below, stage

    @torch.no_grad()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        for stage in self.below:
            x = stage.draw(x)
        return self.stage.copied(x)
