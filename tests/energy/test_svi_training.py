# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Machines that learn through plain SVI, and what else Pyro does with them."""

import copy
import io
import math
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

from pyro_deepgen.energy.boltzmann_machine import BoltzmannMachine
from pyro_deepgen.energy.negative_phase import PersistentChains
from pyro_deepgen.energy.rbm import RBM
from pyro_deepgen.infer import CompiledSVI
from tests.energy.rows_boltzmann import bits


def bars_and_stripes() -> torch.Tensor:
    """The 14 pictures ``(14, 9)`` of 3 x 3 pixels whose rows, or columns, are of one colour."""
    rows = bits(3)[:, :, None].expand(8, 3, 3)
    return torch.cat([rows.flatten(1), rows.mT.flatten(1)]).unique(dim=0)


def learned_log_prob(machine: Any, num_steps: int, first_rate: float) -> float:
    """Mean log-probability of bars and stripes after training by SVI, with a falling rate."""
    x = bars_and_stripes()

    def model(x: torch.Tensor) -> None:
        pyro.module("machine", machine)
        with pyro.plate("data", len(x)):
            pyro.sample("v", machine, obs=x)

    decay = (0.001 / first_rate) ** (1 / num_steps)
    optim = pyro.optim.ClippedAdam({"lr": first_rate, "lrd": decay, "clip_norm": 1e9})
    svi = SVI(model, lambda x: None, optim, Trace_ELBO())
    for _ in range(num_steps):
        svi.step(x)
    with torch.no_grad():
        return float(machine.eval().log_prob(x).mean())


@pytest.mark.slow
def test_an_rbm_learns_bars_and_stripes() -> None:
    machine = RBM(
        9, 12, weight_scale=0.1, centred=True, negative_phase=PersistentChains(500, num_steps=20)
    )
    assert abs(learned_log_prob(machine, 2000, 0.05) + math.log(14)) < 0.05


@pytest.mark.slow
def test_a_boltzmann_machine_learns_bars_and_stripes() -> None:
    """All its units are coupled, also visible ones among each other, and hidden ones."""
    machine = BoltzmannMachine(
        9,
        6,
        weight_scale=0.1,
        positive_steps=3,
        centred=True,
        negative_phase=PersistentChains(500, num_steps=4),
    )
    assert abs(learned_log_prob(machine, 2000, 0.05) + math.log(14)) < 0.05


# ---------------------------------------------------------------- modes


def model_of(machine: Any) -> Any:
    def model(x: torch.Tensor) -> None:
        pyro.module("machine", machine)
        with pyro.plate("data", len(x)):
            pyro.sample("v", machine, obs=x)

    return model


def test_only_training_moves_the_chains() -> None:
    machine = RBM(4, 3, weight_scale=1.0)
    x = torch.bernoulli(torch.full((20, 4), 0.5))
    svi = SVI(model_of(machine), lambda x: None, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    svi.step(x)
    chains = machine.negative_phase.chains.clone()
    svi.evaluate_loss(x)
    with torch.no_grad():
        machine.log_prob(x)
    machine.eval().log_prob(x)
    assert torch.equal(chains, machine.negative_phase.chains)
    svi.step(x)  # in evaluation mode, with the exact gradient
    assert torch.equal(chains, machine.negative_phase.chains)
    machine.train()
    svi.step(x)
    assert not torch.equal(chains, machine.negative_phase.chains)


def test_the_value_in_training_is_normalised_by_the_last_estimate() -> None:
    machine = RBM(4, 3, weight_scale=1.0)
    x = bits(4)
    torch.testing.assert_close(machine.log_prob(x), -machine.energy(x))
    machine.estimate_log_partition()
    assert machine.log_prob(x).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_a_frozen_machine_has_no_negative_phase() -> None:
    machine = RBM(4, 3).requires_grad_(False)
    chains = machine.negative_phase.chains.clone()
    torch.testing.assert_close(machine.log_prob(bits(4)), -machine.energy(bits(4)))
    assert torch.equal(chains, machine.negative_phase.chains)


def test_copies_and_state_dicts() -> None:
    machine = RBM(4, 3, weight_scale=1.0)
    machine.log_prob(bits(4)).sum().backward()
    machine.estimate_log_partition()
    other = copy.deepcopy(machine)
    wide = other.expand((2, 3))
    assert wide.weight is other.weight and wide.sample((5,)).shape == (5, 2, 3, 4)
    other.log_prob(bits(4))
    assert not torch.equal(other.negative_phase.chains, machine.negative_phase.chains)
    file = io.BytesIO()
    torch.save(machine.state_dict(), file)
    file.seek(0)
    fresh = RBM(4, 3)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(fresh.eval().log_prob(bits(4)), machine.eval().log_prob(bits(4)))
    for name, tensor in machine.state_dict().items():
        assert torch.equal(fresh.state_dict()[name].nan_to_num(), tensor.nan_to_num()), name


def test_other_devices_and_precisions(device: torch.device) -> None:
    for machine in (RBM(4, 3), BoltzmannMachine(3, 2)):
        machine = machine.double().to(device)
        x = machine.sample((5,))
        assert x.dtype == torch.float64 and x.device.type == device.type
        machine.log_prob(x).sum().backward()
        assert next(machine.parameters()).grad is not None
        assert machine.eval().log_prob(x).dtype == torch.float64


@pytest.mark.parametrize("make", [lambda: RBM(4, 3), lambda: BoltzmannMachine(4, 2)])
def test_recorded_steps_move_chains_and_learn(make: Any) -> None:
    """One graph holds the Gibbs steps; the chains go on in it, and the data become likely."""
    machine = make()
    x = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).expand(20, 4)
    optim = pyro.optim.Adam({"lr": 0.1})
    svi = CompiledSVI(model_of(machine), lambda x: None, optim, Trace_ELBO(), backend=None)
    seen = []
    for _ in range(30):
        svi.step(x)
        seen.append(machine.negative_phase.chains.clone())
    assert not torch.equal(seen[-1], seen[-2])
    assert machine.eval().log_prob(x[0]) > math.log(0.25)
    assert (seen[-1][:, :4] - x[0]).abs().mean() < 0.4
