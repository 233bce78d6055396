# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""WaveNets: exact sums, who sees whom, contexts, and what a user can get wrong."""

import copy
from itertools import product
from typing import Any

import pytest
import torch
from scipy.stats import chi2
from torch import nn

from pyro_deepgen.autoregressive import (
    BinaryOutput,
    CategoricalOutput,
    LogisticMixtureOutput,
    WaveNet,
    wavenet_convolution,
)
from tests.autoregressive.models import changed
from tests.autoregressive.rows_wavenet import ALL, BINARY, CONTEXTS, REAL, TERNARY, conditioned

pytestmark = pytest.mark.usefixtures("float64")

FAILURE_RATE = 1e-6


def support(name: str, model: Any) -> torch.Tensor:
    """Return all values, of shape `(S, T)`."""
    if not isinstance(model.output, LogisticMixtureOutput):
        return torch.as_tensor(model.enumerate_support(expand=False).reshape(-1, model.num_steps))
    num = model.output.num_values
    one = torch.arange(num) / (num - 1)
    return torch.cartesian_prod(*[one] * model.num_steps)


def probabilities(name: str, model: Any) -> torch.Tensor:
    """Return the probability of each value under each batch member, `(S, *batch)`."""
    values = support(name, model)
    shape = (len(values), *[1] * len(model.batch_shape), model.num_steps)
    with torch.no_grad():
        return torch.as_tensor(model.log_prob(values.reshape(shape)).exp())


@pytest.mark.parametrize("context", ["none", "both"])
@pytest.mark.parametrize("name", [*BINARY, *TERNARY])
def test_all_sequences_sum_to_one(name: str, context: str) -> None:
    steps = 12 if name in BINARY else 7
    model = {**BINARY, **TERNARY}[name](steps, **CONTEXTS[context])
    given = conditioned(changed(model, 0.8), (2,))
    p = probabilities(name, given)
    assert p.shape == ((2**12 if name in BINARY else 3**7), *given.batch_shape)
    torch.testing.assert_close(p.sum(0), torch.ones(given.batch_shape), atol=1e-8, rtol=0)


def test_a_network_that_sees_its_own_step_does_not_sum_to_one() -> None:
    model = changed(BINARY["binary"](8), 0.8)
    model.network.first.delay = 0
    assert abs(float(probabilities("binary", model).sum()) - 1) > 1e-3


@pytest.mark.parametrize("name", REAL)
def test_densities_integrate_to_one(name: str) -> None:
    model = changed(REAL[name](2), 0.4)
    steps = torch.linspace(-25, 25, 401)
    with torch.no_grad():
        p = model.log_prob(torch.cartesian_prod(steps, steps)).exp()
    assert abs(float(p.sum()) / 8**2 - 1) < 1e-3


# ---------------------------------------------------------------- who sees whom


def lags(model: Any) -> set[int]:
    """Return how many steps back the outputs see, from the sizes alone."""
    seen = set(range(1, model.kernel_size + 1))
    for dilation in model.dilations:
        seen = {lag + j * dilation for lag in seen for j in range(model.kernel_size)}
    return seen


def pattern(name: str, model: Any, num: int = 40) -> torch.Tensor:
    """Return which steps (columns) change the parameters of which (rows)."""
    steps = model.num_steps
    if name in TERNARY:
        x = torch.randint(3, (num, steps))
        x = x / 2 if isinstance(model.output, LogisticMixtureOutput) else x
        before, columns = model.conditionals(x), []
        for t in range(steps):
            other = x.clone()
            other[:, t] = torch.where(x[:, t] == 0, x.max(), 0)
            columns.append((model.conditionals(other) != before).any(-1).any(0))
        return torch.stack(columns, -1)
    x = torch.randn(num, steps)

    def summed(x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(model.conditionals(x).sum(0))

    return (torch.autograd.functional.jacobian(summed, x) != 0).any(1).any(1)


@pytest.mark.parametrize("name", ALL)
def test_a_step_sees_the_receptive_field_before_it_and_nothing_else(name: str) -> None:
    model = changed(ALL[name](16))
    back = torch.arange(16)[:, None] - torch.arange(16)
    expected = torch.isin(back, torch.tensor(sorted(lags(model))))
    assert torch.equal(pattern(name, model), expected)
    assert model.receptive_field == max(lags(model))
    assert lags(model) == set(range(1, model.receptive_field + 1))
    assert not bool(expected.triu().any())


def test_the_default_dilations_leave_no_gap() -> None:
    model = WaveNet(4, BinaryOutput(), channels=2, skip_channels=2)
    assert lags(model) == set(range(1, 1026))
    assert model.receptive_field == 1025
    three = WaveNet(4, BinaryOutput(), channels=2, skip_channels=2, dilations=(1, 2, 4) * 3)
    assert three.receptive_field == 2 + 3 * 7


def test_a_planted_shift_by_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = changed(BINARY["binary"](16))
    right = wavenet_convolution.delayed
    model.network.layers[1].gates.lags = [-1, 1]

    def shifted(x: torch.Tensor, steps: int) -> torch.Tensor:
        return right(x, steps) if steps >= 0 else nn.functional.pad(x[..., 1:, :], (0, 0, 0, 1))

    monkeypatch.setattr(wavenet_convolution, "delayed", shifted)
    assert bool(pattern("binary", model).triu().any())


# ---------------------------------------------------------------- contexts


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("context", [c for c in CONTEXTS if c != "none"])
@pytest.mark.parametrize("name", ["binary", "ternary", "gaussian"])
def test_contexts_of_any_batch_shape(name: str, context: str, batch: tuple[int, ...]) -> None:
    model = changed(ALL[name](6, **CONTEXTS[context]), 0.4)
    given = conditioned(model, batch)
    assert given.batch_shape == batch
    draws = given.sample((5,))
    assert draws.shape == (5, *batch, 6)
    scores = given.log_prob(draws)
    assert scores.shape == (5, *batch)
    whole = given.__dict__["_context"]
    assert whole.shape[-1] == model.context_dim == model.params_shape((6,))[0]
    for at in product(*map(range, batch)):
        alone = model.condition(whole[at])
        torch.testing.assert_close(
            alone.log_prob(draws[(slice(None), *at)]), scores[(slice(None), *at)]
        )
    other = conditioned(model, batch).log_prob(draws)
    assert not torch.allclose(scores, other), "the context matters"
    wide = given.expand((4, *batch))
    torch.testing.assert_close(wide.log_prob(draws[0])[0], scores[0])


def test_contexts_of_different_batch_shapes_broadcast() -> None:
    model = changed(BINARY["binary"](6, context_dim=2, local_dim=3, local_rate=2))
    context, local = torch.randn(4, 1, 2), torch.randn(5, 3, 3)
    given = model.condition(context, local)
    assert given.batch_shape == (4, 5)
    x = given.sample()
    one = model.condition(context[2, 0], local[3])
    torch.testing.assert_close(given.log_prob(x)[2, 3], one.log_prob(x[2, 3]))


@pytest.mark.parametrize("rate", [1, 3, 4])
def test_a_frame_reaches_its_steps_and_those_after(rate: int) -> None:
    steps = 11
    sizes: dict[str, Any] = {"dilations": (1, 2, 4), "skip_channels": 24}
    model = changed(BINARY["binary"](steps, local_dim=2, local_rate=rate, **sizes), 0.6)
    frames = -(-steps // rate)
    assert model.num_frames == frames
    x, local = torch.randint(2, (20, steps)).double(), torch.randn(frames, 2)

    def summed(local: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(model.conditionals(x, local.flatten()).sum(0).squeeze(-1))

    seen = (torch.autograd.functional.jacobian(summed, local) != 0).any(-1)
    # The gates of a layer have the frame of their own step; later layers reach back.
    back = {i + j for i in (0, 2) for j in (0, 4)}
    for t in range(steps):
        reach = sorted({(t - lag) // rate for lag in back if lag <= t})
        assert seen[t].nonzero().squeeze(-1).tolist() == reach


def test_upsampling_begins_as_repetition_and_is_learned() -> None:
    frames = torch.randn(2, 3, 4)
    for learned in (False, True):
        model = BINARY["binary"](8, local_dim=4, local_rate=3, learn_upsampling=learned)
        steps = model.upsampling(frames, 8)
        assert torch.equal(steps, frames.repeat_interleave(3, 1)[:, :8])
        assert ("upsampling.weight" in dict(model.named_parameters())) == learned
    with torch.no_grad():
        model.upsampling.weight.normal_()
    transposed = nn.ConvTranspose1d(4, 4, 3, stride=3, groups=4, bias=False)
    with torch.no_grad():
        transposed.weight.copy_(model.upsampling.weight.mT.unsqueeze(1))
    expected = transposed(frames.mT).mT[:, :8]
    torch.testing.assert_close(model.upsampling(frames, 8), expected)


# ---------------------------------------------------------------- lengths, draws, errors


@pytest.mark.parametrize("name", ["binary", "levels", "gaussian"])
def test_sequences_of_other_lengths_share_the_network(name: str) -> None:
    model = changed(ALL[name](9), 0.4)
    x = model.sample((4,))
    short, long = model.of_length(5), model.of_length(30)
    torch.testing.assert_close(short.conditionals(x[:, :5]), model.conditionals(x)[:, :5])
    assert long.sample((2,)).shape == (2, 30)
    assert model.event_shape == (9,)
    assert all(p is q for p, q in zip(model.parameters(), long.parameters(), strict=True))
    longer = BINARY["binary"](9, context_dim=2).condition(torch.randn(3, 2)).of_length(11)
    assert longer.sample().shape == (3, 11)
    slow = BINARY["binary"](9, local_dim=2, local_rate=4)
    assert slow.of_length(17).condition(local=torch.randn(5, 2)).sample().shape == (17,)


@pytest.mark.parametrize("name", [*BINARY, *TERNARY])
def test_draws_have_the_enumerated_probabilities(name: str) -> None:
    model = conditioned(changed({**BINARY, **TERNARY}[name](5, **CONTEXTS["both"]), 0.4))
    values, probs, draws = support(name, model), probabilities(name, model), model.sample((20_000,))

    def p_value(draws: torch.Tensor) -> float:
        num = model.output.num_values
        powers = num ** torch.arange(5).flip(0)
        scale = num - 1 if isinstance(model.output, LogisticMixtureOutput) else 1
        place = ((values * scale).round().long() * powers).sum(-1).argsort()
        numbers = ((draws * scale).round().long() * powers).sum(-1)
        observed = torch.bincount(numbers, minlength=len(values)).double()
        expected = probs[place] * len(draws)
        small = expected < 10
        e = torch.cat([expected[~small], expected[small].sum().reshape(1)])
        o = torch.cat([observed[~small], observed[small].sum().reshape(1)])
        if e[-1] < 10:
            e, o = e[:-1], o[:-1]
        return float(chi2.sf(float(((o - e) ** 2 / e).sum()), len(e) - 1))

    assert p_value(draws) > FAILURE_RATE
    wrong = torch.where(torch.rand(len(draws), 1) < 0.1, draws[:1], draws)
    assert p_value(wrong) < FAILURE_RATE, "the test can fail"


def test_copies_and_saved_states() -> None:
    model, other = (changed(TERNARY["ternary"](6, **CONTEXTS["both"]), 0.5) for _ in range(2))
    context, local = torch.randn(2), torch.randn(3, 3)
    x = model.condition(context, local).sample((7,))
    exact = model.condition(context, local).log_prob(x)
    assert torch.equal(copy.deepcopy(model).condition(context, local).log_prob(x), exact)
    assert not torch.allclose(other.condition(context, local).log_prob(x), exact)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.condition(context, local).log_prob(x), exact)


WANTED = r"local of shape \(\*batch, 2, 3\), a frame for every 4 of 8 steps"


def test_wrong_arguments() -> None:
    small: dict[str, Any] = {"channels": 2, "skip_channels": 2, "dilations": (1, 2)}
    for wrong, message in (
        ({"dilations": ()}, r"dilations one or more, such as \(1, 2, 4, 8\), got none"),
        ({"dilations": (1, 0)}, "dilations a sequence of positive"),
        ({"kernel_size": 0}, "kernel_size a positive whole number, got 0"),
        ({"channels": 0}, "channels a positive"),
        ({"local_dim": 2, "local_rate": 0}, "local_rate a positive"),
    ):
        with pytest.raises(ValueError, match=message):
            WaveNet(8, BinaryOutput(), **{**small, **wrong})
    with pytest.raises(ValueError, match="num_steps a positive whole number, got 0"):
        WaveNet(0, BinaryOutput(), **small)
    plain = WaveNet(8, BinaryOutput(), **small)
    assert plain.output == BinaryOutput()
    assert WaveNet(8, **small).output == CategoricalOutput(256)
    with pytest.raises(ValueError, match="no context: this WaveNet was made with context_dim=0"):
        plain.condition(torch.zeros(2))
    with pytest.raises(ValueError, match="no context: this WaveNet was made with context_dim=0"):
        plain.condition(local=torch.zeros(8, 2))
    slow = WaveNet(8, BinaryOutput(), local_dim=3, local_rate=4, **small)
    with pytest.raises(ValueError, match=WANTED + r", got no context and local shape \(3, 3\)"):
        slow.condition(local=torch.zeros(3, 3))
    with pytest.raises(ValueError, match=WANTED + r", got shape \(2,\) and local"):
        slow.condition(torch.zeros(2), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=WANTED + r", got no context and no local"):
        slow.condition()
    with pytest.raises(ValueError, match="got one with 2 frames: change the length first"):
        slow.condition(local=torch.zeros(2, 3)).of_length(9)
    both = WaveNet(8, BinaryOutput(), context_dim=2, local_dim=3, local_rate=4, **small)
    with pytest.raises(ValueError, match=r"context of shape \(\*batch, 2\) and " + WANTED):
        both.condition(torch.zeros(2))
    assert both.condition(torch.zeros(5, 8)).batch_shape == (5,), "the whole as one vector"
    with pytest.raises(ValueError, match=r"got none: use condition\(context\)"):
        both.sample()
