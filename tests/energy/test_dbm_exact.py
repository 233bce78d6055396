# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Deep Boltzmann machines against sums over all their states."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from pyro_deepgen.energy.deep_boltzmann_machine import DeepBoltzmannMachine
from pyro_deepgen.energy.log_partition import UnknownPartitionError
from pyro_deepgen.energy.mean_field import MeanField
from pyro_deepgen.energy.units import GaussianUnits, SoftmaxUnits, Units

pytestmark = pytest.mark.usefixtures("float64")

SHAPES = [(3,), (3, 2), (2, 3, 2), (2, 2, 2, 2)]


def machine_of(
    hidden: Sequence[int] = (3, 2), visible: int | Units = 4, scale: float = 0.8, **settings: Any
) -> DeepBoltzmannMachine:
    machine = DeepBoltzmannMachine(visible, hidden, **settings)
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return machine


def binary_states(size: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=size)))


def written_out_energy(machine: DeepBoltzmannMachine, layers: Sequence[torch.Tensor]) -> Any:
    """The energy of one state, unit by unit and pair by pair."""
    energy = torch.zeros(())
    for level, layer in enumerate(layers):
        bias = getattr(machine, f"bias{level}")
        for i, unit in enumerate(layer):
            energy = energy - bias[i] * unit
            if level:
                weight = getattr(machine, f"weight{level}")
                for j, other in enumerate(layers[level - 1]):
                    energy = energy - other * weight[j, i] * unit
    return energy / machine.temperature


def joint(machine: DeepBoltzmannMachine) -> tuple[torch.Tensor, torch.Tensor]:
    """All states of all units, and their energies."""
    states = binary_states(sum(machine.sizes))
    energies = [written_out_energy(machine, s.split(machine.sizes)) for s in states]
    return states, torch.stack(energies)


def log_density(machine: DeepBoltzmannMachine) -> torch.Tensor:
    """The logarithms ``(2 ** V,)`` of the exact probabilities, with gradients."""
    states = binary_states(sum(machine.sizes))
    scores = -machine.all_units.energy(states)
    return scores.reshape(2 ** machine.sizes[0], -1).logsumexp(-1) - scores.logsumexp(0)


@pytest.mark.parametrize("hidden", SHAPES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_energy_normaliser_density_and_marginals(
    hidden: tuple[int, ...], temperature: float
) -> None:
    machine = machine_of(hidden, visible=3, temperature=temperature).eval()
    with torch.no_grad():
        states, energies = joint(machine)
        layers = machine.all_units.split(states)
        torch.testing.assert_close(machine.energy(*layers), energies, rtol=0, atol=1e-12)
        log_z = (-energies).logsumexp(0)
        assert abs(machine.log_partition() - log_z) < 1e-10
        by_visible = (-energies).reshape(8, -1).logsumexp(-1)
        visible = binary_states(3)
        torch.testing.assert_close(-machine.energy(visible), by_visible, rtol=0, atol=1e-10)
        log_probs = machine.log_prob(visible)
        torch.testing.assert_close(log_probs, by_visible - log_z, rtol=0, atol=1e-10)
        # The odd layers alone have the same normaliser.
        odd = machine.odd_layers
        total = (-odd.energy(binary_states(sum(hidden[::2])))).logsumexp(0)
        assert abs(total - log_z) < 1e-10


@pytest.mark.parametrize("hidden", SHAPES)
def test_every_conditional(hidden: tuple[int, ...]) -> None:
    machine = machine_of(hidden, visible=3, temperature=1.5)
    with torch.no_grad():
        _, energies = joint(machine)
        table = energies.reshape([2] * sum(machine.sizes))
        units = machine.all_units
        state = (torch.rand(sum(machine.sizes)) < 0.5).to(torch.float64)
        layers = units.split(state)
        start = 0
        for level, size in enumerate(machine.sizes):
            for unit in range(start, start + size):
                here = [int(v) for v in state]
                here[unit] = 1
                on = table[tuple(here)]
                here[unit] = 0
                exact = (table[tuple(here)] - on).sigmoid()
                mean = machine.mean_of(level, machine.field_in(level, layers))[unit - start]
                assert abs(mean - exact) < 1e-12
            start += size


def chi_square(draws: torch.Tensor, probs: torch.Tensor) -> float:
    """Standard scores of a chi-square statistic of draws ``(C, n)`` of n binary units."""
    powers = 2 ** torch.arange(draws.shape[-1] - 1, -1, -1)
    counts = torch.bincount((draws @ powers.to(draws.dtype)).long(), minlength=len(probs))
    expected = probs * len(draws)
    order = expected.argsort()
    # States too rare to count are counted together.
    rare = order[expected[order].cumsum(0) < 20]
    keep = torch.ones(len(probs), dtype=torch.bool)
    keep[rare] = False
    observed = torch.cat([counts[keep].to(probs), counts[rare].sum().to(probs)[None]])
    expected = torch.cat([expected[keep], expected[rare].sum().clamp_min(1e-9)[None]])
    statistic = ((observed - expected) ** 2 / expected)[expected > 5].sum()
    degrees = int((expected > 5).sum()) - 1
    return float((statistic - degrees) / math.sqrt(2 * degrees))


@pytest.mark.parametrize("hidden", [(3,), (3, 2), (2, 3, 2)])
def test_exact_draws_and_the_chain_leave_the_law_of_all_layers(hidden: tuple[int, ...]) -> None:
    machine = machine_of(hidden, visible=3, scale=1.2)
    with torch.no_grad():
        _, energies = joint(machine)
        probs = (-energies).softmax(0)
        draws = machine.sample_all((10_000,))
        assert chi_square(draws, probs) < 4
        assert chi_square(machine.all_units.transition(draws, 2), probs) < 4
        odd = machine.odd_layers
        of_odd = (-odd.energy(binary_states(sum(hidden[::2])))).softmax(0)
        assert chi_square(odd.transition(odd.join(machine.all_units.split(draws)), 2), of_odd) < 4
        # Given visible units alone, hidden ones are drawn from their law too.
        completed = machine.complete(draws[:, :3])
        assert chi_square(completed, probs) < 4
        assert chi_square(machine.transition(draws[:, :3]), log_density(machine).exp()) < 4
        # All layers at once, each given the others as they were, is another law.
        layers = machine.all_units.split(draws)
        for _ in range(3):
            layers = [machine.draw(i, machine.field_in(i, layers)) for i in range(len(layers))]
        assert chi_square(torch.cat(layers, -1), probs) > 4


def test_impute_draws_from_the_conditional() -> None:
    machine = machine_of((3, 2), visible=3, scale=1.2).eval()
    with torch.no_grad():
        probs = log_density(machine).exp().reshape(2, 4)
        x = torch.tensor([1.0, torch.nan, torch.nan]).expand(10_000, 3)
        drawn = machine.impute(x, torch.tensor([True, False, False]), 30)
        assert bool((drawn[:, 0] == 1).all())
        assert chi_square(drawn[:, 1:], probs[1] / probs[1].sum()) < 4


@pytest.mark.parametrize("visible", [SoftmaxUnits(2, 3), GaussianUnits(2)])
def test_other_visible_units(visible: Units) -> None:
    machine = machine_of((3, 2), visible, 0.6, temperature=1.3).eval()
    with torch.no_grad():
        if isinstance(visible, GaussianUnits):
            line = torch.linspace(-14, 14, 281)
            values, cell = torch.cartesian_prod(line, line), math.log(0.01)
        else:
            values, cell = visible.states(torch.zeros(())), 0.0
        assert abs(machine.log_prob(values).logsumexp(0) + cell) < 1e-6
        draws = machine.sample((10_000,))
        weights = machine.log_prob(values).softmax(0)[:, None]
        mean = (weights * values).sum(0)
        error = ((weights * (values - mean) ** 2).sum(0) / 10_000).sqrt()
        assert bool(((draws.mean(0) - mean).abs() < 4 * error).all())
        moved = machine.all_units.transition(machine.sample_all((10_000,)), 2)
        assert bool(((moved[:, : len(mean)].mean(0) - mean).abs() < 4 * error).all())


def test_context_shifts_the_biases_of_all_layers() -> None:
    machine = machine_of((3, 2), visible=3, context_dim=2).eval()
    context = torch.randn(4, 2)
    given = machine.condition(context)
    with torch.no_grad():
        log_probs = given.log_prob(binary_states(3)[:, None])
        torch.testing.assert_close(log_probs.logsumexp(0), torch.zeros(4), rtol=0, atol=1e-10)
        plain = machine_of((3, 2), visible=3).eval()
        plain.load_state_dict(machine.state_dict(), strict=False)
        moved = machine.offsets(context[1]).split(machine.sizes)
        for level, offset in enumerate(moved):
            getattr(plain, f"bias{level}").add_(offset)
        torch.testing.assert_close(log_probs[:, 1], plain.log_prob(binary_states(3)))
        assert given.sample((7,)).shape == (7, 4, 3)
    machine.train()
    machine.condition(context).log_prob(torch.ones(4, 3)).sum().backward()
    assert all(p.grad is not None for p in machine.parameters())
    with pytest.raises(ValueError, match="condition"):
        machine.log_prob(torch.ones(3))
    assert machine.is_small and not machine.log_prob_is_bound


# ---------------------------------------------------------------- mean field


def test_mean_field_reaches_a_fixed_point_and_never_falls() -> None:
    machine = machine_of((3, 4, 2), scale=1.0)
    x = binary_states(4)
    with torch.no_grad():
        exact = machine.energy(x)
        energies = [
            machine.variational_energy(x, MeanField(n)(machine, x)) for n in (1, 2, 4, 8, 500)
        ]
        for before, after in itertools.pairwise(energies):
            assert bool((after <= before + 1e-12).all())
        assert bool((energies[-1] >= exact - 1e-12).all())
        assert bool((energies[-1] > exact + 1e-3).any())
        means = MeanField(500)(machine, x)
        for level in range(1, 4):
            field = machine.field_in(level, [x, *means])
            torch.testing.assert_close(machine.mean_of(level, field), means[level - 1])
        damped = MeanField(2000, damping=0.7)(machine, x)
        torch.testing.assert_close(
            machine.variational_energy(x, damped), energies[-1], rtol=1e-4, atol=1e-4
        )


def test_mean_field_is_exact_without_hidden_layers_above() -> None:
    machine = machine_of((5,), visible=3)
    with torch.no_grad():
        x = binary_states(3)
        torch.testing.assert_close(machine.variational_energy(x), machine.energy(x))


# ---------------------------------------------------------------- evaluation


def test_a_large_machine_is_estimated_and_gives_a_bound() -> None:
    machine = machine_of((22, 22), visible=22, scale=0.1, mean_field=MeanField(50)).eval()
    x = torch.ones(2, 22)
    assert machine.log_prob_is_bound
    with pytest.raises(UnknownPartitionError, match="estimate_log_partition"):
        machine.log_prob(x)
    machine.estimate_log_partition(100, 50, compile=False)
    with torch.no_grad():
        torch.testing.assert_close(machine.log_prob(x), machine.bound(x))
    machine.bias1.data.add_(1e-3)
    with pytest.raises(UnknownPartitionError, match="changed"):
        machine.log_prob(x)
    assert not machine_of((3, 2)).log_prob_is_bound


@pytest.mark.parametrize("base", [False, True])
def test_annealing_of_the_odd_layers_brackets_the_normaliser(base: bool) -> None:
    machine = machine_of((4, 3, 3), visible=5, scale=1.0).eval()
    with torch.no_grad():
        if base:
            machine.set_base(machine.sample((500,)))
        exact = machine.log_partition()
        result = machine.anneal(
            num_chains=500, num_steps=40, compile=False, reverse_from=machine.sample_all((500,))
        )
        assert abs(result.log_z - exact) < 4 * result.standard_error
        assert result.upper is not None
        assert result.lower < exact + 0.02 and result.upper > exact - 0.02
        # The weights vary less than over all units.
        whole = super(DeepBoltzmannMachine, machine).anneal(
            num_chains=500, num_steps=40, compile=False
        )
        assert abs(whole.log_z - exact) < 4 * whole.standard_error
        assert result.log_weights.var() < whole.log_weights.var()


def test_annealing_starts_from_the_means_of_data_and_of_hidden_units_given_them() -> None:
    machine = machine_of((6, 4), visible=5, scale=1.0).eval()
    with torch.no_grad():
        for level in (1, 2):  # few hidden units are on
            getattr(machine, f"bias{level}").sub_(4.0)
        exact = machine.log_partition()
        settings: dict[str, Any] = {"num_chains": 500, "num_steps": 20, "compile": False}
        fair = machine.anneal(**settings)
        data = machine.sample((500,))
        machine.set_base(data)
        means = torch.cat([x.mean(0) for x in (data, *machine.infer(data))]).clamp(0.02, 0.98)
        drawn = machine.path_start().sample((10_000,)).mean(0)
        error = (means * (1 - means) / 10_000).sqrt()
        assert bool(((drawn - means).abs() < 4 * error).all())
        near = machine.anneal(**settings)
        for result in (fair, near):
            assert abs(result.log_z - exact) < 4 * result.standard_error
        assert near.log_weights.var() < 0.5 * fair.log_weights.var()


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="hidden layer"):
        DeepBoltzmannMachine(3, ())
    with pytest.raises(ValueError, match="hidden layers or none"):
        machine_of((3, 2)).energy(torch.ones(4), torch.ones(3))
    with pytest.raises(ValueError, match="damping"):
        MeanField(damping=1.0)
    with pytest.raises(ValueError, match="step"):
        MeanField(0)
