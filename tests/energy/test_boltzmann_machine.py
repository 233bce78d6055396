# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What only general Boltzmann machines can get wrong."""

from typing import Any

import pytest
import torch

from pyro_deepgen.energy import boltzmann_machine
from pyro_deepgen.energy.boltzmann_machine import BoltzmannMachine
from pyro_deepgen.energy.colouring import colours
from tests.energy.rows_boltzmann import bits, boltzmann, ring
from tests.energy.statistics import follows


def test_learning_is_that_of_the_lecture_notes(float64: torch.dtype) -> None:
    """The gradient for w_ij is <x_i x_j> of the data less that of the model's draws."""
    machine = boltzmann(4)
    data = torch.bernoulli(torch.full((6, 4), 0.5))
    machine.log_prob(data).mean().backward()
    draws = machine.negative_phase.chains
    means = [x.T @ x / len(x) for x in (data, draws)]
    torch.testing.assert_close(machine.weight.grad, (means[0] - means[1]).triu(1))
    torch.testing.assert_close(machine.unit_bias.grad, data.mean(0) - draws.mean(0))


def test_units_of_a_colour_are_not_coupled() -> None:
    couplings = torch.rand(30, 30) < 0.15
    couplings = couplings | couplings.T
    groups = colours(couplings)
    assert sorted(unit for group in groups for unit in group) == list(range(30))
    off = couplings & ~torch.eye(30, dtype=torch.bool)
    for group in groups:
        assert not off[group][:, group].any()
    assert len(groups) <= off.sum(0).max() + 1
    assert len(BoltzmannMachine(6, couplings=ring(6)).colours) == 2
    assert len(BoltzmannMachine(6).colours) == 6


def test_couplings_that_are_not_there_stay_away() -> None:
    machine = boltzmann(6, couplings=ring(6))
    before = machine.energy(bits(6))
    machine.log_prob(bits(6)).sum().backward()
    assert not bool(machine.weight.grad[machine.pairs == 0].any())
    with torch.no_grad():
        machine.weight[0, 3] = 7.0
    torch.testing.assert_close(machine.energy(bits(6)), before)


def test_hidden_units_come_with_the_visible_ones_on_request(float64: torch.dtype) -> None:
    machine = boltzmann(3, 2)
    v, h = machine.sample_joint((20_000,))
    probs = (-machine.energy(bits(5)[:, :3], bits(5)[:, 3:])).softmax(0)
    assert follows(torch.cat([v, h], -1), bits(5), probs, True)


def test_many_hidden_units_give_a_bound_that_says_so(
    monkeypatch: pytest.MonkeyPatch, float64: torch.dtype
) -> None:
    machine = boltzmann(4, 3, positive_steps=30).eval()
    assert not machine.log_prob_is_bound
    exact = machine.log_prob(bits(4))
    monkeypatch.setattr(boltzmann_machine, "MAX_HIDDEN_STATES", 4)
    assert machine.log_prob_is_bound
    gap = exact - machine.log_prob(bits(4))
    assert gap.min() > 0 and gap.max() < 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BoltzmannMachine(0), "1 visible unit"),
        (lambda: BoltzmannMachine(3, -1), "0 hidden ones"),
        (lambda: BoltzmannMachine(3, positive="exact"), "gibbs"),
        (lambda: BoltzmannMachine(3, couplings=ring(4)), "of shape"),
        (lambda: BoltzmannMachine(3, couplings=torch.ones(3, 3).triu() > 0), "symmetric"),
        (lambda: BoltzmannMachine(3, 2).energy(torch.ones(3)), "all 5 units"),
        (lambda: BoltzmannMachine(3, bias=torch.nn.Linear(2, 3)), "context_dim"),
    ],
)
def test_errors_tell_the_way_out(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
