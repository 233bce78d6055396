# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""How far contrastive divergence is from the gradient of the likelihood, and persistent chains.

The law of a chain after k steps is computed by the matrix of all transitions, so that the
expectations of both are exact: CD-k has that of chains from the data, persistent chains that of
chains from wherever they began, k gradients ago.
"""

from __future__ import annotations

import pytest
import torch

from pyro_deepgen.energy.negative_phase import (
    ContrastiveDivergence,
    NegativePhase,
    PersistentChains,
)
from pyro_deepgen.energy.rbm import RBM
from tests.energy.rows_boltzmann import bits, rbm

pytestmark = pytest.mark.usefixtures("float64")
V, H = 5, 3
DATA = torch.tensor([31, 31, 30, 15])  # places of the data among all states


def states() -> torch.Tensor:
    return bits(V)


def machine_of(phase: NegativePhase) -> RBM:
    """Strong couplings, and biases that leave both values of a unit likely: chains are slow."""
    machine = rbm(V, H, negative_phase=phase)
    with torch.no_grad():
        machine.weight.mul_(6)
        machine.visible_bias.sub_(machine.weight.sum(1) / 2)
        machine.hidden_bias.sub_(machine.weight.sum(0) / 2)
    return machine


def transitions(machine: RBM) -> torch.Tensor:
    """The probabilities ``(32, 32)`` of the next state given this one."""
    hidden = bits(H)
    joint = -machine.joint_energy(states()[:, None], hidden[None])
    return (joint.softmax(1) @ joint.softmax(0).T).detach()


def gradient(machine: RBM, negative: torch.Tensor) -> torch.Tensor:
    """The mean gradient over the data where the negative phase has a law ``(32,)``."""
    energies = machine.energy(states())
    score = negative @ energies - energies[DATA].mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(score, list(machine.parameters()))])


def relative_bias(machine: RBM, negative: torch.Tensor) -> float:
    exact = gradient(machine, (-machine.energy(states())).softmax(0).detach())
    return float((gradient(machine, negative) - exact).norm() / exact.norm())


def after(machine: RBM, start: torch.Tensor, num_steps: int) -> torch.Tensor:
    return start @ torch.matrix_power(transitions(machine), num_steps)


def drawn(machine: RBM, repeats: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean gradient of `log_prob` over the data, and its standard error."""
    data = states()[DATA].repeat(250, 1)
    found = []
    for _ in range(repeats):
        grads = torch.autograd.grad(machine.log_prob(data).mean(), list(machine.parameters()))
        found.append(torch.cat([g.flatten() for g in grads]))
    draws = torch.stack(found)
    return draws.mean(0), draws.std(0) / repeats**0.5


@pytest.mark.parametrize("num_steps", [1, 3])
def test_cd_has_its_own_expectation_and_that_is_not_the_gradient(num_steps: int) -> None:
    machine = machine_of(ContrastiveDivergence(num_steps))
    of_data = torch.bincount(DATA, minlength=2**V) / len(DATA)
    mean, error = drawn(machine, 60)
    expected = gradient(machine, after(machine, of_data, num_steps))
    assert ((mean - expected).abs() / error).max() < 4.5
    exact = gradient(machine, (-machine.energy(states())).softmax(0).detach())
    assert ((mean - exact).abs() / error).max() > 8


def test_the_bias_of_cd_shrinks_with_its_steps() -> None:
    machine = machine_of(ContrastiveDivergence(1))
    of_data = torch.bincount(DATA, minlength=2**V) / len(DATA)
    steps = (1, 2, 5, 10, 40)
    biases = [relative_bias(machine, after(machine, of_data, k)) for k in steps]
    print("relative bias of CD-k", dict(zip(steps, biases, strict=True)))
    assert biases == sorted(biases, reverse=True)
    assert biases[0] > 0.3 and biases[-1] < 1e-3


def test_the_bias_of_persistent_chains_vanishes() -> None:
    """They take one step for each gradient, as CD-1 does, and go on."""
    machine = machine_of(PersistentChains(20_000, 1))
    start = torch.zeros(2**V)
    start[0] = 1.0
    machine.negative_phase.chains.zero_()
    places = (1, 3, 10, 40)
    biases, exact = {}, gradient(machine, (-machine.energy(states())).softmax(0).detach())
    for count in range(1, max(places) + 1):
        data = states()[DATA]
        score = machine.log_prob(data).mean()
        found = torch.cat(
            [g.flatten() for g in torch.autograd.grad(score, list(machine.parameters()))]
        )
        if count in places:
            biases[count] = float((found - exact).norm() / exact.norm())
            law = after(machine, start, count)
            spread = 4.5 * (gradient_variance(machine, law) / 20_000).sqrt()
            assert ((found - gradient(machine, law)).abs() < spread + 1e-12).all()
    print("relative error of gradients of persistent chains", biases)
    assert biases[1] > 0.3
    # What is left is the noise of 20,000 chains.
    stationary = (-machine.energy(states())).softmax(0).detach()
    noise = (gradient_variance(machine, stationary).sum() / 20_000).sqrt() / exact.norm()
    assert biases[40] < 3 * noise


def gradient_variance(machine: RBM, law: torch.Tensor) -> torch.Tensor:
    """The variance of one draw's gradient of the energy, by parameter."""
    each = []
    for energy in machine.energy(states()):
        grads = torch.autograd.grad(energy, list(machine.parameters()), retain_graph=True)
        each.append(torch.cat([g.flatten() for g in grads]))
    gradients = torch.stack(each)
    return law @ gradients.square() - (law @ gradients).square()
