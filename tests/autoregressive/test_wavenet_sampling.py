# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""WaveNets step by step with queues: the same values as the whole network, with less work."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pyro_deepgen.autoregressive import BinaryOutput, GaussianOutput, WaveNet
from pyro_deepgen.autoregressive.wavenet_steps import WaveNetSteps
from tests.autoregressive.models import changed
from tests.autoregressive.rows_wavenet import ALL, BINARY, CONTEXTS, REAL, TERNARY, conditioned

pytestmark = pytest.mark.usefixtures("float64")


def both_ways(model: Any, shape: tuple[int, ...] = (20,)) -> tuple[torch.Tensor, torch.Tensor]:
    """Return draws with queues, and by the whole network, from the same random numbers."""
    torch.manual_seed(5)
    quick = model.sample(shape)
    torch.manual_seed(5)
    return quick, model.naive_sample(shape)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", ALL)
def test_the_same_values_from_the_same_random_numbers(name: str, context: str) -> None:
    model = conditioned(changed(ALL[name](13, **CONTEXTS[context]), 0.4), (2,))
    quick, slow = both_ways(model)
    assert quick.dtype == slow.dtype
    assert quick.shape == (20, *model.batch_shape, 13)
    if name in REAL:
        torch.testing.assert_close(quick, slow)
    else:
        assert torch.equal(quick, slow)
        assert len(quick.unique()) == model.output.num_values


def test_queues_that_are_a_step_late_give_other_values() -> None:
    model = changed(BINARY["binary"](13), 0.8)
    quick, slow = both_ways(model)
    assert torch.equal(quick, slow)
    for layer in model.network.layers:
        layer.gates.lags = [0, layer.gates.lags[1] + 1]
    late, _ = both_ways(model)
    assert not torch.equal(late, slow)


@pytest.mark.parametrize("name", ["binary", "binary_taps", "binary_one_tap", "ternary", "gaussian"])
@pytest.mark.parametrize("given", [1, 2, 5, 12])
def test_primed_queues_go_on_as_unprimed_ones(name: str, given: int) -> None:
    model = changed(ALL[name](13, context_dim=2, local_dim=3), 0.6)
    context = torch.randn(4, model.context_dim)
    x = model.condition(context).sample()
    exact = model.conditionals(x, context)
    steps = WaveNetSteps(model.network, 4, *model._contexts(context))
    torch.testing.assert_close(steps.prime(x[:, :given]), exact[:, :given])
    for t in range(given, 13):
        torch.testing.assert_close(steps.step(x[:, t - 1]), exact[:, t])


def test_a_draw_takes_less_than_a_fifth_of_the_products() -> None:
    sizes: dict[str, Any] = {"channels": 8, "skip_channels": 16, "dilations": (1, 2, 4, 8, 16)}
    for model in (WaveNet(48, **sizes), WaveNet(48, BinaryOutput(), **sizes)):
        model.requires_grad_(False)
        counts = []
        for draw in (model.sample, model.naive_sample):
            with FlopCounterMode(display=False) as counter:
                draw((3,))
            counts.append(counter.get_total_flops())
        assert 5 * counts[0] < counts[1]


def test_products_of_a_draw_grow_with_its_length_and_not_with_the_dilations() -> None:
    counts = {}
    for steps in (20, 40):
        for scale in (1, 7):
            dilations = [scale * d for d in (1, 2, 4)]
            model = WaveNet(steps, BinaryOutput(), channels=4, dilations=dilations)
            with FlopCounterMode(display=False) as counter:
                model.sample((2,))
            counts[steps, scale] = counter.get_total_flops()
    assert counts[40, 1] == counts[40, 7] == 2 * counts[20, 1] == 2 * counts[20, 7]


# ---------------------------------------------------------------- completing


@pytest.mark.parametrize("context", ["none", "both"])
@pytest.mark.parametrize("name", ALL)
def test_a_continuation_keeps_what_is_given(name: str, context: str) -> None:
    model = conditioned(changed(ALL[name](9, **CONTEXTS[context]), 0.4))
    x = model.sample((50,))
    known = torch.arange(9) < 4
    torch.manual_seed(2)
    done = model.impute(torch.where(known, x, torch.full_like(x, 7)), known)
    assert done.method == "exact"
    assert bool(done.exact.all())
    assert torch.equal(done.value[:, :4], x[:, :4])
    assert not torch.equal(done.value[:, 4:], x[:, 4:])
    # The whole network with the same random numbers continues alike.
    torch.manual_seed(2)
    noise = model.output.noise((9, 50), next(model.parameters()))
    slow = x.clone()
    for t in range(4, 9):
        parameters = model.conditionals(slow, model.__dict__["_context"])[:, t]
        slow[:, t] = model.output.draw(parameters, noise[t])
    if name in REAL:
        torch.testing.assert_close(done.value, slow)
    else:
        assert torch.equal(done.value, slow)


def test_continuations_have_the_exact_conditional_probabilities() -> None:
    model = changed(TERNARY["ternary"](4), 0.6)
    values = model.enumerate_support()
    known = torch.tensor([True, True, False, False])
    agree = (values[:, :2] == torch.tensor([1, 2])).all(-1)
    probs = torch.where(agree, model.log_prob(values).exp().detach(), 0.0)
    probs = probs / probs.sum()
    num = 10_000
    x = torch.tensor([1, 2, 0, 0]).expand(num, 4)
    draws = model.impute(x, known).value
    powers = 3 ** torch.arange(4)
    observed = torch.bincount((draws * powers).sum(-1), minlength=81) / num
    error = (probs * (1 - probs) / num).sqrt()
    assert bool(((observed - probs).abs() <= 4.5 * error + 1e-12).all())
    uniform = agree.double() / 9
    assert bool(((observed - uniform).abs() > 4.5 * error + 1e-12).any()), "the test can fail"


def test_what_comes_later_is_reached_by_weights() -> None:
    model = changed(BINARY["binary"](3), 1.0)
    x, known = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([False, False, True])
    values = model.enumerate_support()
    p = torch.where(values[:, 2] == 1, model.log_prob(values).exp().detach(), 0.0)
    p = p / p.sum()
    num = 4000
    done = model.impute(x.expand(num, 3), known, num_particles=100)
    assert done.method == "importance"
    assert not bool(done.exact.any())
    observed = torch.bincount((done.value.long() * torch.tensor([1, 2, 4])).sum(-1), minlength=8)
    assert bool(((observed / num - p).abs() < 0.045).all())


def test_each_datum_has_its_own_mask() -> None:
    model = changed(BINARY["binary"](6), 0.6)
    x = model.sample((3, 4))
    mask = torch.rand(3, 4, 6) < 0.5
    mask[..., 0] = True  # of all: primed
    done = model.impute(torch.where(mask, x, torch.nan), mask, num_particles=5)
    assert torch.equal(done.value[mask], x[mask])
    everything = model.impute(x, torch.tensor(True))
    assert torch.equal(everything.value, x)


def test_draws_with_gradients() -> None:
    model = changed(
        WaveNet(
            4,
            GaussianOutput(),
            channels=3,
            skip_channels=4,
            dilations=(1, 2),
            context_dim=2,
            local_dim=2,
            local_rate=2,
        ),
        0.4,
    )

    def first_draw(context: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(2)
        return torch.as_tensor(model.condition(context).rsample())

    assert model.has_rsample
    assert not BINARY["binary"](4).has_rsample
    context = torch.randn(model.context_dim, requires_grad=True)
    assert torch.autograd.gradcheck(first_draw, context)


def test_no_draws_at_all_and_one_step() -> None:
    assert changed(TERNARY["ternary"](5)).sample((0,)).shape == (0, 5)
    one = changed(BINARY["binary"](1))
    assert one.log_prob(one.sample((6,))).shape == (6,)
    assert torch.equal(*both_ways(one))
