# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Rows of machines with one or two layers, and of energies by networks."""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from pyro_deepgen.energy.boltzmann_machine import BoltzmannMachine
from pyro_deepgen.energy.neural_energy import NeuralEnergy
from pyro_deepgen.energy.rbm import RBM
from pyro_deepgen.energy.rectified_units import RectifiedUnits
from pyro_deepgen.energy.units import BinaryUnits, GaussianUnits, SoftmaxUnits
from tests.energy.energy_row import EnergyRow


def bits(size: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=size)))


def binary_values(machine: Any) -> torch.Tensor:
    return bits(machine.event_shape[0])


def stirred(machine: Any, scale: float = 0.6) -> Any:
    """Move all parameters away from their first values, the same way each time."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in machine.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return machine


def with_context(machine: Any, first: torch.Tensor, second: torch.Tensor) -> Any:
    """Both biases, with what the context adds."""
    if not machine.context_dim:
        return first, second
    moved = machine.bias(machine.context)
    return first + moved[: len(first)], second + moved[len(first) :]


# ---------------------------------------------------------------- restricted machines

# What hidden or visible units add up from: pairs of a value and its log weight, at temperature T.
Terms = Callable[[float], list[tuple[torch.Tensor, float]]]


def binary_terms(size: int, temperature: float) -> list[tuple[torch.Tensor, float]]:
    return [(state, 0.0) for state in bits(size)]


def rectified_terms(
    size: int, num_copies: int, temperature: float
) -> list[tuple[torch.Tensor, float]]:
    """All states of all copies, of which copy i has the bias 1/2 - i."""
    bias = 0.5 - torch.arange(1, num_copies + 1)
    copies = bits(size * num_copies).reshape(-1, size, num_copies)
    return [(c.sum(-1), float((c * bias).sum() / temperature)) for c in copies]


def restricted(hidden: Terms, machine: Any, v: torch.Tensor) -> torch.Tensor:
    """Sum over the states of the hidden units one by one; a Gaussian layer as an integral."""
    temperature = machine.temperature
    b, c = with_context(machine, machine.visible_bias, machine.hidden_bias)
    s, own = v, torch.zeros(len(v))
    if isinstance(machine.visible, GaussianUnits):
        variance = machine.visible.log_variance.exp()
        s, own = v / variance, -(v**2 / (2 * variance)).sum(-1)
    if isinstance(machine.visible, RectifiedUnits):
        terms = rectified_terms(v.shape[1], machine.visible.num_copies, temperature)
        weights = [[w for state, w in terms if torch.equal(state, x)] for x in v]
        own = torch.tensor([torch.tensor(w).logsumexp(0) for w in weights]) * temperature
    scores = [
        (own + s @ b + (s @ machine.weight + c) @ h) / temperature + log_weight
        for h, log_weight in hidden(temperature)
    ]
    return torch.stack(scores).logsumexp(0)


def gaussian_terms(temperature: float) -> list[tuple[torch.Tensor, float]]:
    """A grid for one unit of variance 1."""
    grid = torch.linspace(-12, 12, 2401)
    weights = -(grid**2) / (2 * temperature) + math.log(0.01)
    return [(h.reshape(1), float(w)) for h, w in zip(grid, weights, strict=True)]


def rbm(visible: Any, hidden: Any, **options: Any) -> RBM:
    made = [units() if callable(units) else units for units in (visible, hidden)]
    return stirred(RBM(*made, **options))


def grid_values(machine: Any) -> torch.Tensor:
    axis = torch.linspace(-8, 8, 161)
    return torch.cartesian_prod(axis, axis)


def one_hots(machine: Any) -> torch.Tensor:
    eye = torch.eye(3)
    return torch.stack([torch.cat([a, b]) for a, b in itertools.product(eye, eye)])


def counts(machine: Any) -> torch.Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0, 2.0], repeat=2)))


# ---------------------------------------------------------------- general machines


def ring(size: int) -> torch.Tensor:
    return (torch.eye(size).roll(1, 0) + torch.eye(size).roll(-1, 0)) > 0


def boltzmann(*sizes: int, **options: Any) -> BoltzmannMachine:
    return stirred(BoltzmannMachine(*sizes, **options))


def connected(machine: Any, v: torch.Tensor) -> torch.Tensor:
    """Loops over pairs, and over the hidden units' states."""
    bias, none = with_context(machine, machine.unit_bias, machine.unit_bias[:0])
    scores = []
    for h in bits(machine.num_hidden) if machine.num_hidden else [none]:
        x = torch.cat([v, h.expand(len(v), -1)], -1)
        score = x @ bias
        for i, j in itertools.combinations(range(x.shape[1]), 2):
            score = score + x[:, i] * x[:, j] * machine.weight[i, j] * machine.pairs[i, j]
        scores.append(score / machine.temperature)
    return torch.stack(scores).logsumexp(0)


# ---------------------------------------------------------------- networks


class Wavy(nn.Module):
    """A bowl with waves, that a context may shift."""

    def __init__(self, context_dim: int = 0) -> None:
        super().__init__()
        self.stiffness, self.shift = nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(2))
        self.of_context = nn.Linear(context_dim, 2) if context_dim else None

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        if self.of_context is not None:
            x = x - self.of_context(context)
        x = x - self.shift
        return (self.stiffness.exp() * x**2 / 4 + (2 * x).sin() / 2).sum(-1)


def wavy(context_dim: int = 0, **options: Any) -> NeuralEnergy:
    net = stirred(Wavy(context_dim), 0.3)
    return NeuralEnergy(net, 2, context_dim=context_dim, **options)


def by_network(machine: Any, x: torch.Tensor) -> torch.Tensor:
    context = () if machine.context is None else (machine.context.expand(len(x), -1),)
    score = -machine.net(x, *context) / machine.temperature
    if machine.tilted:
        score = score - 0.5 * (x**2).sum(-1) - math.log(2 * math.pi)
    return score


CELL = 2 * math.log(0.1)

ROWS = [
    EnergyRow(
        "rbm_few_hidden",
        RBM,
        partial(rbm, 4, 3),
        partial(restricted, partial(binary_terms, 3)),
        binary_values,
    ),
    EnergyRow(
        "rbm_few_visible_warm",
        RBM,
        partial(rbm, 3, 4, temperature=1.7),
        partial(restricted, partial(binary_terms, 4)),
        binary_values,
    ),
    EnergyRow(
        "gaussian_rbm_cold",
        RBM,
        partial(rbm, partial(GaussianUnits, 2), 2, temperature=0.7),
        partial(restricted, partial(binary_terms, 2)),
        grid_values,
        CELL,
    ),
    EnergyRow(
        "multinomial_rbm",
        RBM,
        partial(rbm, partial(SoftmaxUnits, 2, 3), 3),
        partial(restricted, partial(binary_terms, 3)),
        one_hots,
    ),
    EnergyRow(
        "rbm_rectified_hidden_warm",
        RBM,
        partial(rbm, 3, partial(RectifiedUnits, 2, 3), temperature=1.3),
        partial(restricted, partial(rectified_terms, 2, 3)),
        binary_values,
    ),
    EnergyRow(
        "rbm_rectified_visible_warm",
        RBM,
        partial(rbm, partial(RectifiedUnits, 2, 2), 2, temperature=1.3),
        partial(restricted, partial(binary_terms, 2)),
        counts,
    ),
    EnergyRow(
        "rbm_gaussian_hidden_warm",
        RBM,
        partial(rbm, partial(BinaryUnits, 3), partial(GaussianUnits, 1, False), temperature=1.4),
        partial(restricted, gaussian_terms),
        binary_values,
    ),
    EnergyRow("boltzmann", BoltzmannMachine, partial(boltzmann, 4), connected, binary_values),
    EnergyRow(
        "boltzmann_hidden_warm",
        BoltzmannMachine,
        partial(boltzmann, 3, 2, temperature=1.5),
        connected,
        binary_values,
    ),
    EnergyRow(
        "boltzmann_ring",
        BoltzmannMachine,
        partial(boltzmann, 4, 2, couplings=ring(6)),
        connected,
        binary_values,
    ),
    EnergyRow("neural", NeuralEnergy, wavy, by_network, grid_values, CELL, 40),
    EnergyRow(
        "neural_tilted_warm",
        NeuralEnergy,
        partial(wavy, tilted=True, temperature=2.0),
        by_network,
        grid_values,
        CELL,
        40,
    ),
]
