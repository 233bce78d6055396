# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Probabilistic max pooling, block by block against its n + 1 states."""

import pytest
import torch
from scipy.stats import chisquare

from pyro_deepgen.energy.pooling import ProbabilisticMaxPooling

pytestmark = pytest.mark.usefixtures("float64")

SHAPE = (2, 2, 4)


class PlainMaxPooling(ProbabilisticMaxPooling):
    """The common mistake: detection units that know nothing of their block."""

    def sample(self, field: torch.Tensor) -> torch.Tensor:
        return torch.bernoulli(field.sigmoid())


def state_number(pooling: ProbabilisticMaxPooling, h: torch.Tensor) -> torch.Tensor:
    """Which unit of a single block ``(..., 1, C, C)`` is on; 0 for none, -1 for several."""
    blocks = h.flatten(-3)
    number = (blocks * torch.arange(1, pooling.size**2 + 1)).sum(-1).long()
    return torch.where(blocks.sum(-1) > 1, -1, number)


def p_value(pooling: ProbabilisticMaxPooling, drawn: torch.Tensor, field: torch.Tensor) -> float:
    """Of draws ``(N, 1, C, C)`` from the softmax over the states of one block."""
    number = state_number(pooling, drawn)
    if bool((number < 0).any()):
        return 0.0
    probs = torch.cat([torch.zeros(1), field.flatten()]).softmax(0)
    counts = torch.bincount(number, minlength=len(probs))
    return float(chisquare(counts.numpy(), (len(drawn) * probs).numpy()).pvalue)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_draws_follow_the_softmax_over_a_block_and_none(size: int) -> None:
    pooling, field = ProbabilisticMaxPooling(size), torch.randn(1, size, size)
    many = field.expand(20_000, 1, size, size)
    assert p_value(pooling, pooling.sample(many), field) > 1e-4
    from_means = pooling.sample_from(pooling.mean(field).expand(20_000, 1, size, size))
    assert p_value(pooling, from_means, field) > 1e-4


def test_plain_max_pooling_would_be_found() -> None:
    pooling, field = PlainMaxPooling(2), torch.full((1, 2, 2), -2.0)
    drawn = pooling.sample(field.expand(20_000, 1, 2, 2))
    assert p_value(pooling, drawn, field) == 0.0
    # Also where no two happen to be on, as the odds of a unit are not those of a block.
    single = drawn[drawn.sum((1, 2, 3)) <= 1]
    assert len(single) > 15_000
    on = single.sum((1, 2, 3)).mean()
    exact = pooling.mean(field).sum()
    plain = pooling.pool(drawn).clamp(max=1).mean()
    error = (exact * (1 - exact) / 20_000).sqrt()
    assert (plain - exact).abs() > 4 * error
    assert (on - exact).abs() < 4 * error  # what is left has the law of the block, as it must


def test_all_states_are_listed_once() -> None:
    pooling = ProbabilisticMaxPooling(2)
    states = pooling.states(SHAPE, torch.zeros(()))
    assert len(states) == 5**4 == round(2 ** pooling.log2_states(SHAPE))
    assert len(states.flatten(1).unique(dim=0)) == len(states)
    assert pooling.pool(states).max() == 1
    # Two rows by four columns are two blocks side by side, and not four rows.
    assert pooling.pool(torch.eye(8).reshape(8, 1, 2, 4))[:, 0, 0].argmax(-1).tolist() == [
        0, 0, 1, 1, 0, 0, 1, 1,
    ]  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_sum_mean_and_entropy_are_those_of_all_states(scale: float) -> None:
    pooling, field = ProbabilisticMaxPooling(2), scale * torch.randn(SHAPE)
    states = pooling.states(SHAPE, field)
    scores = (states * field).sum((1, 2, 3))
    total, probs = scores.logsumexp(0), scores.softmax(0)
    torch.testing.assert_close(pooling.log_normalizer(field), total)
    mean = (probs[:, None, None, None] * states).sum(0)
    torch.testing.assert_close(pooling.mean(field), mean)
    torch.testing.assert_close(pooling.entropy(mean), torch.special.entr(probs).sum())


def test_what_acts_on_a_pooling_unit_acts_on_each_of_its_block() -> None:
    pooling, h, top = ProbabilisticMaxPooling(2), torch.randn(3, 2, 4, 6), torch.randn(3, 2, 2, 3)
    torch.testing.assert_close((pooling.pool(h) * top).sum(), (h * pooling.spread(top)).sum())


def test_large_fields_do_not_overflow_in_single_precision() -> None:
    pooling = ProbabilisticMaxPooling(2)
    field = torch.tensor([[[500.0, 0.0], [0.0, 0.0]]], dtype=torch.float32).expand(100, 1, 2, 2)
    assert (pooling.sample(field)[:, 0, 0, 0] == 1).all()
    assert (pooling.sample(-1000 * torch.ones_like(field)) == 0).all()


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="side of 1 or more, got 0"):
        ProbabilisticMaxPooling(0)
    with pytest.raises(ValueError, match=r"blocks of 2 x 2 tile, got 3 x 4"):
        ProbabilisticMaxPooling(2).mean(torch.zeros(1, 3, 4))
