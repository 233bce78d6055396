# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What only energies by networks can get wrong."""

import copy
from functools import partial
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_deepgen.energy.neural_energy import NeuralEnergy
from pyro_deepgen.energy.replay_buffer import ReplayBuffer
from pyro_deepgen.mcmc import HMC, Langevin
from tests.energy.rows_boltzmann import Wavy, by_network, grid_values, wavy


class Bowl(nn.Module):
    """The energy of a normal law that learns."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.loc, self.log_precision = (
            nn.Parameter(torch.zeros(shape)),
            nn.Parameter(torch.zeros(())),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.log_precision.exp() * (x - self.loc).flatten(1).square().sum(-1)


@pytest.mark.parametrize(
    "kernel",
    [partial(Langevin, step_size=0.2), partial(HMC, num_steps=2, step_size=0.5)],
    ids=["langevin", "hmc"],
)
def test_training_finds_a_normal_law(kernel: Any) -> None:
    data = 1.0 + 0.5 * torch.randn(500, 2)
    phase = ReplayBuffer(200, 4, size=400)
    machine = NeuralEnergy(Bowl(2), 2, kernel=kernel, negative_phase=phase)
    optim = torch.optim.Adam(machine.parameters(), 0.05)
    for i in range(60):
        optim.param_groups[0]["lr"] = 0.12 * (1 - i / 60)
        optim.zero_grad()
        (-machine.log_prob(data).mean()).backward()
        optim.step()
    assert (machine.net.loc - data.mean(0)).abs().max() < 0.15
    # Langevin's own bias, which is stated in its docstring, is 4 % with this step.
    assert (machine.net.log_precision.exp() * data.var() - 1).abs() < 0.35


def test_images_and_a_base_of_bounded_support() -> None:
    base = dist.Uniform(torch.zeros(1, 2, 2), torch.ones(1, 2, 2)).to_event(3)
    machine = NeuralEnergy(Bowl(1, 2, 2), (1, 2, 2), base=base, sampling_steps=5)
    x = machine.sample((7,))
    assert x.shape == (7, 1, 2, 2) and bool(((x > 0) & (x < 1)).all())
    machine.log_prob(x).sum().backward()
    assert machine.net.loc.grad is not None
    assert machine.negative_phase.kept.shape == (10_000, 1, 2, 2)
    with pytest.raises(ValueError, match="support"):
        NeuralEnergy(Bowl(1, 2, 2), (1, 2, 2), base=base, validate_args=True).log_prob(x + 1)


def test_imputation_moves_only_what_is_not_known(float64: torch.dtype) -> None:
    machine = wavy()
    x = torch.tensor([0.5, torch.nan]).expand(3000, 2)
    draws = machine.impute(x, torch.tensor([True, False]), num_steps=40)
    assert bool((draws[:, 0] == 0.5).all())
    grid = grid_values(machine)
    column = grid[grid[:, 0].sub(0.5).abs() < 1e-9]
    probs = by_network(machine, column).softmax(0).detach()
    mean = probs @ column[:, 1]
    assert (draws[:, 1].mean() - mean).abs() < 4 * draws[:, 1].std() / 3000**0.5


def test_the_kernel_is_made_once_and_not_copied() -> None:
    made = []

    def kernel(target: Any, **settings: Any) -> Any:
        made.append(target)
        return HMC(target, num_steps=2, step_size=0.1, **settings)

    machine = NeuralEnergy(Bowl(2), 2, kernel=kernel, negative_phase=ReplayBuffer(5, 2, size=9))
    for _ in range(3):
        machine.log_prob(torch.zeros(4, 2)).sum().backward()
        machine.expand((3,)).transition(torch.zeros(7, 2), 2)
    machine.impute(torch.zeros(4, 2), torch.tensor([True, False]), 2)
    assert len(made) == 1
    other = copy.deepcopy(machine)
    with torch.no_grad():  # each moves by its own energy
        other.net.loc.fill_(1000.0)
        other.net.log_precision.fill_(2.0)
    assert (
        other.transition(torch.zeros(50, 2), 1) - machine.transition(torch.zeros(50, 2), 1)
    ).abs().mean() > 1
    assert len(made) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NeuralEnergy(nn.Linear(2, 3), 2), "energies for values"),
        (lambda: NeuralEnergy(Wavy(), 2, base=dist.Normal(0.0, 1.0)), "real values of shape"),
        (
            lambda: NeuralEnergy(Wavy(), 2, base=dist.Bernoulli(torch.ones(2)).to_event(1)),
            "real values",
        ),
    ],
)
def test_errors_tell_the_way_out(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
