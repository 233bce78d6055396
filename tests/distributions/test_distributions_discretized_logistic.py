# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The discretised logistic where it is hard: tiny scales, far tails, the edges."""

import math

import pytest
import torch

from pyro_deepgen.distributions import DiscretizedLogistic


def reference(loc: float, scale: float, level: int, num: int) -> float:
    """Return the probability of a level of [0, 1] from the definition."""

    def cdf(x: float) -> float:
        return 1 / (1 + math.exp(-(x - loc) / scale))

    half = 0.5 / (num - 1)
    upper = 1.0 if level == num - 1 else cdf(level / (num - 1) + half)
    lower = 0.0 if level == 0 else cdf(level / (num - 1) - half)
    return upper - lower


@pytest.mark.parametrize(("loc", "scale"), [(0.3, 0.1), (-0.4, 0.2), (1.3, 0.3), (0.5, 5.0)])
def test_probabilities_are_differences_of_the_distribution_function(
    loc: float, scale: float, float64: torch.dtype
) -> None:
    d = DiscretizedLogistic(loc, scale, num_levels=6)
    expected = torch.tensor([reference(loc, scale, k, 6) for k in range(6)])
    torch.testing.assert_close(d.log_prob(d.enumerate_support()).exp(), expected)


def test_the_edges_take_the_tails(float64: torch.dtype) -> None:
    far = DiscretizedLogistic(torch.tensor([-50.0, 50.0]), 0.1, num_levels=4)
    probs = far.log_prob(far.enumerate_support()).exp()
    torch.testing.assert_close(probs[:, 0], torch.tensor([1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(probs[:, 1], torch.tensor([0.0, 0.0, 0.0, 1.0]))
    one = torch.tensor(0.2)
    d = DiscretizedLogistic(one, 0.1, num_levels=4)
    lowest = torch.sigmoid((1 / 6 - one) / 0.1)
    torch.testing.assert_close(d.log_prob(torch.tensor(0.0)).exp(), lowest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e3])
def test_log_prob_and_gradient_are_finite_far_away(scale: float, dtype: torch.dtype) -> None:
    loc = torch.linspace(-30, 30, 13, dtype=dtype).requires_grad_()
    scales = torch.full((), scale, dtype=dtype, requires_grad=True)
    d = DiscretizedLogistic(loc, scales)
    scores = d.log_prob(d.enumerate_support(expand=False))
    assert bool(scores.isfinite().all())
    assert bool((scores <= 0).all())
    scores.sum().backward()
    assert loc.grad is not None and bool(loc.grad.isfinite().all())
    assert scales.grad is not None and bool(scales.grad.isfinite())


def test_a_far_tail_falls_as_the_distance_over_the_scale(float64: torch.dtype) -> None:
    # log P(x_k) = -|x_k - mu| / s + log(2 sinh(step / 2s)) up to e^{-|x_k - mu| / s}.
    d = DiscretizedLogistic(0.0, 1e-3, num_levels=256)
    k = torch.arange(100, 200)
    step = 1 / 255
    ratio = step / 2e-3
    expected = -(k / 255) / 1e-3 + ratio + math.log(-math.expm1(-2 * ratio))
    torch.testing.assert_close(d.log_prob(k / 255), expected)


def test_gradcheck(float64: torch.dtype) -> None:
    x = torch.tensor([0.0, 0.2, 0.8, 1.0])

    def score(loc: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
        d = DiscretizedLogistic(loc, log_scale.exp(), num_levels=6, validate_args=False)
        return d.log_prob(x)

    for log_scale in (-6.9, -2.0, 3.0):
        inputs = (
            torch.tensor([0.01, 0.3, 0.77, 1.2], requires_grad=True),
            torch.tensor(log_scale, requires_grad=True),
        )
        assert torch.autograd.gradcheck(score, inputs)


@pytest.mark.parametrize("num_levels", [2, 256, 4096])
def test_draws_and_data_are_the_same_numbers(num_levels: int) -> None:
    d = DiscretizedLogistic(0.5, 0.3, num_levels=num_levels)
    levels = torch.arange(num_levels) / (num_levels - 1)
    torch.testing.assert_close(d.enumerate_support(), levels, rtol=0, atol=0)
    assert bool(torch.isin(d.sample((1000,)), levels).all())
    assert bool(d.support.check(levels).all())
    assert not bool(d.support.check(levels[:-1] + 0.5 / (num_levels - 1)).any())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_levels": 1}, "at least 2 levels"),
        ({"low": 1.0, "high": 0.0}, "low < high"),
        ({"scale": torch.tensor(-1.0)}, "scale"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiscretizedLogistic(**{"loc": 0.5, "scale": 0.1, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0.1, -1 / 255, 256 / 255, math.nan])
def test_a_value_that_is_no_level_is_refused(value: float) -> None:
    d = DiscretizedLogistic(0.5, 0.1)
    with pytest.raises(ValueError, match="256 levels from 0"):
        d.expand((2,)).log_prob(torch.tensor([0.0, value]))
    unchecked = DiscretizedLogistic(0.5, 0.1, validate_args=False)
    unchecked.expand((2,)).log_prob(torch.tensor([0.0, value]))
