# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Noise-contrastive estimation: it recovers the normalising constant."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch.nn.functional import softplus

from pyro_deepgen.infer import NoiseContrastiveEstimation

from .small_energies import GaussianEnergy, PairEnergy, gradients, is_mean

N = 4


def coins() -> dist.Distribution:
    return dist.Bernoulli(torch.full((N,), 0.6)).to_event(1)


def expected_loss(
    model: PairEnergy, data: torch.Tensor, c: torch.Tensor, num_noise: int
) -> torch.Tensor:
    """The mean loss of a datum, by enumeration of data and noise."""
    states = model.states()
    noise = coins().log_prob(states)
    odds = -model.energy(states) - c - noise - math.log(num_noise)
    of_noise = num_noise * (noise.exp() * softplus(odds)).sum()
    return (data * softplus(-odds)).sum() + of_noise


@pytest.mark.parametrize("num_noise", [1, 5])
def test_the_loss_and_its_gradient_have_the_enumerated_mean(num_noise: int) -> None:
    model, states = PairEnergy(N), PairEnergy(N).states()
    loss = NoiseContrastiveEstimation(model, coins(), num_noise, log_partition=0.3)
    data = PairEnergy(N).probs().detach()  # of another machine
    exact = expected_loss(model, data, loss.log_partition, num_noise)
    drawn = states[data.multinomial(40_000, replacement=True)].chunk(100)
    assert is_mean(torch.stack([loss(x) / len(x) for x in drawn]), exact)
    slopes = torch.stack([gradients(loss(x) / len(x), loss) for x in drawn])
    assert is_mean(slopes, gradients(exact, loss))
    if num_noise > 1:  # planted: the number of draws is left out of the odds
        wrong = expected_loss(model, data, loss.log_partition - math.log(num_noise), num_noise)
        assert not is_mean(slopes, gradients(wrong, loss))


def test_the_optimum_is_the_truth_with_its_constant() -> None:
    truth = PairEnergy(N)
    c = truth.log_partition().detach()
    parameters = [*truth.parameters(), c.requires_grad_()]
    exact = expected_loss(truth, truth.probs().detach(), c, 3)
    slopes = torch.autograd.grad(exact, parameters)
    assert all(torch.allclose(g, torch.zeros(()), atol=1e-12) for g in slopes)


def test_training_the_constant_alone_finds_log_z() -> None:
    """With the energy fixed the estimates of independent runs are log Z within their spread."""
    truth = PairEnergy(N)
    truth.requires_grad_(False)
    exact, states = truth.log_partition(), truth.states()
    found = []
    for _ in range(10):
        x = states[truth.probs().multinomial(2000, replacement=True)]
        loss = NoiseContrastiveEstimation(truth, coins(), 2)
        optimizer = torch.optim.SGD(loss.parameters(), lr=1.0)
        total = torch.zeros(())
        for step in range(200):
            for group in optimizer.param_groups:
                group["lr"] = 2.0 / (1 + step / 20)
            optimizer.zero_grad()
            (loss(x) / len(x)).backward()
            optimizer.step()
            total = total + loss.log_partition.detach() * (step >= 100)
        found.append(total / 100)
    assert is_mean(torch.stack(found), exact)
    assert torch.stack(found).std() < 0.1


def test_a_learned_gaussian_has_the_constant_of_its_precision() -> None:
    x = 1.5 * torch.randn(4000, 1)
    model = GaussianEnergy(torch.ones(1, 1), torch.zeros(1))
    noise = dist.Normal(torch.zeros(1), 2.0).to_event(1)
    loss = NoiseContrastiveEstimation(model, noise, 5)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for _ in range(300):
        optimizer.zero_grad()
        (loss(x) / len(x)).backward()
        optimizer.step()
        schedule.step()
    precision, shift = model.precision.detach().squeeze(), model.linear.detach().squeeze()
    constant = 0.5 * (math.log(2 * math.pi) - precision.log() + shift.square() / precision)
    # Over 12 seeds the differences have standard deviations of 0.0005 and 0.0007.
    assert (loss.log_partition - constant).abs() < 0.003
    assert (precision - 1 / x.square().mean()).abs() < 0.004


def test_noise_is_left_alone() -> None:
    mean = torch.zeros(2, requires_grad=True)
    loss = NoiseContrastiveEstimation(
        GaussianEnergy(torch.eye(2), torch.zeros(2)), dist.Normal(mean, 1.0).to_event(1)
    )
    assert {name for name, _ in loss.named_parameters()} == {
        "log_partition",
        "model.precision",
        "model.linear",
    }
    loss(torch.randn(5, 2)).backward()
    assert mean.grad is None


def test_errors_say_what_to_do() -> None:
    model = GaussianEnergy(torch.eye(2), torch.zeros(2))
    with pytest.raises(ValueError, match="distribution as noise"):
        NoiseContrastiveEstimation(model, torch.randn)
    with pytest.raises(ValueError, match="1 draw of noise or more"):
        NoiseContrastiveEstimation(model, dist.Normal(0.0, 1.0), 0)
    with pytest.raises(ValueError, match="by to_event"):
        NoiseContrastiveEstimation(model, dist.Normal(torch.zeros(2), 1.0))(torch.randn(5, 2))
    three = dist.Normal(torch.zeros(1), 1.0).to_event(1)
    with pytest.raises(ValueError, match="shape of a datum"):
        NoiseContrastiveEstimation(model, three)(torch.randn(5, 2))
