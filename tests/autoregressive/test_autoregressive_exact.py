# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Probabilities against enumeration, integration, and a normal distribution in closed form."""

from itertools import product
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from scipy.stats import chi2

from pyro_deepgen.autoregressive import GaussianOutput, LinearAutoregressive
from tests.autoregressive.models import ALL, BINARY, REAL, TERNARY, changed, several, shuffled

pytestmark = pytest.mark.usefixtures("float64")

FAILURE_RATE = 1e-6


def total(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(model.log_prob(model.enumerate_support()).exp().sum(0))


@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("name", BINARY)
def test_all_binary_configurations_sum_to_one(name: str, context_dim: int) -> None:
    model = changed(BINARY[name](12, order=shuffled(12), context_dim=context_dim))
    if context_dim:
        model = model.condition(torch.randn(2, context_dim))
    assert model.enumerate_support().shape[0] == 2**12
    torch.testing.assert_close(total(model), torch.ones(model.batch_shape), atol=1e-8, rtol=0)


@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("name", TERNARY)
def test_all_ternary_configurations_sum_to_one(name: str, context_dim: int) -> None:
    model = changed(TERNARY[name](7, order=shuffled(7), context_dim=context_dim))
    if context_dim:
        model = model.condition(torch.randn(2, context_dim))
    assert model.enumerate_support().shape[0] == 3**7
    torch.testing.assert_close(total(model), torch.ones(model.batch_shape), atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", several(6))
def test_means_over_orders_sum_to_one(name: str) -> None:
    model = several(6)[name]()
    assert model.num_orders > 1
    assert abs(float(total(model)) - 1) < 1e-8
    values = model.enumerate_support()[::7]
    each = torch.stack([model.score(values, None, m) for m in range(model.num_orders)])
    assert bool((each.std(0) > 1e-3).any()), "the orders differ"
    torch.testing.assert_close(model.log_prob(values).exp(), each.exp().mean(0))


def test_an_output_that_sees_its_own_variable_does_not_sum_to_one() -> None:
    model = changed(BINARY["made"](8))
    network = model.networks[0]
    network.layers[-1].set_degrees((network.degrees()[1] - 1).tolist(), list(range(8)))
    assert abs(float(total(model)) - 1) > 1e-3


# ---------------------------------------------------------------- draws

DISCRETE = {**BINARY, **TERNARY}


def p_value(model: Any, draws: torch.Tensor) -> float:
    """Return the p-value of Pearson's test against the enumerated probabilities."""
    support = model.enumerate_support()
    num = model.output.num_values
    powers = num ** torch.arange(support.shape[-1])
    probs = model.log_prob(support).exp().detach()
    observed = torch.bincount((draws.long() * powers).sum(-1), minlength=len(support)).double()
    expected = probs * len(draws)
    small = expected < 10
    e = torch.cat([expected[~small], expected[small].sum().reshape(1)])
    o = torch.cat([observed[~small], observed[small].sum().reshape(1)])
    if e[-1] < 10:
        e, o = e[:-1], o[:-1]
    return float(chi2.sf(float(((o - e) ** 2 / e).sum()), len(e) - 1))


@pytest.mark.parametrize("name", DISCRETE)
def test_draws_have_the_enumerated_probabilities(name: str) -> None:
    model = changed(DISCRETE[name](5, order=shuffled(5)))
    draws = model.sample((20_000,))
    assert p_value(model, draws) > FAILURE_RATE
    # A sampler that takes one variable for another is noticed.
    assert p_value(model, draws.roll(1, -1)) < FAILURE_RATE


@pytest.mark.parametrize("name", several(5))
def test_draws_of_a_mean_over_orders(name: str) -> None:
    model = several(5)[name]()
    assert p_value(model, model.sample((20_000,))) > FAILURE_RATE


# ---------------------------------------------------------------- real variables


@pytest.mark.parametrize("name", REAL)
def test_densities_integrate_to_one(name: str) -> None:
    model = changed(REAL[name](2, order=[1, 0], context_dim=2), 0.4)
    model = model.condition(torch.tensor([0.5, -1.0]))
    steps = torch.linspace(-40, 40, 1201)
    with torch.no_grad():
        p = model.log_prob(torch.cartesian_prod(steps, steps)).exp()
    assert abs(float(p.sum()) / 15**2 - 1) < 1e-3  # Laplace has kinks


@pytest.mark.parametrize("name", REAL)
def test_real_draws_have_the_moments_of_the_density(name: str) -> None:
    model = changed(REAL[name](2, order=[1, 0]), 0.4)
    steps = torch.linspace(-30, 30, 901)
    grid = torch.cartesian_prod(steps, steps)
    with torch.no_grad():
        mass = model.log_prob(grid).exp() / 15**2
    draws = model.sample((40_000,))
    for function in (lambda x: x, lambda x: x.prod(-1, keepdim=True), torch.sin, torch.abs):
        value = function(draws)
        error = value.mean(0) - (mass.unsqueeze(-1) * function(grid)).sum(0)
        assert bool((error.abs() < 4.5 * value.std(0) / 200).all())


def test_the_linear_gaussian_model_is_any_normal_distribution() -> None:
    # Set the parameters from a covariance matrix: p(x) must be that normal distribution.
    order, root = [2, 0, 3, 1], torch.randn(4, 4)
    cov, mean = root @ root.mT + 0.3 * torch.eye(4), torch.randn(4)
    model = LinearAutoregressive(4, GaussianOutput(), order=order)
    layer = model.networks[0].layers[0]  # type: ignore[union-attr]
    with torch.no_grad():
        for place, d in enumerate(order):
            before = order[:place]
            known, cross = cov[before][:, before], cov[before, d]
            weights = torch.linalg.solve(known, cross) if before else cross
            layer.weight[d, before] = weights
            layer.bias[d] = mean[d] - weights @ mean[before]
            model.log_scale[d] = 0.5 * (cov[d, d] - weights @ cross).log()  # type: ignore[index]
    normal = dist.MultivariateNormal(mean, cov)
    x = torch.randn(50, 4)
    torch.testing.assert_close(model.log_prob(x), normal.log_prob(x))
    torch.testing.assert_close(model.mean, mean)
    torch.testing.assert_close(model.covariance_matrix, cov)
    torch.testing.assert_close(model.variance, cov.diagonal())


def test_moments_of_the_linear_gaussian_model_given_contexts() -> None:
    model = changed(LinearAutoregressive(3, GaussianOutput(), order=[1, 2, 0], context_dim=2))
    given = model.condition(torch.randn(5, 2))
    x = torch.randn(7, 5, 3)
    normal = dist.MultivariateNormal(given.mean, given.covariance_matrix)
    torch.testing.assert_close(given.log_prob(x), normal.log_prob(x))
    with pytest.raises(NotImplementedError, match="GaussianOutput only"):
        _ = LinearAutoregressive(3).mean


# ---------------------------------------------------------------- contexts


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("name", ALL)
def test_contexts_of_any_batch_shape(name: str, batch: tuple[int, ...]) -> None:
    model = changed(ALL[name](4, order=shuffled(4), context_dim=2), 0.3)
    contexts = torch.randn(*batch, 2)
    given = model.condition(contexts)
    assert given.batch_shape == batch
    draws = given.sample((6,))
    assert draws.shape == (6, *batch, 4)
    scores = given.log_prob(draws)
    assert scores.shape == (6, *batch)
    for at in product(*map(range, batch)):
        alone = model.condition(contexts[at]).log_prob(draws[(slice(None), *at)])
        torch.testing.assert_close(scores[(slice(None), *at)], alone)
    other = model.condition(contexts + 1).log_prob(draws)
    assert not torch.allclose(scores, other), "the context matters"
    wide = given.expand((4, *batch)) if batch else given
    torch.testing.assert_close(wide.log_prob(draws[0]).reshape(-1, *batch)[0], scores[0])
