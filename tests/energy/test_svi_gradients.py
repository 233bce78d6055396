# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The gradient that SVI follows is that of the likelihood."""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_deepgen.energy.boltzmann_machine import BoltzmannMachine
from pyro_deepgen.energy.negative_phase import (
    ContrastiveDivergence,
    NegativePhase,
    PersistentChains,
)
from pyro_deepgen.energy.negative_phase_tempered import TemperedChains
from pyro_deepgen.energy.rbm import RBM
from pyro_deepgen.energy.replay_buffer import ReplayBuffer
from tests.energy.energy_row import EnergyRow
from tests.energy.rows_boltzmann import boltzmann, rbm
from tests.energy.table import ENERGIES

pytestmark = pytest.mark.usefixtures("float64")
REPEATS, CHAINS = 150, 100
Gradient = list[torch.Tensor]

every = pytest.mark.parametrize("row", ENERGIES, ids=[row.name for row in ENERGIES])


def exact_gradient(machine: Any, log_likelihood: torch.Tensor) -> Gradient:
    found = torch.autograd.grad(log_likelihood, list(machine.parameters()), allow_unused=True)
    return [
        torch.zeros_like(p) if g is None else g
        for g, p in zip(found, machine.parameters(), strict=True)
    ]


def drawn_gradients(
    machine: Any,
    score: Callable[[], torch.Tensor],
    repeats: int = REPEATS,
    begin: Callable[[int], torch.Tensor] | None = None,
) -> Gradient:
    """Independent gradients ``(repeats, *shape)`` of each parameter, from chains begun anew."""
    found, event_dim = [], len(machine.all_units.event_shape)
    begin = machine.all_units.start if begin is None else begin
    for _ in range(repeats):
        chains = getattr(machine.negative_phase, "chains", None)
        if chains is not None:
            count = chains.shape[: chains.dim() - event_dim].numel()
            chains.copy_(begin(count).reshape(chains.shape))
        found.append(exact_gradient(machine, score()))
    return [torch.stack(of_one) for of_one in zip(*found, strict=True)]


def errors(drawn: Gradient, exact: Gradient) -> torch.Tensor:
    """By how many standard errors the means are off, for all parameters."""
    off = []
    for d, e in zip(drawn, exact, strict=True):
        standard = d.std(0) / len(d) ** 0.5
        gap = (d.mean(0) - e).abs()
        # Without noise, as where units are not coupled, it must be the same but for rounding.
        off.append(torch.where(standard < 1e-12, gap / 1e-10, gap / standard.clamp(min=1e-12)))
    return torch.cat([o.flatten() for o in off])


@every
def test_long_chains_give_the_exact_gradient(row: EnergyRow) -> None:
    # Chains of a slow kernel start at exact draws, which few steps must leave so.
    slow = not row.make().is_small
    phase = PersistentChains(CHAINS, 2 if slow else row.chain_steps)
    machine = row.make(negative_phase=phase)
    values = row.values(machine)
    data = values[torch.multinomial(torch.ones(len(values)), 5)]
    exact = exact_gradient(machine, row.climbed(machine, data).sum() - 5 * row.log_z(machine))
    begin = (lambda count: row.exact_states(machine, count)) if slow else None
    repeats = 50 if slow else 80
    drawn = drawn_gradients(machine, lambda: machine.log_prob(data).sum(), repeats, begin)
    assert errors(drawn, exact).max() < 4.5  # 4 of one number, and there are many
    # And it notices a negative phase that is left out, or of the wrong sign.
    positive = exact_gradient(machine, row.climbed(machine, data).sum())
    wrong = [2 * p - d for p, d in zip(positive, drawn, strict=True)]
    assert errors(wrong, exact).max() > 10
    assert errors(drawn, positive).max() > 10
    if row.bound is not None:  # nor is a bound taken for the likelihood
        likelihood = row.reference(machine, data).sum() - 5 * row.log_z(machine)
        assert errors(drawn, exact_gradient(machine, likelihood)).max() > 8


def rbm_gradient(phase: NegativePhase) -> torch.Tensor:
    machine = rbm(5, 3, negative_phase=phase)
    data = torch.ones(200, 5)  # far from what the machine draws
    score = machine.log_unnormalized(data).sum() - 200 * machine.exact_log_partition()
    exact = exact_gradient(machine, score)
    drawn = drawn_gradients(machine, lambda: machine.log_prob(data).sum())
    return errors(drawn, exact)


def test_one_step_of_contrastive_divergence_is_biased_and_many_are_not() -> None:
    assert rbm_gradient(ContrastiveDivergence(1)).max() > 8
    assert rbm_gradient(ContrastiveDivergence(40)).max() < 4.5


@pytest.mark.parametrize(
    "make",
    [
        lambda: TemperedChains(50, 4, 10),
        lambda: ReplayBuffer(50, 40, size=60, refresh=0.3),
    ],
    ids=["tempered", "replay"],
)
def test_other_negative_phases_give_the_exact_gradient(make: Callable[[], NegativePhase]) -> None:
    assert rbm_gradient(make()).max() < 4.5


def test_persistent_chains_forget_where_they_began() -> None:
    """With one step each, the bias of the first gradients vanishes."""
    machine = rbm(5, 3, negative_phase=PersistentChains(20_000, 1))
    with torch.no_grad():
        machine.weight.mul_(3)
    data = torch.bernoulli(torch.full((5, 5), 0.5))
    exact = exact_gradient(
        machine, machine.log_unnormalized(data).sum() - 5 * machine.exact_log_partition()
    )
    machine.negative_phase.chains.zero_()

    def gap() -> float:
        found = exact_gradient(machine, machine.log_prob(data).sum())
        return float(sum((f - e).square().sum() for f, e in zip(found, exact, strict=True)))

    first = gap()
    for _ in range(40):
        machine.negative_phase(machine, data)
    assert gap() < first / 10


def test_mean_field_follows_the_gradient_of_its_bound() -> None:
    machine = boltzmann(4, 3, positive="mean_field", positive_steps=200)
    machine.negative_phase = PersistentChains(CHAINS, 30)
    machine.ready()
    data = torch.bernoulli(torch.full((6, 4), 0.5))
    log_z = machine.exact_log_partition()
    m = machine.complete(data)[:, 4:]
    bound = -machine.energy(data, m).sum() - 6 * log_z
    drawn = drawn_gradients(machine, lambda: machine.log_prob(data).sum())
    assert errors(drawn, exact_gradient(machine, bound)).max() < 4.5
    # It is the mean field's best: its bound is stationary in the means.
    m = m.requires_grad_()
    entropy = (torch.special.entr(m) + torch.special.entr(1 - m)).sum()
    (slope,) = torch.autograd.grad(entropy - machine.energy(data, m).sum(), m)
    assert slope.abs().max() < 1e-8
    # And lower than the likelihood, whose gradient is another one.
    likelihood = machine.log_unnormalized(data).sum() - 6 * machine.exact_log_partition()
    assert errors(drawn, exact_gradient(machine, likelihood)).max() > 8


@pytest.mark.parametrize("cls", [RBM, BoltzmannMachine])
def test_centring_is_the_enhanced_gradient_of_the_same_density(cls: type) -> None:
    sizes = (4, 3) if cls is RBM else (5,)
    make = rbm if cls is RBM else boltzmann
    machine, plain = make(*sizes, centred=True), make(*sizes)
    machine.load_state_dict(plain.state_dict(), strict=False)
    data = torch.bernoulli(torch.full((6, sizes[0]), 0.3))
    machine.log_prob(data)  # moves the offsets away from their start
    x = torch.bernoulli(torch.full((20, sizes[0]), 0.5))
    torch.testing.assert_close(machine.energy(x), plain.energy(x), atol=1e-14, rtol=0)
    score = machine.log_unnormalized(data).sum() - 6 * machine.exact_log_partition()
    found = dict(zip(dict(machine.named_parameters()), exact_gradient(machine, score), strict=True))
    score = plain.log_unnormalized(data).sum() - 6 * plain.exact_log_partition()
    g = dict(zip(dict(plain.named_parameters()), exact_gradient(plain, score), strict=True))
    if cls is RBM:
        mu, lam = machine.visible_offset, machine.hidden_offset
        b, c = g["visible_bias"], g["hidden_bias"]
        w = g["weight"] - torch.outer(mu, c) - torch.outer(b, lam)
        expected = {"weight": w, "visible_bias": b - w @ lam, "hidden_bias": c - mu @ w}
    else:
        mu, b = machine.offset, g["unit_bias"]
        w = (g["weight"] - torch.outer(mu, b) - torch.outer(b, mu)).triu(1)
        expected = {"weight": w, "unit_bias": b - (w + w.T) @ mu}
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found["weight"], g["weight"])


def test_the_enhanced_gradient_does_not_depend_on_what_is_called_1() -> None:
    machine = rbm(4, 3, centred=True)
    flipped = rbm(4, 3, centred=True)
    data = torch.bernoulli(torch.full((6, 4), 0.3))
    with torch.no_grad():  # the same density of 1 - x
        machine.visible_offset.copy_(data.mean(0))
        flipped.load_state_dict(machine.state_dict())
        flipped.weight.neg_()
        flipped.hidden_bias.add_(machine.weight.sum(0))
        flipped.visible_bias.neg_()
        flipped.visible_offset.copy_(1 - data.mean(0))
    steps = []
    for m, x in ((machine, data), (flipped, 1 - data)):
        score = m.log_unnormalized(x).sum() - 6 * m.exact_log_partition()
        steps.append(exact_gradient(m, score)[0])
    torch.testing.assert_close(steps[0], -steps[1])


def test_scales_and_masks_weigh_the_whole_gradient() -> None:
    """Each datum's part of log Z has the weight of the datum."""
    machine = rbm(4, 3)
    machine.negative_phase.chains.copy_(machine.exact_sample(100))
    data = torch.bernoulli(torch.full((12, 4), 0.5))
    index = torch.tensor([1, 4, 5])
    mask = torch.tensor([True, False, True])

    def model() -> None:
        pyro.module("rbm", machine)
        with pyro.plate("data", 12, subsample=index), pyro.poutine.mask(mask=mask):
            pyro.sample("x", machine, obs=data[index])

    draws = machine.negative_phase.chains.clone()
    machine.negative_phase.forward = lambda machine, state: draws
    Trace_ELBO().differentiable_loss(model, lambda: None).backward()
    found = [p.grad for p in machine.parameters()]
    kept = data[index][mask]
    expected = 4 * (machine.energy(kept).sum() - 2 * machine.energy(draws).mean())
    for f, e in zip(found, exact_gradient(machine, expected), strict=True):
        torch.testing.assert_close(f, e)
