# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Missing data: the chain's limit is the right conditional, and pseudo-Gibbs is not."""

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_deepgen.latent import VAE, GaussianLikelihood, HierarchicalVAE, vae
from tests.tables import Poisson

SCALE = 0.5
OBSERVED = torch.tensor([True, False, False])
CHAINS, STEPS = 4000, 150


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    return layer


def linear_gaussian() -> tuple[VAE, torch.Tensor, torch.Tensor]:
    """Return a linear pair whose guide is not the posterior, and the mean and covariance of x."""
    decoder = linear([[1.0, 0.5], [-0.8, 1.0], [0.6, 0.9]], [0.3, -0.2, 0.5])
    encoder = linear(
        [[0.5, -0.3, 0.1], [0.1, 0.4, 0.2], [0.0] * 3, [0.0] * 3], [0.2, -0.1, -0.6, -0.5]
    )
    pair = VAE(encoder, decoder, 2, likelihood=GaussianLikelihood("fixed", scale=SCALE))
    w = decoder.weight.detach()
    return pair, decoder.bias.detach(), w @ w.T + SCALE**2 * torch.eye(3)


def hierarchical() -> tuple[HierarchicalVAE, torch.Tensor, torch.Tensor]:
    """Return the same with two layers."""
    w1, w2 = torch.tensor([[1.0], [-0.8], [0.6]]), torch.tensor([[0.7]])
    decoders = [linear(w1.tolist(), [0.3, -0.2, 0.5]), linear([[0.7], [0.0]], [0.1, -0.4])]
    encoders = [
        linear([[0.4, -0.2, 0.1], [0.0] * 3], [0.0, -0.3]),
        linear([[0.4], [0.0]], [0.1, 0.0]),
    ]
    pair = HierarchicalVAE(
        encoders, decoders, (1, 1), likelihood=GaussianLikelihood("fixed", scale=SCALE)
    )
    inner = w2 @ w2.T + torch.tensor([[-0.8]]).exp()
    mean = decoders[0].bias.detach() + (w1 * 0.1).squeeze(-1)
    return pair, mean, w1 @ inner @ w1.T + SCALE**2 * torch.eye(3)


def worst_deviation(made: tuple[Any, torch.Tensor, torch.Tensor]) -> float:
    """Return the largest error of the chains' means and covariances, in standard errors."""
    pair, mean, covariance = made
    x = torch.tensor([1.8, torch.nan, torch.nan])
    gain = covariance[1:, :1] / covariance[0, 0]
    exact_mean = mean[1:] + gain[:, 0] * (x[0] - mean[0])
    exact = covariance[1:, 1:] - gain @ covariance[:1, 1:]
    filled = pair.impute(x.expand(CHAINS, 3), OBSERVED, num_steps=STEPS)
    assert torch.equal(filled[:, 0], x[0].expand(CHAINS))
    missing = filled[:, 1:]
    variances = exact.diagonal()
    mean_error = (missing.mean(0) - exact_mean).abs() / (variances / CHAINS).sqrt()
    # Of normal variables: Var(c_ij) = (C_ii C_jj + C_ij^2) / n.
    error = ((variances.outer(variances) + exact**2) / CHAINS).sqrt()
    covariance_error = (missing.T.cov() - exact).abs() / error
    return max(float(mean_error.max()), float(covariance_error.max()))


@pytest.mark.parametrize("make", [linear_gaussian, hierarchical])
def test_the_limit_is_the_exact_conditional(make: Any, float64: torch.dtype) -> None:
    assert worst_deviation(make()) < 4


@pytest.mark.parametrize("make", [linear_gaussian, hierarchical])
def test_pseudo_gibbs_is_not_exact(
    make: Any, float64: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)  # accepts every proposal
    assert worst_deviation(make()) > 4


def test_an_observed_datum_is_left_alone_and_chains_differ() -> None:
    pair = linear_gaussian()[0]
    x = torch.randn(4, 3)
    assert torch.equal(pair.impute(x, torch.tensor(True)), x)
    before = x.clone()
    filled = pair.impute(x.expand(5, 4, 3), OBSERVED, num_steps=2)
    assert filled.shape == (5, 4, 3)
    assert torch.equal(x, before)
    assert len(filled[:, 0, 1].unique()) == 5
    single = pair.impute(x[0], OBSERVED, num_steps=2)
    assert single.shape == (3,)


def full_covariance(context: torch.Tensor) -> Any:
    return dist.MultivariateNormal(context, torch.eye(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": torch.ones(3)}, r"boolean mask.*float32.*mask.bool\(\)"),
        ({"mask": torch.ones(2, dtype=torch.bool)}, r"broadcasts to the data's shape \(4, 3\)"),
        ({"num_steps": 0}, "num_steps of 1 or more, got 0"),
        ({"x": torch.zeros(4, 2), "mask": torch.tensor(True)}, r"data of shape \(\*batch, 3\)"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    pair = linear_gaussian()[0]
    given = {"x": torch.zeros(4, 3), "mask": OBSERVED, **arguments}
    with pytest.raises(ValueError, match=message):
        pair.impute(given.pop("x"), given.pop("mask"), **given)


def test_a_likelihood_with_dependent_variables_is_refused() -> None:
    pair = VAE(nn.Linear(3, 4), nn.Linear(2, 3), 2, likelihood=full_covariance)
    with pytest.raises(ValueError, match="independent over variables, got MultivariateNormal"):
        pair.impute(torch.zeros(4, 3), OBSERVED)
    # One without is taken, whatever its family.
    pair = VAE(nn.Linear(3, 4), nn.Linear(2, 3), 2, likelihood=Poisson())
    assert pair.impute(torch.zeros(4, 3), OBSERVED, num_steps=2).shape == (4, 3)
    binary = vae(3, 2, (4,))
    filled = binary.impute(torch.zeros(50, 3), OBSERVED, num_steps=2)
    assert set(filled.unique().tolist()) == {0.0, 1.0}
