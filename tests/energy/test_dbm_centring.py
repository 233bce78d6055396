# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Centred units change the gradient of a deep Boltzmann machine, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pyro_deepgen.energy import RBM, BoltzmannMachine
from pyro_deepgen.energy.deep_boltzmann_machine import DeepBoltzmannMachine
from pyro_deepgen.energy.mean_field import MeanField
from pyro_deepgen.energy.units import GaussianUnits, SoftmaxUnits
from tests.energy.rows_deep import deep

pytestmark = pytest.mark.usefixtures("float64")

Values = dict[str, torch.Tensor]


def plain_of(machine: DeepBoltzmannMachine, centred: Values) -> Values:
    """The plain parameters of an energy that is written in units less their offsets."""
    plain = dict(centred)
    for level in range(machine.num_layers):
        bias = centred[f"bias{level}"]
        if level:
            bias = bias - getattr(machine, f"offset{level - 1}") @ centred[f"weight{level}"]
        if level + 1 < machine.num_layers:
            bias = bias - centred[f"weight{level + 1}"] @ getattr(machine, f"offset{level + 1}")
        plain[f"bias{level}"] = bias
    return plain


def enhanced(machine: DeepBoltzmannMachine, gradient: Values) -> Values:
    """What a step along the gradient in centred parameters changes in the plain ones."""
    like = {name: torch.zeros_like(g) for name, g in gradient.items()}
    _, pull = torch.func.vjp(lambda centred: plain_of(machine, centred), like)
    (of_centred,) = pull(gradient)
    _, pushed = torch.func.jvp(lambda centred: plain_of(machine, centred), (like,), (of_centred,))
    return pushed


def gradient_of(machine: DeepBoltzmannMachine, x: torch.Tensor, draws: torch.Tensor) -> Values:
    """The gradient of learning with given draws of the negative phase."""
    machine.negative_phase.forward = lambda machine, state: draws  # type: ignore[method-assign]
    own = {n: p for n, p in machine.named_parameters() if not n.startswith("visible")}
    torch.manual_seed(0)  # of hidden units that are drawn given the data
    found = torch.autograd.grad(machine.log_prob(x).sum(), list(own.values()))
    return dict(zip(own, found, strict=True))


def pair(
    visible: Any, hidden: tuple[int, ...], options: dict[str, Any]
) -> tuple[DeepBoltzmannMachine, DeepBoltzmannMachine]:
    """A machine of centred units with offsets of some values, and a plain one, the same else."""
    machine = deep(visible, hidden, centred=True, offset_rate=0.3, **options)
    plain = deep(visible, hidden, **options)
    machine.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        for level in range(machine.num_layers):
            machine.get_buffer(f"offset{level}").uniform_()
    return machine, plain


CASES: list[tuple[Any, tuple[int, ...], dict[str, Any]]] = [
    (4, (3,), {}),
    (4, (3, 2), {"mean_field": MeanField(50)}),
    (3, (2, 3, 2), {"temperature": 1.5}),
    (4, (3, 2), {"clamped_steps": 3}),
    (lambda: GaussianUnits(4), (3, 2), {}),
    (lambda: SoftmaxUnits(2, 3), (3, 2), {}),
]


@pytest.mark.parametrize(("visible", "hidden", "options"), CASES)
def test_the_gradient_is_that_of_the_energy_in_units_less_their_offsets(
    visible: Any, hidden: tuple[int, ...], options: dict[str, Any]
) -> None:
    machine, plain = pair(visible, hidden, options)
    with torch.no_grad():
        x, draws = plain.sample((6,)), plain.sample_all((10,))
    found, given = gradient_of(machine, x, draws), gradient_of(plain, x, draws)
    expected = enhanced(machine, given)
    assert not torch.allclose(found["weight1"], given["weight1"])
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name])
    # Downhill in the plain parameters too.
    assert sum(float((value * given[name]).sum()) for name, value in found.items()) > 0


@pytest.mark.parametrize(("visible", "hidden", "options"), CASES)
def test_energies_normaliser_and_fixed_point_are_the_same(
    visible: Any, hidden: tuple[int, ...], options: dict[str, Any]
) -> None:
    machine, plain = pair(visible, hidden, options)
    with torch.no_grad():
        x = plain.sample((6,))
        assert torch.equal(machine.log_partition(), plain.log_partition())
        assert torch.equal(machine.energy(x), plain.energy(x))
        layers = plain.sample_layers((6,))
        assert torch.equal(machine.energy(*layers), plain.energy(*layers))
        for ours, theirs in zip(machine.infer(x), plain.infer(x), strict=True):
            assert torch.equal(ours, theirs)
    if not machine.clamped_steps:
        torch.testing.assert_close(machine.log_prob(x), plain.log_prob(x))
    # Where the plain gradient is 0, so is the other one.
    own = [p for n, p in machine.named_parameters() if not n.startswith("visible")]
    difference = machine.learning.energy(*layers) - plain.energy(*layers).detach()
    nothing = torch.autograd.grad((0.0 * difference).sum(), own)
    assert all(bool((value == 0).all()) for value in nothing)


@pytest.mark.parametrize("kind", [BoltzmannMachine, RBM, DeepBoltzmannMachine])
def test_an_offset_rate_is_a_share(kind: Any) -> None:
    with pytest.raises(ValueError, match="offset_rate from 0 to 1, got 5"):
        kind(3, (2,) if kind is DeepBoltzmannMachine else 2, centred=True, offset_rate=5.0)


def test_offsets_follow_the_data_and_the_hidden_units_given_them() -> None:
    machine = deep(4, (3, 2), centred=True, offset_rate=1.0)
    assert bool((machine.get_buffer("offset1") == 0.5).all())
    x = torch.bernoulli(torch.full((50, 4), 0.3))
    machine.log_prob(x)
    for level, values in enumerate([x, *machine.infer(x)]):
        torch.testing.assert_close(machine.get_buffer(f"offset{level}"), values.mean(0))
    before = machine.get_buffer("offset0").clone()
    with torch.no_grad():  # nothing moves without gradients, nor in evaluation
        machine.log_prob(1 - x)
    machine.eval().log_prob(1 - x)
    assert torch.equal(machine.get_buffer("offset0"), before)


def test_the_gradient_does_not_depend_on_what_is_called_1() -> None:
    """A machine with the visible and the last hidden units turned round takes the same step."""
    machine = deep(4, (3, 2), centred=True, mean_field=MeanField(200))
    turned = deep(4, (3, 2), centred=True, mean_field=MeanField(200))
    for each in (machine, turned):
        each.offset_rate = 0.0
    with torch.no_grad():
        machine.get_buffer("offset0").uniform_()
        turned.load_state_dict(machine.state_dict())
        for level in (0, 2):
            weight = machine.get_parameter("weight1" if level == 0 else "weight2")
            added = weight.sum(0) if level == 0 else weight.sum(1)
            turned.get_parameter("bias1").add_(added)
            turned.get_parameter(f"bias{level}").neg_()
            turned.get_buffer(f"offset{level}").copy_(1 - machine.get_buffer(f"offset{level}"))
            turned.get_parameter("weight1" if level == 0 else "weight2").neg_()
        x, draws = machine.sample((6,)), machine.sample_all((10,))
    other = draws.clone()
    other[:, :4], other[:, 7:] = 1 - other[:, :4], 1 - other[:, 7:]
    ours, theirs = gradient_of(machine, x, draws), gradient_of(turned, 1 - x, other)
    for name in ("weight1", "weight2", "bias0", "bias2"):
        torch.testing.assert_close(ours[name], -theirs[name])
