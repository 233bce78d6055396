# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Deep belief nets against sums over all their hidden states."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule
from pyro.optim import Adam

from pyro_deepgen.energy.deep_belief_layer import turn_upside_down
from pyro_deepgen.energy.deep_belief_net import DeepBeliefNet
from pyro_deepgen.energy.log_partition import UnknownPartitionError
from pyro_deepgen.energy.machine import Machine
from pyro_deepgen.energy.negative_phase import ContrastiveDivergence, NegativePhase
from pyro_deepgen.energy.rbm import RBM
from pyro_deepgen.energy.units import GaussianUnits
from pyro_deepgen.fit.stages import fit_stages
from tests.energy.statistics import follows

pytestmark = pytest.mark.usefixtures("float64")


def bits(size: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=size)))


def net_of(hidden: tuple[int, ...] = (3, 2), visible: Any = 4, **options: Any) -> DeepBeliefNet:
    net = DeepBeliefNet(visible, hidden, **options)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return net


def average(net: DeepBeliefNet, data: torch.Tensor) -> float:
    with torch.no_grad():
        return float(net.eval().log_prob(data).mean())


def bernoulli(x: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
    return torch.distributions.Bernoulli(logits=field).log_prob(x).sum(-1)


def table(net: DeepBeliefNet, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
    """Log p(x, h) and log q(h | x), of every x and every state of the hidden layers."""
    sizes = net.sizes[1:-1]
    states = bits(sum(sizes))
    layers = [x[:, None], *(h[None] for h in states.split(sizes, -1))]
    log_p, log_q = torch.zeros(()), torch.zeros(())
    for layer, below, above in zip(net.layers, layers, layers[1:], strict=False):
        log_p = log_p + bernoulli(below, above @ layer.generative_weight + layer.generative_bias)
        log_q = log_q + bernoulli(above, below @ layer.recognition_weight + layer.recognition_bias)
    top = net.top
    states = bits(top.event_shape[0])
    hidden = bits(top.hidden.num_units)

    def score(v: torch.Tensor) -> torch.Tensor:
        pairs = v[..., None, :] @ top.weight @ hidden.mT
        own = (v @ top.visible_bias)[..., None, None] + hidden @ top.hidden_bias
        return (pairs + own).flatten(-2).logsumexp(-1)

    return log_p + score(layers[-1]) - score(states).logsumexp(0), log_q, layers


@pytest.mark.parametrize("hidden", [(3, 2), (2, 3, 2)])
def test_log_prob_and_bounds(hidden: tuple[int, ...]) -> None:
    net, x = net_of(hidden).eval(), bits(4)
    with torch.no_grad():
        log_p, log_q, _ = table(net, x)
        exact = log_p.logsumexp(-1)
        torch.testing.assert_close(net.log_prob(x), exact, rtol=0, atol=1e-10)
        assert abs(exact.logsumexp(0)) < 1e-10
        terms = log_p - log_q
        mean = (log_q.exp() * terms).sum(-1)
        spread = ((log_q.exp() * (terms - mean[:, None]) ** 2).sum(-1) / 3000).sqrt()
        found = net.bound(x, 3000)
        assert bool(((found - mean).abs() < 4 * spread).all())
        assert bool((mean < exact).all())


def test_many_importance_weights_meet_the_density(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = net_of((3, 2), num_draws=2000).eval(), bits(4)
    monkeypatch.setattr(DeepBeliefNet, "log_prob_is_bound", property(lambda net: True))
    with torch.no_grad():
        log_p, log_q, _ = table(net, x)
        exact = log_p.logsumexp(-1)
        second = (2 * log_p - log_q).logsumexp(-1)
        error = ((second - 2 * exact).exp() - 1).sqrt() / math.sqrt(2000)
        assert bool(((net.log_prob(x) - exact).abs() < 4 * error + error**2 * 8).all())


def test_draws_follow_the_density() -> None:
    net, x = net_of().eval(), bits(4)
    with torch.no_grad():
        probs = net.log_prob(x).exp()
        draws = net.sample((10_000,))
        assert follows(draws, x, probs, True)
        # A net that went down by its recognition would draw otherwise.
        wrong = copy.deepcopy(net)
        wrong.layers[0].generative_weight.copy_(net.layers[0].recognition_weight.mT)
        assert not follows(wrong.sample((10_000,)), x, probs, True)


def test_impute_follows_the_conditional() -> None:
    net, x = net_of().eval(), bits(4)
    with torch.no_grad():
        probs = net.log_prob(x).exp()[:4]  # the first two units off
        given = torch.tensor([0.0, 0.0, torch.nan, torch.nan]).expand(10_000, 4)
        mask = torch.tensor([True, True, False, False])
        draws = net.impute(given, mask, num_steps=60)
        assert follows(draws, x[:4], probs / probs.sum(), True)
        # Drawing from the recognition without accepting or rejecting has another limit.
        layers = draws
        for _ in range(20):
            layers = torch.where(mask, given, net.generate(net.recognize(layers)[-1])[0])
        assert not follows(layers, x[:4], probs / probs.sum(), True)


def test_a_net_over_an_upside_down_machine_is_that_machine() -> None:
    """The complementary prior: two tied layers are the distribution of one machine."""
    rbm = RBM(4, 3).eval()
    with torch.no_grad():
        for parameter in rbm.parameters():
            parameter.copy_(torch.randn_like(parameter))
        net = DeepBeliefNet(4, (3, 4)).eval()
        net.layers[0].take(rbm)
        turn_upside_down(rbm, net.top)
        torch.testing.assert_close(net.log_prob(bits(4)), rbm.log_prob(bits(4)))
        # And the recognition is the posterior, so that the bound is tight.
        torch.testing.assert_close(net.bound(bits(4)), rbm.log_prob(bits(4)))


# ---------------------------------------------------------------- up-down


class ExactDraws(NegativePhase):
    """Independent draws of the machine."""

    def forward(self, machine: Machine, value: torch.Tensor) -> torch.Tensor:
        return machine.exact_sample(2000)


def test_gradients_of_wake_and_sleep() -> None:
    net = net_of((3, 2), negative_phase=ExactDraws(), dream_steps=30)
    data = bits(4)[[1, 3, 3, 6, 15]]
    names = [name for name, _ in net.named_parameters()]
    parameters = list(net.parameters())
    found = []
    many = data.repeat(400, 1)
    for _ in range(40):
        grads = torch.autograd.grad(net.log_prob(many).sum() / 400, parameters)
        found.append([g.clone() for g in grads])
    log_p, log_q, _ = table(net, data)
    wake = (log_q.exp().detach() * log_p).sum()
    all_p, all_q, _ = table(net, bits(4))
    sleep = len(data) * (all_p.exp().detach() * all_q).sum()
    exact = {}
    for objective in (wake, sleep):
        grads = torch.autograd.grad(objective, parameters, allow_unused=True, retain_graph=True)
        for name, grad in zip(names, grads, strict=True):
            if grad is not None:
                exact[name] = grad
    assert set(exact) == set(names)
    worst_of_other = 0.0
    for place, name in enumerate(names):
        draws = torch.stack([grads[place] for grads in found])
        error = draws.std(0) / math.sqrt(len(draws))
        assert bool(((draws.mean(0) - exact[name]).abs() < 4.5 * error + 1e-9).all()), name
        worst_of_other = max(worst_of_other, float((draws.mean(0).abs() / error).max()))
    assert worst_of_other > 20  # a gradient that is left out would be seen


def test_greedy_stages_and_svi_raise_the_likelihood() -> None:
    torch.set_default_dtype(torch.float32)
    data = torch.tensor([[1.0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]])
    net = DeepBeliefNet(6, (5, 6), weight_scale=0.1, negative_phase=ContrastiveDivergence(5))
    before = average(net, data)
    histories = fit_stages(
        net.stages(lambda: ContrastiveDivergence(5)),
        data.repeat(50, 1),
        lambda parameters: torch.optim.Adam(parameters, lr=0.03),
        num_epochs=30,
        batch_size=50,
        progress=False,
    )
    assert [len(h.train) for h in histories] == [30, 30]
    greedy = average(net, data)
    assert greedy > before + 0.5

    class Program(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("x", self.net, obs=x)

    net.train()
    svi = SVI(Program(), lambda x: None, Adam({"lr": 0.02}), Trace_ELBO())
    values = [p.detach().clone() for p in net.parameters()]
    for _ in range(200):
        svi.step(data.repeat(30, 1))
    assert all(bool((p != v).any()) for p, v in zip(net.parameters(), values, strict=True))
    assert average(net, data) > greedy + 0.1


def test_a_stage_starts_as_the_machine_below_upside_down() -> None:
    net = net_of((3, 4))
    stages = net.stages()
    first: Any = next(stages).loss
    with torch.no_grad():
        first.distribution.weight.fill_(0.5)
    second: Any = next(stages)
    assert bool((net.layers[0].recognition_weight == 0.5).all())
    assert bool((net.layers[0].generative_weight == 0.5).all())
    assert bool((net.top.weight == 0.5).all())
    assert second.loss.distribution is net.top
    assert second.transform(torch.ones(7, 4)).shape == (7, 3)
    assert list(stages) == []


def test_gaussian_visible_units() -> None:
    net = net_of((3, 2), GaussianUnits(1)).eval()
    x = torch.linspace(-30, 30, 6001)[:, None]
    with torch.no_grad():
        total = net.log_prob(x).logsumexp(0) + math.log(0.01)
    assert abs(total) < 1e-6
    net.train().log_prob(x[::500]).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_a_context_shifts_the_top() -> None:
    """Two contexts are two nets, of which each learns its own data."""
    net, x = net_of((3, 2), context_dim=2).eval(), bits(4)
    context = torch.tensor([[1.0, -0.5], [0.3, 2.0]])
    both = net.condition(context)
    with torch.no_grad():
        found = both.log_prob(x[:, None])
        torch.testing.assert_close(found.logsumexp(0), torch.zeros(2), atol=1e-9, rtol=0)
        for i in range(2):
            plain = net_of((3, 2)).eval()
            plain.load_state_dict(net.state_dict(), strict=False)
            moved = net.top.bias(context[i]).split((3, 2))
            plain.top.visible_bias.add_(moved[0])
            plain.top.hidden_bias.add_(moved[1])
            torch.testing.assert_close(found[:, i], plain.log_prob(x))
        draws = both.sample((12_000,))
        assert draws.shape == (12_000, 2, 4)
        assert all(follows(draws[:, i], x, found[:, i].exp(), True) for i in range(2))
        assert both.expand((3, 2)).sample((5,)).shape == (5, 3, 2, 4)
        assert (both.bound(x[:, None].expand(16, 2, 4), 200) < found + 0.3).all()
    net.train().condition(context).log_prob(x[[3, 12]]).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    names = [dict(stage.loss.named_parameters()) for stage in net.stages()]
    assert all(not any("bias.weight" in name for name in stage) for stage in names)
    with pytest.raises(ValueError, match="condition"):
        net.log_prob(x)
    with pytest.raises(ValueError, match="takes no context"):
        net_of((3, 2)).condition(context)


def test_what_the_net_refuses() -> None:
    with pytest.raises(ValueError, match="two hidden layers"):
        DeepBeliefNet(3, (2,))
    with pytest.raises(ValueError, match="dream_steps"):
        DeepBeliefNet(3, (2, 2), dream_steps=0)
    large = DeepBeliefNet(3, (30, 30)).eval()
    with pytest.raises(UnknownPartitionError, match="estimate_log_partition"):
        large.log_prob(torch.ones(3))
    large.estimate_log_partition(20, 10, compile=False)
    assert large.log_prob_is_bound and bool(large.log_prob(torch.ones(2, 3)).isfinite().all())
    net = net_of()
    with pytest.raises(ValueError, match="one stage"):
        fit_stages(net.stages(), torch.ones(5, 4), num_epochs=1, checkpoint="file")
    with pytest.raises(ValueError, match="epochs for each"):
        fit_stages(net.stages(), torch.ones(5, 4), num_epochs=[1], progress=False)


def test_expand_and_copies() -> None:
    net = net_of().eval()
    assert net.expand((5,)).sample((2,)).shape == (2, 5, 4)
    assert net.expand((5,)).log_prob(torch.ones(4)).shape == (5,)
    other = net_of().eval()
    other.load_state_dict(net.state_dict())
    x = bits(4)
    with torch.no_grad():
        assert bool((other.log_prob(x) == net.log_prob(x)).all())
        assert bool((copy.deepcopy(net).log_prob(x) == net.log_prob(x)).all())
