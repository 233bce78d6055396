# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Where the draws of the negative phase come from."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pyro_deepgen.energy.negative_phase import ContrastiveDivergence, PersistentChains
from pyro_deepgen.energy.negative_phase_fast_weights import FastWeights
from pyro_deepgen.energy.negative_phase_tempered import TemperedChains
from pyro_deepgen.energy.neural_energy import NeuralEnergy
from pyro_deepgen.energy.rbm import RBM
from pyro_deepgen.energy.replay_buffer import ReplayBuffer
from tests.energy.rows_boltzmann import Wavy, bits, boltzmann, rbm
from tests.energy.rows_convolutional import small_dbm, small_rbm
from tests.energy.rows_deep import deep
from tests.energy.statistics import follows


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ContrastiveDivergence(0), "1 step"),
        (lambda: PersistentChains(0), "1 chain"),
        (lambda: FastWeights(rate=0.0), "positive rate"),
        (lambda: FastWeights(decay=1.0), "decay"),
        (lambda: TemperedChains(5, 1), "2 temperatures"),
        (lambda: ReplayBuffer(20, size=10), "from 1 to 10"),
        (lambda: NeuralEnergy(Wavy(), 2, negative_phase=FastWeights()), "in networks"),
    ],
)
def test_errors_tell_the_way_out(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def two_modes(phase: Any) -> RBM:
    """All units equal: two modes that single chains do not leave."""
    machine = RBM(6, 1, negative_phase=phase)
    with torch.no_grad():
        machine.weight.fill_(8.0)
        machine.visible_bias.fill_(-4.0)
        machine.hidden_bias.fill_(-24.5)
    return machine


def test_tempered_chains_cross_between_modes_and_single_ones_do_not(float64: torch.dtype) -> None:
    tempered, single = two_modes(TemperedChains(4000, 10)), two_modes(PersistentChains(4000))
    for machine in (tempered, single):
        machine.negative_phase.chains.zero_()  # all in one mode
        for _ in range(60):
            draws = machine.negative_phase(machine, bits(6))
        probs = (-machine.energy(bits(6))).softmax(0)
        assert follows(draws, bits(6), probs, True) == (machine is tempered)
    swaps = tempered.negative_phase.swap_probs
    assert swaps.min() > 0.05 and swaps.max() <= 1


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_swap_with_the_wrong_sign_is_found(sign: float, float64: torch.dtype) -> None:
    machine = two_modes(TemperedChains(4000, 10))
    phase = machine.negative_phase
    for i, beta in enumerate(phase.betas):  # exact draws at each temperature stay exact
        probs = (-machine.bridge(beta).energy(bits(6))).softmax(0)
        phase.chains[i] = bits(6)[torch.multinomial(probs, 4000, replacement=True)]

    def bridge(beta: torch.Tensor) -> Any:
        at = machine.bridge(beta)
        return SimpleNamespace(transition=at.transition, energy=lambda x: sign * at.energy(x))

    planted: Any = SimpleNamespace(bridge=bridge)
    for _ in range(3):
        draws = phase(planted, bits(6))
    probs = (-machine.energy(bits(6))).softmax(0)
    assert follows(draws, bits(6), probs, True) == (sign > 0)


def test_fast_weights_drive_chains_out_of_a_mode(float64: torch.dtype) -> None:
    """Data in both modes, chains in one: the overlay lowers the energy of the other."""
    fast, single = two_modes(FastWeights(200, rate=0.5)), two_modes(PersistentChains(200))
    data = torch.stack([torch.zeros(6), torch.ones(6)])
    there = []
    for machine in (fast, single):
        machine.negative_phase.chains.zero_()
        seen = [machine.negative_phase(machine, data).mean(-1).round() for _ in range(100)]
        there.append(torch.stack(seen).mean())
    assert there[0] > 0.2 and there[1] < 0.02


def test_fast_weights_follow_the_equation(float64: torch.dtype) -> None:
    machine = rbm(3, 2, negative_phase=FastWeights(50, rate=0.1, decay=0.9))
    phase, data = machine.negative_phase, torch.bernoulli(torch.full((8, 3), 0.5))
    expected = torch.zeros(3)
    for _ in range(3):
        draws = phase(machine, data)
        expected = 0.9 * expected + 0.1 * (data.mean(0) - draws.mean(0))
    torch.testing.assert_close(phase.fast_visible_bias, expected)
    # The overlay is in no density and in no gradient of the machine.
    assert all("fast" not in name for name, _ in machine.named_parameters())


MACHINES = {
    "boltzmann": lambda: boltzmann(3, 2),
    "deep": lambda: deep(3, (2, 2)),
    "convolutional": small_rbm,
    "deep convolutional": small_dbm,
}
PHASES = {
    "fast": lambda: FastWeights(20, 2),
    "tempered": lambda: TemperedChains(20, 3),
    "replay": lambda: ReplayBuffer(20, size=30),
    "contrastive": lambda: ContrastiveDivergence(2),
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("make", MACHINES)
def test_machines_of_several_layers_learn_by_every_negative_phase(make: str, phase: str) -> None:
    machine = MACHINES[make]()
    machine.negative_phase = PHASES[phase]()
    machine.ready()
    data = machine.sample((20,))
    machine.log_prob(data).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in machine.parameters())
    units = machine.all_units
    draws = machine.negative_phase(units, machine.complete(data))
    assert draws.shape == (20, *units.event_shape)


def test_fast_weights_of_a_deep_machine_follow_its_own_gradient(float64: torch.dtype) -> None:
    machine = deep(3, (2, 2), negative_phase=FastWeights(50, rate=0.1, decay=0.9))
    phase, data = machine.negative_phase, torch.bernoulli(torch.full((8, 3), 0.5))
    state, expected = machine.complete(data), torch.zeros(3)
    for _ in range(3):
        draws = phase(machine.all_units, state)
        expected = 0.9 * expected + 0.1 * (data.mean(0) - draws[:, :3].mean(0))
    torch.testing.assert_close(phase.fast_bias0, expected)


def test_a_replay_buffer_goes_on_and_begins_anew() -> None:
    stuck = rbm(4, 3, negative_phase=ReplayBuffer(10, 1, size=10, refresh=0.0))
    stuck.transition = lambda x, *rest: x + 1  # counts the moves of each
    stuck.negative_phase.kept.zero_()
    for _ in range(3):
        stuck.negative_phase(stuck, bits(4))
    assert bool((stuck.negative_phase.kept == 3).all())
    stuck.negative_phase.refresh = 1.0
    stuck.negative_phase(stuck, bits(4))
    assert stuck.negative_phase.kept.max() <= 2
