# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The score-function estimator against the enumeration of all draws."""

from itertools import product
from math import log
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_deepgen.infer import ImportanceWeightedELBO, importance_weighted
from pyro_deepgen.infer.importance_weighted import _leave_one_out
from tests.infer.toys import deviation, per_copy_gradients

Parameters = dict[str, torch.Tensor]
BITS = 2
NUM = 40_000
LOCATIONS = torch.tensor([-1.0, 0.7, 1.6])
POINT = {"theta": 0.8, "q0": 0.4, "q1": -0.6}
MIXED_POINT = {"theta": 0.8, "q0": 0.4, "m": 0.5, "s": 0.9}


def weights_of(bits: torch.Tensor) -> torch.Tensor:
    return (bits * LOCATIONS[:BITS].to(bits)).sum(-1)


class Bits:
    """Bits ``z`` and ``x | z ~ N(theta w z, 1)``, with a power on ``z`` or a mask in the guide."""

    def __init__(self, power: float = 1.0, masked: bool = False) -> None:
        self.power, self.masked = power, masked

    def model(self, p: Parameters) -> None:
        with pyro.plate("data", len(p["theta"])):
            with poutine.scale(scale=self.power):
                z = pyro.sample("z", dist.Bernoulli(torch.full((BITS,), 0.3)).to_event(1))
            mean = p["theta"] * weights_of(z)
            pyro.sample("x", dist.Normal(mean, 1.0), obs=torch.full(p["theta"].shape, 1.2))

    def guide(self, p: Parameters) -> None:
        logits = torch.stack([p["q0"], p["q1"]], -1)
        mask = torch.full((len(p["theta"]),), not self.masked)
        data = pyro.plate("data", len(p["theta"]))
        with data, poutine.mask(mask=mask), poutine.scale(scale=self.power):
            pyro.sample("z", dist.Bernoulli(logits=logits).to_event(1))

    def exact(self, num_particles: int) -> dict[str, float]:
        """Gradient of the expected bound by summing over all draws of all particles."""
        p = {n: torch.tensor(v, requires_grad=True) for n, v in POINT.items()}
        states = torch.tensor(list(product((0.0, 1.0), repeat=BITS)))
        log_q = dist.Bernoulli(logits=torch.stack([p["q0"], p["q1"]])).to_event(1).log_prob(states)
        prior = dist.Bernoulli(torch.full((BITS,), 0.3)).to_event(1).log_prob(states)
        x = dist.Normal(p["theta"] * weights_of(states), 1.0).log_prob(torch.tensor(1.2))
        log_weight = self.power * prior + x - (0.0 if self.masked else self.power * log_q)
        index = torch.tensor(list(product(range(len(states)), repeat=num_particles)))
        bound = log_weight[index].logsumexp(-1) - log(num_particles)
        (log_q[index].sum(-1).exp() * bound).sum().backward()
        return {n: float(v.grad) for n, v in p.items() if v.grad is not None}


def distance(program: Bits, num_particles: int) -> dict[str, float]:
    objective = ImportanceWeightedELBO(num_particles, "vimco")
    found = per_copy_gradients(objective, program.model, program.guide, POINT, NUM)
    exact = program.exact(num_particles)
    return {n: deviation(found[n], exact[n]) for n in POINT}


@pytest.mark.parametrize("num_particles", [2, 3, 5])
def test_expected_gradients_are_those_of_the_enumerated_bound(num_particles: int) -> None:
    found = distance(Bits(), num_particles)
    assert max(found.values()) < 4, found


def test_a_flipped_sign_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def flipped(log_weight: torch.Tensor) -> torch.Tensor:
        bound = log_weight.logsumexp(0) - log(len(log_weight))
        return 2 * bound - _leave_one_out(log_weight)

    monkeypatch.setattr(importance_weighted, "_leave_one_out", flipped)
    found = distance(Bits(), 3)
    assert found["q0"] > 10 and found["q1"] > 10, found


def test_a_missing_score_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(log_weight: torch.Tensor) -> torch.Tensor:
        return (log_weight.logsumexp(0) - log(len(log_weight))).expand_as(log_weight)

    monkeypatch.setattr(importance_weighted, "_leave_one_out", own)
    assert distance(Bits(), 3)["q1"] > 10


@pytest.mark.parametrize("program", [Bits(power=0.4), Bits(masked=True)], ids=["power", "mask"])
def test_powers_and_masks_do_not_change_how_draws_are_made(program: Bits) -> None:
    found = distance(program, 3)
    assert max(found.values()) < 4, found


def test_the_baseline_is_the_mean_of_the_others() -> None:
    log_weight = torch.randn(4, 3)
    found = _leave_one_out(log_weight)
    for k in range(4):
        others = torch.cat([log_weight[:k], log_weight[k + 1 :]])
        replaced = torch.cat([others, others.mean(0, keepdim=True)])
        assert torch.allclose(found[k], replaced.logsumexp(0) - log(4))


def test_an_impossible_draw_is_no_nan() -> None:
    log_weight = torch.randn(4, 3)
    log_weight[1, 0] = -torch.inf
    found = _leave_one_out(log_weight)
    assert not found.isnan().any()
    assert torch.isfinite(found[1, 0])


def mixed_model(p: Parameters) -> None:
    with pyro.plate("data", len(p["theta"])):
        b = pyro.sample("b", dist.Bernoulli(torch.tensor(0.3)))
        z = pyro.sample("z", dist.Normal(b, 1.0))
        mean = p["theta"] * z
        pyro.sample("x", dist.Normal(mean, 1.0), obs=torch.full(p["theta"].shape, 1.2))


def mixed_guide(p: Parameters) -> None:
    with pyro.plate("data", len(p["theta"])):
        b = pyro.sample("b", dist.Bernoulli(logits=p["q0"]))
        pyro.sample("z", dist.Normal(p["m"] * (1 + b), p["s"]))


def mixed_exact() -> dict[str, float]:
    """Two particles: a sum over the bits, and quadrature over the noise."""
    nodes, mass = (torch.tensor(a) for a in np.polynomial.hermite_e.hermegauss(40))
    p: dict[str, Any] = {n: torch.tensor(v, requires_grad=True) for n, v in MIXED_POINT.items()}
    b = torch.tensor([0.0, 1.0])[:, None]
    q_b, q_z = dist.Bernoulli(logits=p["q0"]), dist.Normal(p["m"] * (1 + b), p["s"])
    z = q_z.loc + q_z.scale * nodes
    log_p = dist.Bernoulli(torch.tensor(0.3)).log_prob(b) + dist.Normal(b, 1.0).log_prob(z)
    log_p = log_p + dist.Normal(p["theta"] * z, 1.0).log_prob(torch.tensor(1.2))
    log_weight = (log_p - q_b.log_prob(b) - q_z.log_prob(z)).flatten()
    probability = (q_b.log_prob(b).exp() * mass / mass.sum()).flatten()
    pair = torch.logaddexp(log_weight[:, None], log_weight[None, :]) - log(2)
    (probability[:, None] * probability[None, :] * pair).sum().backward()
    return {n: float(v.grad) for n, v in p.items()}


def test_discrete_and_reparametrised_sites_in_one_guide() -> None:
    exact = mixed_exact()
    objective = ImportanceWeightedELBO(2, "vimco")
    found = per_copy_gradients(objective, mixed_model, mixed_guide, MIXED_POINT, NUM)
    assert all(deviation(found[n], exact[n]) < 4 for n in exact)
    assert any(deviation(found[n], exact[n] * 0.8) > 10 for n in exact)
