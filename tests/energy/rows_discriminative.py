# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Rows of machines over data and their class."""

import itertools
from typing import Any

import torch

from pyro_deepgen.energy.discriminative_rbm import DiscriminativeRBM
from tests.energy.energy_row import EnergyRow

V, H, K = 3, 4, 3


def make(**settings: Any) -> DiscriminativeRBM:
    made = DiscriminativeRBM(V, H, K, temperature=1.3, **settings)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.7 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return made


def values(machine: Any) -> torch.Tensor:
    data = itertools.product([0.0, 1.0], repeat=V)
    return torch.tensor(
        [[*x, *label] for x, label in itertools.product(data, torch.eye(K).tolist())]
    )


def reference(machine: Any, value: torch.Tensor) -> torch.Tensor:
    """The sum over all hidden states of the exponential of minus the joint energy."""
    b, c = machine.visible_bias, machine.hidden_bias
    if machine.context_dim:
        moved = machine.bias(machine.context)
        b, c = b + moved[: V + K], c + moved[V + K :]
    terms = []
    for state in itertools.product([0.0, 1.0], repeat=H):
        h = torch.tensor(state)
        pairs = value[:, :V] @ machine.weight[:V] @ h + value[:, V:] @ machine.weight[V:] @ h
        terms.append((value @ b + h @ c + pairs) / machine.temperature)
    return torch.stack(terms).logsumexp(0)


ROWS = [EnergyRow("discriminative_rbm", DiscriminativeRBM, make, reference, values)]
