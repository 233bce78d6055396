# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Exact sums over states: made once for the same parameters; and all that they say."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from pyro_deepgen.energy.rbm import RBM
from pyro_deepgen.energy.units import SoftmaxUnits
from pyro_deepgen.tracing import trace
from tests.energy.energy_row import EnergyRow
from tests.energy.rows_boltzmann import bits, boltzmann, rbm
from tests.energy.rows_convolutional import small_dbm
from tests.energy.rows_deep import deep
from tests.energy.table import ENERGIES

SMALL: list[Callable[..., Any]] = [
    lambda **options: rbm(4, 3, **options),
    lambda **options: boltzmann(3, 2, **options),
    lambda **options: deep(3, (2, 2), **options),
    small_dbm,
]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[type]]:
    """The machines whose sums are made while a test runs."""
    made: list[type] = []
    for cls in {type(make()) for make in SMALL}:
        original = cls.exact_log_partition

        def count(self: Any, original: Any = original) -> torch.Tensor:
            made.append(type(self))
            return original(self)

        monkeypatch.setattr(cls, "exact_log_partition", count)
    yield made


@pytest.mark.parametrize("make", SMALL)
def test_a_sum_is_made_once_for_the_same_parameters(
    make: Callable[..., Any], counted: list[type]
) -> None:
    machine = make().eval()
    x = machine.visible_part(machine.all_units.exact_sample(4))
    with torch.no_grad():
        first = machine.log_prob(x)
        torch.testing.assert_close(machine.expand((4,)).log_prob(x), first)
        machine.log_prob(x)
        assert len(counted) == 1  # also for views, as plates make them
        other = copy.deepcopy(machine)
        list(machine.parameters())[-1][0].add_(0.5)
        second = machine.log_prob(x)
        assert len(counted) == 2 and not torch.allclose(first, second)
        torch.testing.assert_close(second, make_like(make, machine).log_prob(x))
        torch.testing.assert_close(other.log_prob(x), first)
        machine.double()
        assert machine.log_prob(x.double()).dtype == torch.float64


def make_like(make: Callable[..., Any], machine: Any) -> Any:
    fresh = make().eval()
    fresh.load_state_dict(machine.state_dict())
    return fresh


def test_a_gradient_and_other_parameters_have_a_sum_of_their_own(counted: list[type]) -> None:
    machine = rbm(4, 3).eval()
    x = bits(4)
    with torch.no_grad():
        machine.log_prob(x)
    before = len(counted)
    machine.log_prob(x).sum().backward()
    assert len(counted) == before + 1 and machine.weight.grad is not None
    machine.requires_grad_(False)
    machine.log_prob(x)
    assert len(counted) == before + 1  # nothing that needs one
    bias = torch.zeros(4)
    found = machine.with_parameters(visible_bias=bias).log_prob(x)
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert not torch.allclose(found, machine.log_prob(x))
    given = rbm(4, 3, context_dim=2).eval().requires_grad_(False)
    contexts = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    totals = [given.condition(c).log_prob(x).exp().sum().item() for c in contexts]
    assert totals == pytest.approx([1, 1], abs=1e-5)


def test_a_recording_has_the_sum_in_it() -> None:
    machine = rbm(4, 3).eval().requires_grad_(False)
    x = bits(4)
    machine.log_prob(x)
    graph = trace(lambda x: [machine.log_prob(x)], [x])
    machine.weight.mul_(2)
    torch.testing.assert_close(graph(x)[0], machine.log_prob(x))


# ---------------------------------------------------------------- conditionals and marginals


@pytest.mark.usefixtures("float64")
def test_conditionals_of_both_layers_of_8_by_5_units() -> None:
    machine = rbm(8, 5, temperature=1.4)
    v, h = bits(8), bits(5)
    joint = -machine.joint_energy(v[:, None], h[None])
    given_v = machine.hidden.mean(machine.hidden_field(v))
    torch.testing.assert_close(joint.softmax(1) @ h, given_v)
    given_h = machine.visible.mean(machine.visible_field(h))
    torch.testing.assert_close(joint.softmax(0).T @ v, given_h)


@pytest.mark.usefixtures("float64")
def test_every_conditional_of_a_general_machine() -> None:
    """Where a unit is drawn, its law is that of the joint energy given all others."""
    machine = boltzmann(4, 2, temperature=1.3)
    states = bits(6)
    scores = -machine.all_units.energy(states)
    table = scores.reshape([2] * 6)
    drawn = torch.stack([machine._sweep(states, 1, known, True) for known in all_but_one(6)])
    for unit in range(6):
        on = table.movedim(unit, 0).log_softmax(0)[1].exp()
        exact = on.expand(2, *on.shape).movedim(0, unit).flatten()
        torch.testing.assert_close(drawn[unit, :, unit], exact)


def all_but_one(size: int) -> list[torch.Tensor]:
    return [~torch.eye(size, dtype=torch.bool)[unit] for unit in range(size)]


FINITE = [row for row in ENERGIES if row.finite]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("row", FINITE, ids=[row.name for row in FINITE])
def test_all_marginals(row: EnergyRow) -> None:
    """The probabilities of all single units and of all pairs, by log_prob and by the reference."""
    machine = row.make().eval()
    values = row.values(machine)
    flat = values.flatten(1)
    found, exact = machine.log_prob(values).exp(), row.probabilities(machine)
    torch.testing.assert_close(found @ flat, exact @ flat)
    for i, j in itertools.combinations(range(flat.shape[1]), 2):
        pair = flat[:, i] * flat[:, j]
        torch.testing.assert_close(found @ pair, exact @ pair)


# ---------------------------------------------------------------- supports


def test_groups_of_units_are_one_hot_or_refused() -> None:
    machine = RBM(SoftmaxUnits(2, 3), 2, validate_args=True)
    x = torch.tensor([[0.0, 1, 0, 0, 0, 1]])
    assert machine.log_prob(x).shape == (1,)
    for wrong in ([[0.0, 1, 1, 0, 0, 1]], [[0.0, 0, 0, 0, 0, 1]], [[0.5, 0.5, 0, 0, 0, 1]]):
        with pytest.raises(ValueError, match="support"):
            machine.log_prob(torch.tensor(wrong))
