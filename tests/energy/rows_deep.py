# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Rows of deep Boltzmann machines."""

import itertools
import math
from functools import partial
from typing import Any

import torch

from pyro_deepgen.energy.deep_boltzmann_machine import DeepBoltzmannMachine
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


def binary_values(machine: Any) -> torch.Tensor:
    return bits(machine.event_shape[0])


def grid_values(machine: Any) -> torch.Tensor:
    axis = torch.linspace(-8, 8, 161)
    return torch.cartesian_prod(axis, axis)


# Of the shared tests one looks for the gradient of the likelihood: mean field has it with one
# hidden layer, and the draws of clamped chains always.
ROWS = [
    EnergyRow(
        "dbm_one_layer", DeepBoltzmannMachine, partial(deep, 3, (3,)), in_layers, binary_values
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
