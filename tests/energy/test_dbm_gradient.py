# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The gradient of a deep Boltzmann machine is that of its mean-field bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from pyro_deepgen.energy.deep_boltzmann_machine import DeepBoltzmannMachine
from pyro_deepgen.energy.mean_field import MeanField
from pyro_deepgen.energy.negative_phase import (
    ContrastiveDivergence,
    NegativePhase,
    PersistentChains,
)
from tests.energy.rows_deep import bits

pytestmark = pytest.mark.usefixtures("float64")


class ExactDraws(NegativePhase):
    """Independent draws of the machine."""

    def forward(self, machine: Any, value: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return machine.exact_sample(2000)


def flat(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([g.reshape(-1) for g in gradients])


def parts_of_gradient() -> tuple[DeepBoltzmannMachine, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A machine, data, and the exact gradients of the mean-field bound and of the likelihood."""
    machine = DeepBoltzmannMachine(
        4, (3, 2), negative_phase=ExactDraws(), mean_field=MeanField(400)
    )
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.copy_(torch.randn_like(parameter))
    x = bits(4)[[1, 3, 3, 6, 15]]
    parameters = list(machine.parameters())
    # The gradient through all steps of the iteration, with nothing held fixed.
    through = machine.variational_energy(x, machine.infer(x))
    bound = -(through + machine.exact_log_partition()).sum()
    of_bound = flat(torch.autograd.grad(bound, parameters))
    index = (x @ torch.tensor([8.0, 4.0, 2.0, 1.0])).long()
    scores = -machine.all_units.energy(bits(sum(machine.sizes)))
    log_density = scores.reshape(16, -1).logsumexp(-1) - scores.logsumexp(0)
    of_likelihood = flat(torch.autograd.grad(log_density[index].sum(), parameters))
    return machine, x, of_bound, of_likelihood


def estimates(machine: DeepBoltzmannMachine, x: torch.Tensor, number: int) -> torch.Tensor:
    parameters = list(machine.parameters())
    return torch.stack(
        [flat(torch.autograd.grad(machine.log_prob(x).sum(), parameters)) for _ in range(number)]
    )


def test_gradient_is_that_of_the_mean_field_bound_and_not_of_the_likelihood() -> None:
    machine, x, of_bound, of_likelihood = parts_of_gradient()
    found = estimates(machine, x, 60)
    error = found.std(0) / math.sqrt(len(found))
    assert bool(((found.mean(0) - of_bound).abs() < 4 * error + 1e-9).all())
    # What separates the two gradients is far more than the error.
    assert bool(((found.mean(0) - of_likelihood).abs() > 8 * error).any())


# The norm of the difference of the two gradients, relative to that of the likelihood's, and by how
# much the bound is below the log-density of a datum, for parameters of these standard deviations.
DIFFERENCES = {0.25: (0.037, 0.006), 0.5: (0.061, 0.023), 1.0: (0.077, 0.071), 2.0: (0.090, 0.126)}


@pytest.mark.parametrize("scale", DIFFERENCES)
def test_the_two_gradients_differ_by_some_percent(scale: float) -> None:
    generator = torch.Generator().manual_seed(3)
    machine = DeepBoltzmannMachine(4, (3, 2), mean_field=MeanField(1000))
    with torch.no_grad():
        for p in machine.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator))
    x, parameters = bits(4)[[1, 3, 3, 6, 15]], list(machine.parameters())
    log_z = machine.exact_log_partition()
    bound, exact = -machine.variational_energy(x) - log_z, -machine.energy(x) - log_z
    of_bound, of_likelihood = (
        flat(torch.autograd.grad(score.sum(), parameters, retain_graph=True))
        for score in (bound, exact)
    )
    relative = float((of_bound - of_likelihood).norm() / of_likelihood.norm())
    gap = float((exact - bound).detach().mean())
    print(f"scale {scale}: gradients differ by {relative:.3f}, the bound by {gap:.3f} nats")
    assert (relative, gap) == pytest.approx(DIFFERENCES[scale], abs=6e-4)


def test_the_gradient_test_sees_a_wrong_negative_phase() -> None:
    machine, x, of_bound, _ = parts_of_gradient()
    machine.negative_phase = ContrastiveDivergence(1)
    found = estimates(machine, x.repeat(200, 1), 30) / 200
    error = found.std(0) / math.sqrt(len(found))
    assert bool(((found.mean(0) - of_bound).abs() > 4 * error + 1e-9).any())


def test_persistent_chains_have_the_gradient_in_the_long_run() -> None:
    machine, x, of_bound, _ = parts_of_gradient()
    machine.negative_phase = PersistentChains(1000, num_steps=12)
    machine.ready()
    estimates(machine, x, 5)
    found = estimates(machine, x, 40)
    error = found.std(0) / math.sqrt(len(found))
    assert bool(((found.mean(0) - of_bound).abs() < 4 * error + 1e-9).all())
