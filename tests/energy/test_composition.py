# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Machines in larger Pyro programs: a prior, a site among others, one with random biases."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch import nn

from pyro_deepgen.energy.log_partition import UnknownPartitionError
from pyro_deepgen.energy.machine import Machine
from pyro_deepgen.energy.negative_phase import PersistentChains
from pyro_deepgen.energy.rbm import RBM
from pyro_deepgen.energy.units import GaussianUnits
from pyro_deepgen.infer import ImportanceWeightedELBO
from pyro_deepgen.latent import VAE, vae
from pyro_deepgen.mcmc import NUTS, run
from tests.energy.rows_boltzmann import bits, boltzmann, rbm
from tests.energy.test_svi_gradients import errors, exact_gradient

# ---------------------------------------------------------------- a prior


def coins_of(logits: torch.Tensor) -> Any:
    return dist.Bernoulli(logits=logits).to_event(1)


def pair_of(prior: RBM) -> VAE:
    size = prior.event_shape[0]
    return VAE(nn.Linear(5, size), nn.Linear(size, 5), size, prior=prior, posterior=coins_of)


def log_evidence(pair: VAE, x: torch.Tensor) -> torch.Tensor:
    """``log p(x)`` by the sum over all latent states, each with its probability by the energy."""
    z = bits(3)
    log_prior = (-pair.prior.energy(z)).log_softmax(0)
    likelihood = dist.Bernoulli(logits=pair.decoder(z)).to_event(1)
    return (log_prior + likelihood.log_prob(x[:, None])).logsumexp(1)


def elbo(pair: VAE, x: torch.Tensor) -> torch.Tensor:
    """The bound by the sum over all latent states."""
    z = bits(3)
    q = coins_of(pair.encoder(x)[:, None]).log_prob(z)
    log_prior = (-pair.prior.energy(z)).log_softmax(0)
    likelihood = dist.Bernoulli(logits=pair.decoder(z)).to_event(1).log_prob(x[:, None])
    return (q.exp() * (likelihood + log_prior - q)).sum(1)


def test_the_gradient_with_a_machine_as_prior_is_that_of_the_bound(float64: torch.dtype) -> None:
    machine = rbm(3, 2, negative_phase=PersistentChains(200, 20))
    pair = pair_of(machine)
    x = torch.bernoulli(torch.full((6, 5), 0.4))
    exact = exact_gradient(pair, elbo(pair, x).sum())
    found = []
    for _ in range(200):
        loss = Trace_ELBO().differentiable_loss(pair.model, pair.guide, x)
        found.append(exact_gradient(pair, -loss))
    drawn = [torch.stack(of_one) for of_one in zip(*found, strict=True)]
    assert errors(drawn, exact).max() < 4.5
    # A prior that is held for a normalised one is noticed.
    scores = exact_gradient(pair, elbo(pair, x).sum() + 6 * machine.exact_log_partition())
    assert errors(drawn, scores).max() > 10


def test_a_machine_and_its_pair_learn_and_are_evaluated(float64: torch.dtype) -> None:
    machine = RBM(3, 2, weight_scale=0.3, negative_phase=PersistentChains(100, 5))
    pair = pair_of(machine)
    x = torch.tensor([[1.0, 1, 1, 0, 0], [0, 0, 1, 1, 1]]).repeat(20, 1)
    before = float(log_evidence(pair, x).mean().detach())
    still = {name: p.detach().clone() for name, p in pair.named_parameters()}
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.03}), Trace_ELBO())
    for _ in range(250):
        svi.step(x)
    assert [n for n, p in pair.named_parameters() if torch.equal(p, still[n])] == []
    pair.eval()
    with torch.no_grad():
        after = log_evidence(pair, x)
        assert after.mean() > before + 0.5
        # In evaluation the prior is normalised, so that many particles meet the evidence.
        bound = -ImportanceWeightedELBO(2000).loss(pair.model, pair.guide, x[:2])
        assert bound == pytest.approx(float(after[:2].sum()), abs=0.1)
        machine.train()  # where it is normalised by the last estimate, of which there is none
        unnormalised = -ImportanceWeightedELBO(2000).loss(pair.model, pair.guide, x[:2])
        expected = float(after[:2].sum() + 2 * machine.exact_log_partition())
        assert unnormalised == pytest.approx(expected, abs=0.1)
    assert pair.sample(4).shape == (4, 5)


def test_a_machine_of_real_units_as_prior() -> None:
    prior = RBM(GaussianUnits(2), 2, weight_scale=0.3)
    pair = vae(6, 2, (8,), prior=prior)
    x = torch.bernoulli(torch.full((40, 6), 0.3))
    before = {name: p.detach().clone() for name, p in pair.named_parameters()}
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    losses = [svi.step(x) for _ in range(5)]
    assert all(torch.tensor(losses).isfinite())
    assert [n for n, p in pair.named_parameters() if torch.equal(p, before[n])] == []
    assert pair.sample(4).shape == (4, 6)


# ---------------------------------------------------------------- one site among others


class Story(pyro.nn.PyroModule):
    """A global scale, data of a machine, and a readout of each datum with noise of that scale."""

    def __init__(self, machine: RBM) -> None:
        super().__init__()
        self.machine, self.readout = machine, nn.Linear(3, 1)

    def forward(self, y: Any = None, v: Any = None, size: int = 5) -> torch.Tensor:
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", size):
            v = pyro.sample("v", self.machine, obs=v)
            return pyro.sample("y", dist.Normal(self.readout(v)[..., 0], scale), obs=y)


def test_draws_and_scores_of_a_larger_program() -> None:
    story = Story(rbm(3, 2))
    y = story()
    draws = Predictive(story, num_samples=7)()
    assert draws["v"].shape == (7, 5, 3) and draws["y"].shape == (7, 5)
    story.eval()
    trace = pyro.poutine.trace(pyro.poutine.condition(story, {"v": bits(3)[:5]})).get_trace(y)
    expected = story.machine.log_prob(bits(3)[:5]).sum()
    torch.testing.assert_close(trace.nodes["v"]["fn"].log_prob(bits(3)[:5]).sum(), expected)
    assert trace.log_prob_sum().isfinite()


def test_a_machine_learns_beside_other_sites_as_it_learns_alone(float64: torch.dtype) -> None:
    """The other sites' terms leave its gradient alone, and they are learned with it."""
    story = Story(rbm(3, 2, negative_phase=PersistentChains(300, 5)))
    machine, size = story.machine, 200
    v = bits(3)[torch.randint(4, (size,))]  # the first unit is off
    y = v @ torch.tensor([0.5, 1.0, -2.0]) + 0.3 + 0.1 * torch.randn(size)

    def guide(y: Any, v: Any, size: int) -> None:
        loc = pyro.param("loc", torch.zeros(()))
        spread = pyro.param("spread", torch.tensor(0.1), constraint=dist.constraints.positive)
        pyro.sample("scale", dist.LogNormal(loc, spread))

    draws = machine.exact_sample(300)
    phase = machine.negative_phase
    keep, phase.forward = phase.forward, lambda machine, state: draws
    loss = Trace_ELBO().differentiable_loss(story, guide, y, v, size)
    beside = torch.autograd.grad(-loss, list(machine.parameters()))
    alone = torch.autograd.grad(machine.log_prob(v).sum(), list(machine.parameters()))
    torch.testing.assert_close(beside, alone)
    phase.forward = keep

    optim = pyro.optim.Adam({"lr": 0.03})
    svi = SVI(story, guide, optim, Trace_ELBO())
    for _ in range(400):
        svi.step(y, v, size)
    with torch.no_grad():
        probs = machine.eval().log_prob(bits(3)).exp()
        seen = torch.stack([(v == x).all(-1).double().mean() for x in bits(3)])
        assert (probs - seen).abs().max() < 0.06
        torch.testing.assert_close(
            story.readout.weight[0, 1:], torch.tensor([1.0, -2.0]), atol=0.05, rtol=0
        )
        assert float(pyro.param("loc").exp()) == pytest.approx(0.1, rel=0.25)


# ---------------------------------------------------------------- biases that are random


def test_biases_from_another_site_have_a_posterior_by_nuts(float64: torch.dtype) -> None:
    """The exact log Z is part of the potential: NUTS agrees with quadrature, in two dimensions."""
    machine = boltzmann(3)
    data = bits(3)[[0, 3, 3, 7, 1]]
    prior = dist.Normal(torch.zeros(2), 1.0).to_event(1)

    def view_of(site: torch.Tensor) -> Any:
        """The first two biases are the site; the third is their difference."""
        return machine.with_parameters(
            unit_bias=torch.cat([site, site[..., :1] - site[..., 1:]], -1)
        )

    def model() -> None:
        site = pyro.sample("bias", prior)
        with pyro.plate("data", 5):
            pyro.sample("x", view_of(site), obs=data)

    kernel = NUTS(model, compile=False)
    chains = run(kernel, 50, warmup_steps=50, num_chains=40, progress=False)
    draws = chains.get_samples(group_by_chain=True)["bias"]

    points = torch.cartesian_prod(*[torch.linspace(-5, 5, 101)] * 2)
    states = bits(3)
    linear = torch.cat([points, points[:, :1] - points[:, 1:]], 1) @ states.T
    pairs = (states @ machine.weight.triu(1) * states).sum(-1)
    scores = (linear + pairs).detach()
    places = (data @ torch.tensor([4.0, 2.0, 1.0])).long()
    log_likelihood = scores[:, places].sum(1) - 5 * scores.logsumexp(1)
    posterior = (log_likelihood + prior.log_prob(points)).softmax(0)

    def moments(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x.square(), x[..., :1] * x[..., 1:]], -1)

    of_chains = moments(draws).mean(1)
    error = of_chains.std(0) / len(of_chains) ** 0.5
    assert ((of_chains.mean(0) - posterior @ moments(points)).abs() < 4 * error).all()
    # Without log Z it would be elsewhere.
    wrong = (scores[:, places].sum(1) + prior.log_prob(points)).softmax(0) @ moments(points)
    assert ((of_chains.mean(0) - wrong).abs() / error).max() > 10


def test_biases_from_another_site_need_an_exact_constant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = rbm(4, 3)
    bias = torch.tensor([0.1, 0.2, -0.3, 1.0], requires_grad=True)
    view = machine.with_parameters(visible_bias=bias)
    assert view.log_prob(bits(4)).exp().sum().item() == pytest.approx(1, abs=1e-5)
    x = bits(4)[[3, 5]]
    (found,) = torch.autograd.grad(view.log_prob(x).sum(), bias)
    probs = view.log_prob(bits(4)).exp()
    torch.testing.assert_close(found, x.sum(0) - 2 * probs @ bits(4))
    with pytest.raises(ValueError, match="expected a value for one of"):
        machine.with_parameters(visible_bias=bias[:3])
    with pytest.raises(ValueError, match="expected a value for one of"):
        machine.with_parameters(bias=bias)
    monkeypatch.setattr(Machine, "is_small", property(lambda machine: False))
    with pytest.raises(UnknownPartitionError, match="limit"):
        view.log_prob(x)
    with pytest.raises(UnknownPartitionError, match="random"):
        view.estimate_log_partition()
