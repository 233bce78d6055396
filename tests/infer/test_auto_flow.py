# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A flow as the posterior of a model: exact answers, supports, objectives, factories, errors."""

from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import transforms as T
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch import nn

from pyro_deepgen.infer import AutoFlow, ImportanceWeightedELBO
from pyro_deepgen.transforms import CholeskyAffine, cholesky_affine, planar
from tests.infer.auto_flows import affine_and_planar, data, evidence, posterior, regression, train


def test_a_correlated_posterior_is_reached() -> None:
    """Its bound is the evidence, and each draw's weight as well."""
    x = data()
    guide = AutoFlow(regression, cholesky_affine)
    optim = pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.01 ** (1 / 400)})
    elbo = Trace_ELBO(num_particles=8, vectorize_particles=True)
    svi = SVI(regression, guide, optim, elbo)
    train(lambda: svi.step(x), 400)
    weights = []
    for _ in range(200):
        trace = poutine.trace(guide).get_trace(x)
        model = poutine.trace(poutine.replay(regression, trace=trace)).get_trace(x)
        weights.append(float((model.log_prob_sum() - trace.log_prob_sum()).detach()))
    spread = torch.tensor(weights)
    assert abs(float(spread.mean() - evidence(x))) < 0.005 + 4 * float(spread.std()) / 200**0.5
    assert spread.std() < 0.1
    draws = guide.get_posterior(x).sample((20_000,))
    known = posterior(x)
    torch.testing.assert_close(draws.mean(0), known.mean, atol=0.03, rtol=0)
    torch.testing.assert_close(draws.T.cov(), known.covariance_matrix, atol=0.03, rtol=0)


def shapes(x: torch.Tensor) -> None:
    """Latents of all kinds of supports and shapes."""
    pyro.sample("rate", dist.Gamma(torch.full((2,), 3.0), 1.0).to_event(1))
    pyro.sample("part", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("data", 3):
        z = pyro.sample("z", dist.Uniform(torch.tensor(0.0), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_latents_of_all_kinds() -> None:
    x = data()
    guide = AutoFlow(shapes, affine_and_planar)
    drawn = guide(x)
    assert guide.latent_dim == 7
    support = {"rate": (2,), "part": (3,), "z": (3,)}
    assert {name: tuple(value.shape) for name, value in drawn.items()} == support
    assert (drawn["rate"] > 0).all()
    torch.testing.assert_close(drawn["part"].sum(), torch.tensor(1.0))
    elbo = Trace_ELBO(num_particles=5, vectorize_particles=True)(shapes, guide)
    assert elbo(x).isfinite()
    parallel = Predictive(shapes, guide=guide, num_samples=10, parallel=True)
    assert parallel(x)["z"].shape == (10, 3)

    median = guide.median(x)
    quantiles = guide.quantiles([0.1, 0.5, 0.9], x)
    for name, shape in support.items():
        assert tuple(median[name].shape) == shape
        assert tuple(quantiles[name].shape) == (3, *shape)
        assert (quantiles[name].diff(dim=0) > 0).all()


def test_quantiles_are_those_of_the_posterior() -> None:
    x, num = data(), 20_000
    guide = AutoFlow(regression, cholesky_affine, init_scale=0.7, num_draws=num)
    guide(x)
    (loc, scale) = guide.flow.transform.parts[1].parameters()  # type: ignore[attr-defined]
    with torch.no_grad():
        loc.copy_(torch.tensor([1.0, -2.0]))
    for q in (0.1, 0.5, 0.8):
        known = dist.Normal(loc, scale.exp())
        expected = known.icdf(torch.tensor(q))
        error = (q * (1 - q) / num) ** 0.5 / known.log_prob(expected).exp()
        found = guide.quantiles([q], x)
        values = torch.stack([found["first"][0], found["second"][0]])
        assert ((values - expected).abs() < 5 * error).all()


@pytest.mark.parametrize("gradient", ["iwae", "stl", "dreg"])
def test_importance_weighted_gradients(gradient: Any) -> None:
    """Sticking the landing: no noise at the posterior. The others: the same bound."""
    x = data()
    guide = AutoFlow(regression, cholesky_affine)
    guide(x)
    known = posterior(x)
    affine, scale = guide.flow.transform.parts  # type: ignore[attr-defined]
    exact = CholeskyAffine(2, scale_tril=known.scale_tril)
    affine.load_state_dict(exact.state_dict())
    with torch.no_grad():
        scale.loc.copy_(known.mean)
        scale.log_scale.zero_()
    objective = ImportanceWeightedELBO(4, gradient, per_datum=False)
    loss = objective.differentiable_loss(regression, guide, x)
    torch.testing.assert_close(loss, -evidence(x))
    grads = torch.autograd.grad(loss, list(guide.flow.parameters()))
    largest = max(float(grad.abs().max()) for grad in grads)
    assert largest > 1e-3 if gradient == "iwae" else largest < 1e-10


def test_unbiased_gradients_agree() -> None:
    """Sticking the landing is the planted bug: biased with several particles."""
    x, num = data(), 200
    guide = AutoFlow(regression, affine_and_planar, init_scale=0.5)
    guide(x)
    parameters = list(guide.flow.parameters())
    means = {}
    for gradient in ("iwae", "dreg", "stl"):
        objective = ImportanceWeightedELBO(16, gradient, per_datum=False)  # type: ignore[arg-type]
        rows = []
        for _ in range(num):
            loss = objective.differentiable_loss(regression, guide, x)
            rows.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)]))
        stacked = torch.stack(rows)
        means[gradient] = (stacked.mean(0), stacked.std(0) / num**0.5)
    expected, error = means["iwae"]

    def off(gradient: str) -> float:
        ours, other = means[gradient]
        return float(((ours - expected).abs() / (error**2 + other**2).sqrt()).max())

    assert off("dreg") < 5
    assert off("stl") > 5


def test_factories_of_pyro() -> None:
    for factory in (
        partial(T.iterated, 2, T.affine_autoregressive),
        T.spline,
        lambda size: [planar(size), T.Permute(torch.arange(size).flip(0))],
        lambda size: T.affine_autoregressive(size).inv,
    ):
        guide = AutoFlow(regression, factory)
        guide(data())
        noise = guide.get_base_dist().sample((4,))
        transform = guide.get_transform()
        latent = transform(noise)
        log_det = transform.log_abs_det_jacobian(noise, latent)
        expected = guide.get_base_dist().log_prob(noise) - log_det
        torch.testing.assert_close(guide.get_posterior().log_prob(latent), expected)


def test_single_precision_and_the_parameters_dtype() -> None:
    x = data().float()
    guide = AutoFlow(regression, affine_and_planar)
    assert guide(x)["first"].dtype == torch.float32
    assert {p.dtype for p in guide.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoFlow(regression, planar, init_scale=0.0), "a positive init_scale, got 0.0"),
        (lambda: AutoFlow(regression, planar, num_draws=0), "at least one draw"),
        (
            lambda: AutoFlow(regression, planar, context=nn.Identity()),
            "context_dim above 0, since the guide has a context, got 0",
        ),
        (
            lambda: AutoFlow(regression, partial(planar, context_dim=3)),
            "context_dim 0, since the guide has no context, got 3",
        ),
        (lambda: AutoFlow(regression, lambda size: planar(size + 1)), r"\(3,\), got"),
        (lambda: AutoFlow(regression, lambda size: None), "bijective transform, got NoneType"),
    ],
)
def test_errors_say_what_to_do(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()(data())
