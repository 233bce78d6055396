# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Values of the objectives against the closed forms of linear-Gaussian models."""

import warnings
from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal, init_to_value

from pyro_deepgen.infer import ImportanceWeightedELBO, MeanFieldELBO, Objective
from tests.infer.toys import GaussianGuide, LinearGaussian, deviation, losses

EVERY = [
    ImportanceWeightedELBO(1),
    ImportanceWeightedELBO(5, "iwae"),
    ImportanceWeightedELBO(5, "stl"),
    ImportanceWeightedELBO(5, "dreg"),
    ImportanceWeightedELBO(5, "vimco"),
    MeanFieldELBO(1, "stl"),
    MeanFieldELBO(3, "stl"),
]


def name_of(objective: Objective) -> str:
    return f"{type(objective).__name__}-{objective.num_particles}-{objective.gradient}"


@pytest.mark.parametrize("objective", EVERY, ids=name_of)
def test_every_draw_gives_the_evidence_under_the_posterior(objective: Objective) -> None:
    model, x = LinearGaussian(), torch.randn(7, 4)
    guide = GaussianGuide.exact(model)
    evidence = model.evidence(x)
    for _ in range(3):
        loss = objective.differentiable_loss(model, guide, x)
        assert abs(float(loss.detach()) + float(evidence.sum())) < 1e-9
        assert abs(float(objective.loss(model, guide, x)) - float(loss.detach())) < 1e-9
    if isinstance(objective, ImportanceWeightedELBO):
        weights = objective.log_weights(model, guide, x)
        assert weights.shape == (objective.num_particles, 7)
        assert torch.allclose(weights, evidence.expand_as(weights), atol=1e-10)


@pytest.mark.parametrize("full", [True, False])
def test_the_bound_rises_from_the_elbo_to_the_evidence(full: bool) -> None:
    model = LinearGaussian()
    guide = GaussianGuide.off(model, full)
    x = torch.randn(4).expand(500, 4)
    evidence, elbo = model.evidence(x[0]), model.elbo(x[:1], *guide.moments(x[:1]))
    means = []
    with torch.no_grad():
        for num in (1, 10, 100, 5000):
            bound = ImportanceWeightedELBO(num).log_weights(model, guide, x).logsumexp(0) - log(num)
            means.append(float(bound.mean()))
            if num == 1:
                assert deviation(bound, elbo) < 4
                assert deviation(bound, evidence) > 8
            if num == 5000:
                assert deviation(bound, evidence) < 4
                assert deviation(bound + log(num) - log(num - 100), evidence) > 4  # wrong count
    assert means == sorted(means)
    assert means[-1] - means[0] > 0.1


@pytest.mark.parametrize("num_particles", [1, 4])
def test_the_divergence_is_a_closed_form(num_particles: int) -> None:
    model, x = LinearGaussian(), torch.randn(6, 4)
    guide = GaussianGuide.off(model, full=False)
    exact = -model.elbo(x, *guide.moments(x)).sum()
    closed = MeanFieldELBO(num_particles)
    found = losses(closed, model, guide, x, num=400)
    assert deviation(found, exact) < 4
    assert deviation(found, exact + 4.0) > 4  # the test can tell
    # Where the data say nothing about the latents only the divergence is left: no variance at all.
    with torch.no_grad():
        model.weight.zero_()
    draws = losses(closed, model, guide, x, num=5)
    assert float(draws.std()) < 1e-12
    assert abs(float(draws[0]) + float(model.elbo(x, *guide.moments(x)).sum())) < 1e-9
    assert float(losses(ImportanceWeightedELBO(1), model, guide, x, num=5).std()) > 0.01


def test_draws_are_used_where_there_is_no_closed_form() -> None:
    model, x = LinearGaussian(), torch.randn(6, 4)
    guide = GaussianGuide.off(model, full=True)  # no divergence of a full from an independent one
    exact = -model.elbo(x, *guide.moments(x)).sum()
    assert deviation(losses(MeanFieldELBO(2), model, guide, x, num=400), exact) < 4


NUM = 500


def top_down() -> None:
    with pyro.plate("data", NUM):
        z2 = pyro.sample("z2", dist.Normal(torch.zeros(()), 1.0))
        z1 = pyro.sample("z1", dist.Normal(1.5 * z2, 0.5))
        pyro.sample("x", dist.Normal(z1, 1.0), obs=torch.full((NUM,), 0.8))


def bottom_up() -> None:
    with pyro.plate("data", NUM):
        z1 = pyro.sample("z1", dist.Normal(torch.tensor(0.4), 0.6))
        pyro.sample("z2", dist.Normal(0.9 * z1, 0.3))


def top_down_elbo() -> float:
    """The exact bound of one datum, from the guide's first two moments."""

    def expected(mean: float, variance: float, scale: float) -> float:
        """``E log N(u; 0, scale)`` for a ``u`` of this mean and variance."""
        return float(dist.Normal(0.0, scale).log_prob(torch.tensor(mean))) - variance / (
            2 * scale**2
        )

    m1, v1, m2 = 0.4, 0.36, 0.36
    v2 = 0.81 * v1 + 0.09
    # z1 - 1.5 z2 = (1 - 1.35) z1 - 1.5 * noise
    v_gap = (1 - 1.35) ** 2 * v1 + 2.25 * 0.09
    log_p = expected(m2, v2, 1.0) + expected(m1 - 1.5 * m2, v_gap, 0.5) + expected(0.8 - m1, v1, 1)
    entropy = sum(float(dist.Normal(0.0, s).entropy()) for s in (0.6, 0.3))
    return log_p + entropy


def test_no_closed_form_where_the_prior_depends_on_a_later_draw() -> None:
    exact = -NUM * top_down_elbo()
    for gradient in ("closed_form", "stl"):
        found = losses(MeanFieldELBO(1, gradient), top_down, bottom_up, num=300)
        assert deviation(found, exact) < 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pyro warns, and goes on
        assert deviation(losses(TraceMeanField_ELBO(), top_down, bottom_up, num=300), exact) > 10


def test_the_first_site_of_such_a_guide_keeps_its_closed_form() -> None:
    def model() -> None:
        pyro.sample("z2", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("z1", dist.Normal(torch.zeros(()), 1.0))

    def guide() -> None:
        pyro.sample("z1", dist.Normal(torch.ones(()), 1.0))
        pyro.sample("z2", dist.Normal(torch.ones(()), 1.0))

    draws = losses(MeanFieldELBO(), model, guide, num=200)
    # z2 first in the model: closed, 1/2 exactly. z1 after it there, before it here: from draws.
    assert deviation(draws, 1.0) < 4
    assert abs(float(draws.std()) - 1.0) < 0.25  # of z1's log-ratio alone; both would give 1.41


def test_the_jacobian_of_an_autoguide_is_kept() -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Gamma(torch.tensor(3.0), 2.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=torch.tensor(1.2))

    start = init_to_value(values={"z": torch.tensor(2.5)})
    guide = AutoNormal(model, init_scale=0.4, init_loc_fn=start)
    guide()
    found = losses(MeanFieldELBO(50), model, guide, num=200)
    exact = losses(Trace_ELBO(50, vectorize_particles=True), model, guide, num=200)
    assert deviation(found - exact, 0.0) < 4
    without = losses(TraceMeanField_ELBO(50, vectorize_particles=True), model, guide, num=200)
    assert deviation(without - exact, 0.0) > 4


def test_masks_and_scales_of_the_closed_form() -> None:
    mask = torch.tensor([True, False, True])

    def model(scale: float, masked: bool | torch.Tensor | None) -> None:
        with pyro.plate("data", 3), poutine.scale(scale=scale), poutine.mask(mask=masked):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    def guide(scale: float, masked: bool | torch.Tensor | None) -> None:
        with pyro.plate("data", 3), poutine.scale(scale=scale), poutine.mask(mask=masked):
            pyro.sample("z", dist.Normal(torch.tensor([1.0, 2.0, 3.0]), 1.0))

    for num in (1, 4):
        for masked, exact in ((mask, 5.0), (False, 0.0), (True, 7.0)):
            loss = MeanFieldELBO(num).loss(model, guide, 2.0, masked)
            assert abs(float(loss) - 2 * exact) < 1e-12, (num, masked)
