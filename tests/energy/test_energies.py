# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What every energy must do: its density, its draws and its chains, against written-out sums."""

from typing import Any

import pytest
import torch

from pyro_deepgen.energy.log_partition import UnknownPartitionError
from pyro_deepgen.energy.machine import Machine
from tests.energy.energy_row import EnergyRow
from tests.energy.statistics import follows
from tests.energy.table import ENERGIES

pytestmark = pytest.mark.usefixtures("float64")
DRAWS = 12_000


def named(rows: list[EnergyRow]) -> dict[str, Any]:
    return {"argvalues": rows, "ids": [row.name for row in rows]}


every = pytest.mark.parametrize("row", **named(ENERGIES))
finite = pytest.mark.parametrize("row", **named([row for row in ENERGIES if row.finite]))
contexts = pytest.mark.parametrize("row", **named([row for row in ENERGIES if row.has_context]))


@pytest.fixture
def too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine is small enough to enumerate."""
    monkeypatch.setattr(Machine, "is_small", property(lambda machine: False))


def partly_stuck(draws: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Draws of which every tenth is the same value."""
    stuck = torch.rand(len(draws)) < 0.1
    return torch.where(stuck.reshape(-1, *[1] * (draws.dim() - 1)), at, draws)


@every
def test_density(row: EnergyRow) -> None:
    machine = row.make().eval()
    values = row.values(machine)
    torch.testing.assert_close(machine.log_unnormalized(values), row.reference(machine, values))
    if machine.is_small:
        tolerance = 1e-10 if row.finite else 1e-6
        assert (machine.exact_log_partition() - row.log_z(machine)).abs() < tolerance
        total = machine.log_prob(values).logsumexp(0) + (row.log_cell or 0.0)
        assert total.abs() < tolerance


@every
def test_draws_follow_the_density(row: EnergyRow) -> None:
    machine = row.make(sampling_steps=row.chain_steps).eval()
    probs, values = row.probabilities(machine), row.values(machine)
    draws = machine.sample((100, DRAWS // 100)).flatten(0, 1)
    assert follows(draws, values, probs, row.finite)
    assert not follows(partly_stuck(draws, values[0]), values, probs, row.finite)


@every
def test_chains_from_their_start_reach_the_density(row: EnergyRow, too_large: None) -> None:
    machine = row.make(sampling_steps=row.chain_steps).eval()
    probs, values = row.probabilities(machine), row.values(machine)
    assert follows(machine.sample((DRAWS,)), values, probs, row.finite)


@every
def test_a_transition_leaves_the_density_invariant(row: EnergyRow) -> None:
    machine = row.make()
    probs, values = row.probabilities(machine), row.values(machine)
    moved = machine.all_units.transition(row.exact_states(machine, DRAWS), 2)
    assert follows(machine.visible_part(moved), values, probs, row.finite)


@every
def test_chains_of_another_machine_are_noticed(row: EnergyRow) -> None:
    machine, other = row.make(), row.make()
    with torch.no_grad():
        for p in other.parameters():
            p.neg_()
    probs, values = row.probabilities(machine), row.values(machine)
    moved = other.all_units.transition(row.exact_states(machine, DRAWS), row.chain_steps)
    assert not follows(other.visible_part(moved), values, probs, row.finite)


@every
def test_annealing_estimates_log_z(row: EnergyRow, too_large: None) -> None:
    machine = row.make().eval()
    values = row.values(machine)
    with pytest.raises(UnknownPartitionError, match="estimate_log_partition"):
        machine.log_prob(values)
    few = not row.finite  # where steps of the kernel take gradients
    found = machine.estimate_log_partition(200 if few else 400, 40 if few else 60, compile=False)
    exact = row.log_z(machine).detach()
    assert 0 < found.standard_error < 0.2
    assert abs(found.value - exact) < 5 * found.standard_error
    score = row.reference(machine, values) - found.value
    torch.testing.assert_close(machine.log_prob(values), score)

    other = row.make().eval()
    other.load_state_dict(machine.state_dict())
    torch.testing.assert_close(other.log_prob(values), score)
    with torch.no_grad():
        next(iter(other.parameters())).flatten()[0].add_(1e-6)
    with pytest.raises(UnknownPartitionError, match="changed"):
        other.log_prob(values)


@finite
def test_imputation_follows_the_conditional(row: EnergyRow) -> None:
    machine = row.make()
    values, probs = row.values(machine), row.probabilities(machine)
    known = torch.zeros(machine.event_shape, dtype=torch.bool)
    flat = known.flatten()
    flat[: max(1, len(flat) // 2)] = True
    x = values[-1]
    agrees = ((values == x) | ~known).flatten(1).all(1)
    given = torch.where(known, x, torch.nan).expand(DRAWS, *x.shape)
    draws = machine.impute(given, known, num_steps=row.chain_steps)
    conditional = probs[agrees] / probs[agrees].sum()
    assert follows(draws, values[agrees], conditional, True)
    wrong = partly_stuck(draws, values[agrees][0])
    assert not follows(wrong, values[agrees], conditional, True)


@contexts
def test_a_context_gives_each_datum_its_own_machine(row: EnergyRow) -> None:
    machine = row.make(context_dim=2, sampling_steps=row.chain_steps).eval()
    values, context = row.values(machine), torch.tensor([[0.5, -1.0], [-0.3, 0.8]])
    both = machine.condition(context)
    assert both.batch_shape == (2,) and both.sample((3,)).shape == (3, 2, *machine.event_shape)
    exact = torch.stack([row.reference(machine.condition(c), values) for c in context], 1)
    found = both.log_unnormalized(values[:, None].expand(-1, 2, *machine.event_shape))
    torch.testing.assert_close(found, exact)
    assert not torch.allclose(exact[:, 0], exact[:, 1])
    wide = both.expand((4, 2))
    assert wide.sample().shape == (4, 2, *machine.event_shape)
    with pytest.raises(ValueError, match="condition"):
        machine.sample()
    if not machine.is_small:
        with pytest.raises(UnknownPartitionError, match="context"):
            both.estimate_log_partition()
        return
    of_log_z = exact.logsumexp(0) + (row.log_cell or 0.0)
    torch.testing.assert_close(both.exact_log_partition(), of_log_z, atol=1e-6, rtol=0)
    torch.testing.assert_close(both.estimate_log_partition().value, of_log_z, atol=1e-6, rtol=0)
    assert bool(machine.log_partition_values.isnan().all())  # nothing is kept for one context
    draws = both.sample((DRAWS,))
    for i in range(2):
        assert follows(draws[:, i], values, exact[:, i].softmax(0), row.finite)
    draws = wide.sample((DRAWS // 4,))
    assert follows(draws[:, :, 1].flatten(0, 1), values, exact[:, 1].softmax(0), row.finite)
