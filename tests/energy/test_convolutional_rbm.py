# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Convolutional machines of one layer: fields, borders, conditionals, sizes, and learning."""

import copy
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam

from pyro_deepgen.energy.convolutional_rbm import ConvolutionalRBM
from pyro_deepgen.energy.log_partition import UnknownPartitionError
from pyro_deepgen.energy.negative_phase import ContrastiveDivergence, PersistentChains
from pyro_deepgen.energy.pooling import ProbabilisticMaxPooling
from pyro_deepgen.energy.units import BinaryUnits, GaussianUnits, SoftmaxUnits
from tests.energy.rows_convolutional import (
    binary_images,
    fields_above,
    hidden_states,
    padded_rbm,
    randomized,
    reference,
    small_rbm,
)
from tests.energy.statistics import FAILURE_RATE, counts_of, p_value

pytestmark = pytest.mark.usefixtures("float64")


def rbm(shape: tuple[int, int, int], filters: int, side: int, **settings: Any) -> ConvolutionalRBM:
    return randomized(ConvolutionalRBM(shape, filters, side, **settings))


# ---------------------------------------------------------------- fields and borders

SIZES = [(2, 1, 0), (2, 1, 1), (3, 2, 0), (3, 2, 1), (3, 1, 2), (1, 1, 0)]


@pytest.mark.parametrize(("side", "pool", "padding"), SIZES)
def test_what_goes_up_and_what_comes_down_are_adjoint(side: int, pool: int, padding: int) -> None:
    machine = rbm((2, 4, 6), 3, side, pool_size=pool, padding=padding)
    v, h = torch.randn(5, 2, 4, 6), torch.randn(5, *machine.shapes[1])
    nothing_v, nothing_h = torch.zeros_like(v), torch.zeros_like(h)
    up = machine.field_in(1, [v, None]) - machine.field_in(1, [nothing_v, None])
    down = machine.field_in(0, [None, h]) - machine.field_in(0, [None, nothing_h])
    torch.testing.assert_close((up * h).sum((1, 2, 3)), (v * down).sum((1, 2, 3)))
    exact = fields_above(v, machine.weight, machine.hidden_bias, padding)
    torch.testing.assert_close(machine.field_in(1, [v, None]), exact)
    if side > 1:  # and it would be noticed if filters were turned around
        turned = fields_above(v, machine.weight.flip(-1, -2), machine.hidden_bias, padding)
        assert (exact - turned).abs().max() > 0.1


def test_border_pixels_have_fewer_connections_unless_there_are_enough_zeros_around() -> None:
    def connections(padding: int) -> torch.Tensor:
        machine = ConvolutionalRBM((1, 6, 6), 1, 3, padding=padding)
        with torch.no_grad():
            machine.weight.fill_(1.0)
        return machine.field_in(0, [None, torch.ones(machine.shapes[1])])[0]

    inside, around = connections(0), connections(2)
    assert inside[0, 0] == 1 and inside[0, 2] == 3 and inside[2, 2] == 9
    assert (around == 9).all()


def test_a_moved_image_has_a_moved_field() -> None:
    machine = rbm((1, 6, 6), 2, 3, padding=2)
    image, moved = torch.zeros(2, 1, 6, 6)
    image[:, :4, :4] = torch.randn(1, 4, 4)
    moved[:, 2:, 2:] = image[:, :4, :4]
    before, after = (machine.field_in(1, [x, None]) for x in (image, moved))
    torch.testing.assert_close(before[:, :6, :6], after[:, 2:, 2:])
    torch.testing.assert_close(machine.energy(image), machine.energy(moved))


def test_energy_with_padding_channels_and_temperature() -> None:
    machine = padded_rbm()
    images = binary_images(machine)
    torch.testing.assert_close(-machine.energy(images), reference(machine, images))


# ---------------------------------------------------------------- conditionals


class PlainMaxPooling(ProbabilisticMaxPooling):
    """The common mistake: detection units that know nothing of their block."""

    def mean(self, field: torch.Tensor) -> torch.Tensor:
        return field.sigmoid()

    def sample(self, field: torch.Tensor) -> torch.Tensor:
        return torch.bernoulli(field.sigmoid())


def test_conditionals_are_those_of_the_joint_energy() -> None:
    machine = small_rbm()
    images = binary_images(machine)
    hidden = torch.stack(list(hidden_states(machine.shapes[1], 2)))
    joint = -machine.joint_energy(images[:, None], hidden)
    torch.testing.assert_close(joint.logsumexp(1), -machine.energy(images))
    given_image = torch.einsum("sh,hkij->skij", joint.softmax(1), hidden)
    torch.testing.assert_close(machine.detection_mean(images), given_image)
    given_hidden = torch.einsum("sh,skij->hkij", joint.softmax(0), images)
    drawn = torch.stack([machine.sample_visible(hidden) for _ in range(2000)])
    error = (given_hidden * (1 - given_hidden) / 2000).sqrt()
    assert ((drawn.mean(0) - given_hidden).abs() < 4.7 * error).all()  # 4 of one, of 225
    state = machine.sample_hidden(images[:1].expand(10_000, 1, 3, 3))
    assert p_value(counts_of(state, hidden), joint[0].softmax(0)) > FAILURE_RATE

    machine.pooling[0] = PlainMaxPooling(2)
    assert not torch.allclose(machine.detection_mean(images), given_image, atol=0.05)
    assert machine.pool(machine.sample_hidden(images)).max() > 1


def test_plain_max_pooling_leaves_the_density() -> None:
    machine = small_rbm()
    images, draws = binary_images(machine), machine.exact_sample(10_000)
    probs = reference(machine, images).softmax(0)
    assert p_value(counts_of(machine.transition(draws, 3), images), probs) > FAILURE_RATE
    machine.pooling[0] = PlainMaxPooling(2)
    assert p_value(counts_of(machine.transition(draws, 3), images), probs) < FAILURE_RATE


def test_hidden_units_come_on_request() -> None:
    machine = small_rbm()
    v, h = machine.sample_joint((7, 2))
    assert v.shape == (7, 2, 1, 3, 3) and h.shape == (7, 2, 2, 2, 2)
    assert machine.pool(h).shape == (7, 2, 2, 1, 1) and machine.pool(h).max() <= 1


# ---------------------------------------------------------------- other sizes of image


def test_another_size_shares_weights_and_has_its_own_log_z() -> None:
    machine = rbm((1, 1, 3), 1, 2, padding=1).eval()
    tall = machine.resized(3, 3)
    assert tall.weight is machine.weight and machine.event_shape == (1, 1, 3)
    assert tall.event_shape == (1, 3, 3) and tall.sample((4,)).shape == (4, 1, 3, 3)
    for m in (machine, tall):
        images = binary_images(m)
        exact = reference(m, images)
        torch.testing.assert_close(m.log_prob(images), exact - exact.logsumexp(0))
    assert not torch.isclose(tall.log_partition(), machine.log_partition())
    assert tall.negative_phase.chains.shape[1:] == (1, 3, 3)
    assert machine.negative_phase.chains.shape[1:] == (1, 1, 3)
    before = tall.energy(images)
    with torch.no_grad():
        machine.weight.mul_(2)
    assert not torch.allclose(tall.energy(images), before)
    with pytest.raises(ValueError, match="image's size"):
        machine.resized(3, 4)
    with pytest.raises(ValueError, match="event_shape"):
        machine.log_prob(images[:2])


def test_an_estimate_is_refused_at_another_size() -> None:
    phase = ContrastiveDivergence()
    machine = rbm((1, 6, 6), 8, 3, negative_phase=phase, validate_args=True).eval()
    found = machine.estimate_log_partition(50, 20, compile=False)
    x = torch.bernoulli(torch.full((2, 1, 6, 6), 0.5))
    torch.testing.assert_close(machine.log_prob(x), -machine.energy(x) - found.value)
    other = machine.resized(8, 6).eval()
    y = torch.bernoulli(torch.full((2, 1, 8, 6), 0.5))
    with pytest.raises(UnknownPartitionError, match="not been estimated"):
        other.log_prob(y)
    # Also where the number itself is carried over.
    other.log_partition_values.copy_(machine.log_partition_values)
    other.log_partition_for.copy_(machine.log_partition_for)
    with pytest.raises(UnknownPartitionError, match="changed"):
        other.log_prob(y)
    other.estimate_log_partition(50, 20, compile=False)
    assert other.log_prob(y).shape == (2,) and machine.log_prob(x).shape == (2,)
    back = copy.deepcopy(machine)
    torch.testing.assert_close(back.log_prob(x), machine.log_prob(x))


# ---------------------------------------------------------------- annealing and filling in


def test_a_base_near_the_data_shortens_annealing() -> None:
    machine = rbm((1, 5, 5), 1, 2)
    with torch.no_grad():
        machine.visible_bias.fill_(-4.0)
        machine.weight.mul_(0.3)
    exact, data = machine.exact_log_partition().detach(), machine.exact_sample(500)
    plain = machine.anneal(num_chains=200, num_steps=40, compile=False, reverse_from=data)
    machine.set_base(data)
    based = machine.anneal(num_chains=200, num_steps=40, compile=False, reverse_from=data[:200])
    for result in (plain, based):
        assert (result.log_z - exact).abs() < 5 * result.standard_error
    assert based.standard_error < plain.standard_error
    spread = based.log_weights.std() / 200**0.5
    assert based.lower < exact + 4 * spread and based.upper > exact - 4 * spread


def test_missing_parts_of_an_image_follow_the_rest() -> None:
    machine = ConvolutionalRBM((1, 4, 8), 1, 1, pool_size=1, sampling_steps=20)
    with torch.no_grad():  # a unit for each pixel, which is on where the pixel is
        machine.weight.fill_(8.0)
        machine.visible_bias.fill_(-4.0)
        machine.hidden_bias.fill_(-4.0)
    x = torch.bernoulli(torch.full((3, 1, 4, 8), 0.5))
    known = torch.zeros(8, dtype=torch.bool)
    known[:4] = True
    filled = machine.impute(torch.where(known, x, torch.nan), known)
    assert (filled[..., :4] == x[..., :4]).all() and not filled.isnan().any()


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("units", [None, GaussianUnits(1)], ids=["binary", "gaussian"])
def test_svi_raises_the_likelihood(units: GaussianUnits | None) -> None:
    phase = PersistentChains(200, 5)
    machine = ConvolutionalRBM((1, 3, 5), 2, 2, visible=units, negative_phase=phase)
    data = torch.zeros(40, 1, 3, 5)
    data[:20, :, :, ::2], data[20:, :, :, 1::2] = 1.0, 1.0
    if units is not None:
        data = data + 0.3 * torch.randn_like(data)

    def model() -> None:
        pyro.module("machine", machine)
        with pyro.plate("data", len(data)):
            pyro.sample("x", machine, obs=data)

    def score() -> float:
        value = machine.eval().log_prob(data).mean().detach()
        machine.train()
        return float(value)

    before = {name: p.detach().clone() for name, p in machine.named_parameters()}
    first = score()
    svi = SVI(model, lambda: None, Adam({"lr": 0.02}), Trace_ELBO())
    for _ in range(150):
        svi.step()
    assert all((p != before[name]).all() for name, p in machine.named_parameters())
    assert score() > first + 2


def test_context_moves_channels_and_maps() -> None:
    machine = small_rbm(context_dim=2)
    given, plain = machine.condition(torch.tensor([0.5, -1.0])), small_rbm()
    plain.load_state_dict(machine.state_dict(), strict=False)
    moved = machine.offsets(torch.tensor([0.5, -1.0])).detach()
    with torch.no_grad():
        plain.visible_bias.add_(moved[:1])
        plain.hidden_bias.add_(moved[1:])
    images = binary_images(machine)
    torch.testing.assert_close(given.energy(images), plain.energy(images))


def test_it_runs_on_the_device(device: torch.device) -> None:
    machine = small_rbm().to(device)
    v = machine.sample((3,))
    machine.log_prob(v).sum().backward()
    assert v.device.type == device.type and machine.weight.grad is not None


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (((3, 3), 2, 2), {}, r"\(channels, height, width\), got \(3, 3\)"),
        (((1, 4, 4), 2, 2), {}, "blocks of 2 x 2 tile, got 3 x 3"),
        (((1, 3, 3), 2, 5), {}, "got -1 x -1"),
        (((1, 3, 3), 0, 2), {}, "positive sizes"),
        (((1, 3, 3), 2, 2), {"padding": -1}, "no negative padding"),
        (((1, 3, 3), 2, 2, 0), {}, "side of 1 or more, got 0"),
        (((2, 3, 3), 2, 2), {"visible": BinaryUnits(1)}, "2 channels of a pixel, got BinaryUnits"),
        (((2, 3, 3), 2, 2), {"visible": SoftmaxUnits(1, 2)}, "got SoftmaxUnits"),
        (((1, 3, 3), 2, 2), {"bias": torch.nn.Linear(1, 3)}, "context_dim"),
        (((1, 3, 3), 2, 2), {"temperature": 0.0}, "positive temperature"),
    ],
)
def test_what_does_not_fit_is_refused(
    arguments: tuple[Any, ...], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ConvolutionalRBM(*arguments, **settings)


def test_padding_that_makes_units_see_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="padding below filter_size"):
        ConvolutionalRBM((1, 2, 2), 1, 2, padding=2)
