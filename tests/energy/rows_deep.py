# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Rows of deep Boltzmann machines."""

import itertools
import math
from functools import partial
from typing import Any

import torch

from pyro_deepgen.energy.deep_boltzmann_machine import DeepBoltzmannMachine
from pyro_deepgen.energy.mean_field import MeanField
from pyro_deepgen.energy.units import GaussianUnits, Units
from tests.energy.energy_row import EnergyRow


def bits(size: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=size)))


def deep(visible: Any, hidden: tuple[int, ...], **options: Any) -> DeepBoltzmannMachine:
    made = visible if isinstance(visible, int | Units) else visible()
    machine = DeepBoltzmannMachine(made, hidden, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in machine.parameters():
            p.add_(0.7 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return machine


def in_layers(machine: Any, v: torch.Tensor) -> torch.Tensor:
    """Sum over the states of all hidden units one by one."""
    sizes, temperature = machine.sizes, machine.temperature
    biases = [getattr(machine, f"bias{level}") for level in range(len(sizes))]
    if machine.context_dim:
        moved = machine.offsets(machine.context).split(sizes)
        biases = [bias + offset for bias, offset in zip(biases, moved, strict=True)]
    s, own = v, torch.zeros(len(v))
    if isinstance(machine.visible, GaussianUnits):
        variance = machine.visible.log_variance.exp()
        s, own = v / variance, -(v**2 / (2 * variance)).sum(-1)
    scores = []
    for h in bits(sum(sizes[1:])):
        score, below = own + s @ biases[0], s
        for level, layer in enumerate(h.split(sizes[1:]), start=1):
            score = score + layer @ biases[level]
            score = score + below @ getattr(machine, f"weight{level}") @ layer
            below = layer
        scores.append(score / temperature)
    return torch.stack(scores).logsumexp(0)


def mean_field_bound(machine: Any, v: torch.Tensor) -> torch.Tensor:
    """The best bound of `in_layers` by independent hidden units, unit by unit, binary ones."""
    sizes, temperature = machine.sizes, machine.temperature
    weights = [getattr(machine, f"weight{level}") for level in range(1, len(sizes))]
    biases = [getattr(machine, f"bias{level}") for level in range(len(sizes))]
    layers = [v, *(torch.full((len(v), size), 0.5) for size in sizes[1:])]
    for _ in range(200):
        for level in range(1, len(sizes)):
            field = biases[level] + layers[level - 1] @ weights[level - 1]
            if level < len(weights):
                field = field + layers[level + 1] @ weights[level].T
            layers[level] = (field / temperature).sigmoid()
    score = sum(layer @ bias for layer, bias in zip(layers, biases, strict=True))
    for below, weight, above in zip(layers, weights, layers[1:], strict=False):
        score = score + ((below @ weight) * above).sum(-1)
    entropy = [torch.distributions.Bernoulli(layer).entropy().sum(-1) for layer in layers[1:]]
    return score / temperature + sum(entropy)


def binary_values(machine: Any) -> torch.Tensor:
    return bits(machine.event_shape[0])


def grid_values(machine: Any) -> torch.Tensor:
    axis = torch.linspace(-8, 8, 161)
    return torch.cartesian_prod(axis, axis)


# With one hidden layer the mean field is exact, and draws of clamped chains have the gradient of
# the likelihood.
ROWS = [
    EnergyRow(
        "dbm_one_layer", DeepBoltzmannMachine, partial(deep, 3, (3,)), in_layers, binary_values
    ),
    EnergyRow(
        "dbm_mean_field",
        DeepBoltzmannMachine,
        partial(deep, 3, (3, 2), mean_field=MeanField(100), temperature=0.8),
        in_layers,
        binary_values,
        bound=mean_field_bound,
    ),
    EnergyRow(
        "dbm_warm",
        DeepBoltzmannMachine,
        partial(deep, 3, (3, 2), temperature=1.6, clamped_steps=1),
        in_layers,
        binary_values,
    ),
    EnergyRow(
        "dbm_three_layers",
        DeepBoltzmannMachine,
        partial(deep, 4, (2, 3, 2), clamped_steps=1),
        in_layers,
        binary_values,
    ),
    EnergyRow(
        "dbm_gaussian_cold",
        DeepBoltzmannMachine,
        partial(deep, partial(GaussianUnits, 2), (2, 2), temperature=0.7, clamped_steps=1),
        in_layers,
        grid_values,
        2 * math.log(0.1),
    ),
]
