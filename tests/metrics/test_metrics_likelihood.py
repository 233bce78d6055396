# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Log-likelihoods against the closed-form evidence of a linear-Gaussian VAE."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_deepgen.latent import (
    VAE,
    GaussianLikelihood,
    conditional_vae,
    hierarchical_vae,
    semi_supervised_vae,
    vae,
)
from pyro_deepgen.metrics import active_units, log_likelihood, naive_log_likelihood

NOISE = 0.5


def linear_gaussian(off: float, device: torch.device) -> tuple[VAE, torch.Tensor, torch.Tensor]:
    """A VAE with linear networks, ten data, and their evidence; the guide misses by ``off``."""
    weight = torch.tensor([[1.0, 0.0], [-0.5, 0.0], [0.8, 0.0], [0.0, 1.5]], device=device)
    covariance = torch.linalg.inv(torch.eye(2, device=device) + weight.T @ weight / NOISE**2)
    encoder, decoder = nn.Linear(4, 4, device=device), nn.Linear(2, 4, device=device)
    with torch.no_grad():
        decoder.weight.copy_(weight)
        decoder.bias.zero_()
        encoder.weight[:2] = covariance @ weight.T / NOISE**2
        encoder.weight[2:] = 0
        encoder.bias[:2] = off
        encoder.bias[2:] = (covariance.diagonal().sqrt() * (1 + off)).log()
    pair = VAE(encoder, decoder, 2, likelihood=GaussianLikelihood(scale=NOISE)).to(device)
    x = torch.randn(10, 4, device=device)
    noise = NOISE**2 * torch.eye(4, device=device)
    evidence = dist.MultivariateNormal(torch.zeros(4, device=device), weight @ weight.T + noise)
    return pair, x, evidence.log_prob(x)


def test_with_the_posterior_as_guide_one_particle_is_exact(
    float64: torch.dtype, device: torch.device
) -> None:
    pair, x, evidence = linear_gaussian(0.0, device)
    found = log_likelihood(pair.model, pair.guide, x, num_particles=1)
    torch.testing.assert_close(found, evidence)


@pytest.mark.parametrize("max_rows", [100_000, 3000, 700])
def test_many_particles_meet_the_evidence(
    max_rows: int, float64: torch.dtype, device: torch.device
) -> None:
    """The estimate, over repetitions, is within 4 standard errors; chunks make no difference."""
    pair, x, evidence = linear_gaussian(0.4, device)
    draws = torch.stack(
        [
            log_likelihood(pair.model, pair.guide, x, num_particles=2000, max_rows=max_rows)
            for _ in range(20)
        ]
    ).mean(1)
    # At 2,000 particles the bias, half the variance of the estimate, is far below its error.
    assert (draws.mean() - evidence.mean()).abs() < 4 * draws.std() / len(draws) ** 0.5
    few = torch.stack(
        [log_likelihood(pair.model, pair.guide, x, num_particles=2) for _ in range(20)]
    ).mean(1)
    assert (few.mean() - evidence.mean()) < -4 * few.std() / len(few) ** 0.5


def test_particles_that_do_not_divide_into_rows_all_count(
    float64: torch.dtype, device: torch.device
) -> None:
    """7 particles in chunks of 3, 3 and 1: with equal weights, a wrong count shifts the answer."""
    pair, x, evidence = linear_gaussian(0.0, device)
    found = log_likelihood(pair.model, pair.guide, x, num_particles=7, max_rows=3)
    torch.testing.assert_close(found, evidence)


def test_the_prior_as_importance_distribution_needs_many_more_draws(
    float64: torch.dtype, device: torch.device
) -> None:
    """In two latent dimensions it still works; with few draws it falls below."""
    pair, x, evidence = linear_gaussian(0.0, device)
    many = torch.stack(
        [naive_log_likelihood(pair.model, x, num_particles=20_000) for _ in range(10)]
    ).mean(1)
    assert (many.mean() - evidence.mean()).abs() < 0.05
    few = torch.stack(
        [naive_log_likelihood(pair.model, x, num_particles=10) for _ in range(20)]
    ).mean(1)
    assert few.mean() - evidence.mean() < -4 * few.std() / len(few) ** 0.5


@pytest.mark.parametrize(
    "make",
    [
        lambda: (conditional_vae(3, 2, 2, (4,)), (torch.ones(6, 3), torch.ones(6, 2))),
        lambda: (hierarchical_vae(3, (2, 2), ((4,), (4,))), (torch.ones(6, 3),)),
        lambda: (semi_supervised_vae(3, 2, 2, (4,)), (torch.ones(6, 3), -torch.ones(6).long())),
    ],
    ids=["conditional", "hierarchical", "semi-supervised"],
)
def test_every_kind_of_pair_has_a_likelihood(make) -> None:
    pair, args = make()
    assert log_likelihood(pair.model, pair.guide, *args, num_particles=20).shape == (6,)
    assert naive_log_likelihood(pair.model, *args, num_particles=20).shape == (6,)


def test_modes_gradients_and_parameters_are_left_alone() -> None:
    pair = vae(3, 2, (4,))
    pair.encoder.eval()
    x = torch.ones(6, 3)
    result = log_likelihood(pair.model, pair.guide, x, num_particles=5)
    assert not result.requires_grad
    assert pair.training
    assert not pair.encoder.training
    assert pair.decoder.training


def test_disagreeing_tensors_are_refused() -> None:
    pair = conditional_vae(3, 2, 2, (4,))
    with pytest.raises(ValueError, match="one common number of data"):
        log_likelihood(pair.model, pair.guide, torch.ones(6, 3), torch.ones(5, 2))
    with pytest.raises(ValueError, match="one common number of data"):
        log_likelihood(pair.model, pair.guide)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_particles": 0}, "num_particles to be an integer of at least 1, got 0"),
        ({"num_particles": 1.5}, "num_particles to be an integer of at least 1, got 1.5"),
        ({"num_particles": True}, "num_particles"),
        ({"max_rows": 0}, "max_rows to be an integer of at least 1, got 0"),
    ],
)
def test_numbers_that_count_nothing_are_refused(settings, words: str) -> None:
    pair = vae(3, 2, (4,))
    for call in (
        lambda: log_likelihood(pair.model, pair.guide, torch.ones(6, 3), **settings),
        lambda: naive_log_likelihood(pair.model, torch.ones(6, 3), **settings),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_no_data_are_refused() -> None:
    pair = vae(3, 2, (4,))
    with pytest.raises(ValueError, match="at least 1 datum, got 0"):
        log_likelihood(pair.model, pair.guide, torch.ones(0, 3))


def test_a_pair_in_the_place_of_its_programs_is_refused() -> None:
    pair, x = vae(3, 2, (4,)), torch.ones(6, 3)
    for call in (log_likelihood, naive_log_likelihood):
        with pytest.raises(ValueError, match=r"expected a model, got the pair VAE; .*pair\.model"):
            call(pair, x)
    with pytest.raises(ValueError, match="expected a guide that can be called, got Tensor"):
        log_likelihood(pair.model, x)
    with pytest.raises(ValueError, match=r"expected a guide, got the pair VAE"):
        active_units(pair, x)


def test_a_model_with_another_plate_is_refused() -> None:
    def model(x: torch.Tensor) -> None:
        with pyro.plate("rows", x.shape[0], dim=-2), pyro.plate("columns", x.shape[1], dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: torch.Tensor) -> None:
        with pyro.plate("rows", x.shape[0], dim=-2), pyro.plate("columns", x.shape[1], dim=-1):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="one bound for each datum"):
        log_likelihood(model, guide, torch.ones(4, 3), num_particles=5)
