# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Expected gradients of the reparametrised estimators against quadrature."""

from collections.abc import Callable
from math import log
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger

from pyro_deepgen.infer import ImportanceWeightedELBO, MeanFieldELBO, importance_weighted
from pyro_deepgen.infer.stop_parameters import StopParameters
from pyro_deepgen.infer.traces import log_prob, run_guide, run_model
from tests.infer.toys import (
    GaussianGuide,
    LinearGaussian,
    deviation,
    per_copy_gradients,
    quadrature,
)

Parameters = dict[str, torch.Tensor]

# The toy: z ~ N(0, 1), x | z ~ N(theta z, 1), q(z | x) = N(mu x, sigma). Everything, the datum
# too, has a gradient.
POINT = {"theta": 1.0, "mu": 0.2, "sigma": 0.8, "x": 1.5}


def model(p: Parameters) -> None:
    with pyro.plate("data", len(p["x"])):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(p["theta"] * z, 1.0), obs=p["x"])


def guide(p: Parameters) -> None:
    with pyro.plate("data", len(p["x"])):
        pyro.sample("z", dist.Normal(p["mu"] * p["x"], p["sigma"]))


def bound(p: Parameters, noise: torch.Tensor) -> torch.Tensor:
    q = dist.Normal(p["mu"] * p["x"], p["sigma"])
    z = q.loc + q.scale * noise
    log_p = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(p["theta"] * z, 1.0).log_prob(p["x"])
    return (log_p - q.log_prob(z)).logsumexp(0) - log(len(noise))


# A chain: z2 depends on z1 in the guide, z1 on z2 in the model.
CHAIN_POINT = {"a": 0.8, "m": 0.3, "s": 0.9, "c": 0.7, "t": 0.8}


def chain_model(p: Parameters) -> None:
    with pyro.plate("data", len(p["a"])):
        z2 = pyro.sample("z2", dist.Normal(torch.zeros(()), 1.0))
        z1 = pyro.sample("z1", dist.Normal(p["a"] * z2, 1.0))
        pyro.sample("x", dist.Normal(z1, 1.0), obs=torch.full((len(p["a"]),), 1.5))


def chain_guide(p: Parameters) -> None:
    with pyro.plate("data", len(p["a"])):
        z1 = pyro.sample("z1", dist.Normal(p["m"], p["s"]))
        pyro.sample("z2", dist.Normal(p["c"] * z1, p["t"]))


def chain_bound(p: Parameters, noise: torch.Tensor) -> torch.Tensor:
    first, second = noise.reshape(2, -1, noise.shape[-1])
    q1 = dist.Normal(p["m"], p["s"])
    z1 = q1.loc + q1.scale * first
    q2 = dist.Normal(p["c"] * z1, p["t"])
    z2 = q2.loc + q2.scale * second
    log_p = (
        dist.Normal(0.0, 1.0).log_prob(z2)
        + dist.Normal(p["a"] * z2, 1.0).log_prob(z1)
        + dist.Normal(z1, 1.0).log_prob(torch.tensor(1.5))
    )
    return (log_p - q1.log_prob(z1) - q2.log_prob(z2)).logsumexp(0) - log(len(first))


def distances(objective: Any, exact: dict[str, float], num: int = 40_000) -> dict[str, float]:
    found = per_copy_gradients(objective, model, guide, POINT, num)
    return {name: deviation(found[name], exact[name]) for name in POINT}


@pytest.fixture(scope="module")
def exact() -> dict[int, dict[str, float]]:
    """Gradients of the toy's bound with 1, 2 and 5 particles."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    found = {
        1: quadrature(bound, POINT, 1, 20),
        2: quadrature(bound, POINT, 2, 40),
        5: quadrature(bound, POINT, 5, 14),
    }
    coarse = quadrature(bound, POINT, 5, 12)
    torch.set_default_dtype(dtype)
    assert all(abs(found[5][n] - coarse[n]) < 1e-5 for n in POINT)
    return found


@pytest.mark.parametrize("num_particles", [1, 2, 5])
@pytest.mark.parametrize("gradient", ["iwae", "dreg"])
def test_expected_gradients_are_those_of_the_bound(
    gradient: str, num_particles: int, exact: dict[int, dict[str, float]]
) -> None:
    objective = ImportanceWeightedELBO(num_particles, gradient)
    found = distances(objective, exact[num_particles])
    assert max(found.values()) < 4, found
    other = exact[5 if num_particles == 1 else 1]  # the test can tell one bound from another
    assert max(distances(objective, other).values()) > 10


@pytest.mark.parametrize("gradient", ["stl", "closed_form"])
def test_the_mean_field_gradients_are_those_of_the_elbo(
    gradient: str, exact: dict[int, dict[str, float]]
) -> None:
    assert max(distances(MeanFieldELBO(1, gradient), exact[1]).values()) < 4
    # The sum over two particles, halved, is the same bound: twice the number of draws a copy.
    assert max(distances(MeanFieldELBO(2, gradient), exact[1]).values()) < 4


def test_stl_is_unbiased_for_one_particle_and_biased_for_five(
    exact: dict[int, dict[str, float]],
) -> None:
    assert max(distances(ImportanceWeightedELBO(1, "stl"), exact[1]).values()) < 4
    found = distances(ImportanceWeightedELBO(5, "stl"), exact[5])
    assert found["mu"] > 10 and found["x"] > 10, found
    assert found["theta"] < 4  # the model's gradient is the same for all estimators


def test_the_size_of_the_bias() -> None:
    # z ~ N(0, 1), x | z ~ N(z, 1) at x = 1, q(z | x) = N(mu, 1) at mu = 0, five particles:
    # the gradient for mu is .111 by the unbiased estimators and .557 by "stl".
    point = {"theta": 1.0, "mu": 0.0, "sigma": 1.0, "x": 1.0}
    reference = quadrature(bound, point, 5, 14)["mu"]
    found = {
        name: per_copy_gradients(ImportanceWeightedELBO(5, name), model, guide, point, 100_000)
        for name in ("iwae", "dreg", "stl")
    }
    print({n: f"{float(g['mu'].mean()):.4f}" for n, g in found.items()}, f"exact {reference:.4f}")
    assert deviation(found["iwae"]["mu"], reference) < 4
    assert deviation(found["dreg"]["mu"], reference) < 4
    assert deviation(found["stl"]["mu"], reference) > 10
    assert float(found["stl"]["mu"].mean()) > 4 * reference


@pytest.mark.parametrize(
    "objective", [ImportanceWeightedELBO(2, "iwae"), ImportanceWeightedELBO(2, "dreg")]
)
def test_latents_that_depend_on_latents(objective: ImportanceWeightedELBO) -> None:
    reference = quadrature(chain_bound, CHAIN_POINT, 4, 20)
    found = per_copy_gradients(objective, chain_model, chain_guide, CHAIN_POINT, 40_000)
    assert all(deviation(found[n], reference[n]) < 4 for n in CHAIN_POINT)


@pytest.mark.parametrize("objective", [ImportanceWeightedELBO(1, "stl"), MeanFieldELBO(1, "stl")])
def test_latents_that_depend_on_latents_with_stl(objective: Any) -> None:
    reference = quadrature(chain_bound, CHAIN_POINT, 2, 40)
    found = per_copy_gradients(objective, chain_model, chain_guide, CHAIN_POINT, 40_000)
    assert all(deviation(found[n], reference[n]) < 4 for n in CHAIN_POINT)


def hooks_along_the_chain(
    model: Any, guide: Any, args: Any, kwargs: Any, hook: Callable[[torch.Tensor, int], Any]
) -> Any:
    """A wrong :func:`rescore`: a draw's gradient is changed again at the draws before it."""

    class Hooks(Messenger):
        def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
            if msg["value"].requires_grad:
                msg["value"] = msg["value"].clone()
                msg["value"].register_hook(lambda grad: hook(grad, 0))

    drawn = run_guide(Hooks()(guide), args, kwargs)
    with StopParameters():
        guide_trace = run_guide(poutine.replay(guide, trace=drawn), args, kwargs)
    return run_model(model, drawn, args, kwargs), guide_trace, log_prob


def test_two_changes_of_one_gradient_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance_weighted, "rescore", hooks_along_the_chain)
    reference = quadrature(chain_bound, CHAIN_POINT, 4, 20)
    objective = ImportanceWeightedELBO(2, "dreg")
    found = per_copy_gradients(objective, chain_model, chain_guide, CHAIN_POINT, 40_000)
    assert deviation(found["m"], reference["m"]) > 10


def test_data_computed_from_parameters() -> None:
    # The argument of model and guide has a history of its own: an end-to-end trained network, say.
    found = {}
    for name in ("iwae", "dreg"):
        leaf = torch.full((40_000,), 1.5, requires_grad=True)
        rest = {n: torch.full((40_000,), POINT[n], requires_grad=True) for n in POINT if n != "x"}
        objective = ImportanceWeightedELBO(5, name)
        objective.differentiable_loss(model, guide, {**rest, "x": leaf * 1.0}).backward()
        assert leaf.grad is not None
        found[name] = leaf.grad
    assert deviation(found["iwae"] - found["dreg"], 0.0) < 4


@pytest.mark.parametrize(
    "objective",
    [
        ImportanceWeightedELBO(1, "stl"),
        ImportanceWeightedELBO(4, "stl"),
        ImportanceWeightedELBO(4, "dreg"),
        MeanFieldELBO(1, "stl"),
        MeanFieldELBO(3, "stl"),
    ],
)
def test_no_variance_under_the_posterior(objective: Any) -> None:
    linear, x = LinearGaussian(), torch.randn(6, 4)
    posterior = GaussianGuide.exact(linear)
    for tested, size in ((objective, 0.0), (ImportanceWeightedELBO(1, "iwae"), 1e-2)):
        posterior.zero_grad()
        tested.differentiable_loss(linear, posterior, x).backward()
        largest = max(float(p.grad.abs().max()) for p in posterior.parameters())
        assert largest < 1e-9 if size == 0 else largest > size


def test_signal_to_noise_over_the_number_of_particles() -> None:
    nums = [1, 10, 100, 1000]
    noise: dict[str, list[float]] = {"iwae": [], "dreg": []}
    signal = []
    for num in nums:
        for name in noise:
            objective = ImportanceWeightedELBO(num, name)
            grads = per_copy_gradients(objective, model, guide, POINT, 2000)["mu"]
            noise[name].append(float(grads.std()))
        signal.append(abs(float(grads.mean())))  # both have this mean; dreg shows it at once
    ratios = {n: np.array(signal) / np.array(noise[n]) for n in noise}
    print({n: [f"{r:.4f}" for r in ratios[n]] for n in ratios})
    slopes = {n: float(np.polyfit(np.log(nums), np.log(r), 1)[0]) for n, r in ratios.items()}
    assert -0.7 < slopes["iwae"] < -0.3, slopes
    assert slopes["dreg"] > 0.2, slopes
    assert list(ratios["iwae"]) == sorted(ratios["iwae"], reverse=True)
