# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The mixture-of-logistics equation against what it must equal."""

import pytest
import torch

from pyro_deepgen.transforms import Affine, LogisticMixture

pytestmark = pytest.mark.usefixtures("float64")


def bound(raw: torch.Tensor, limit: float) -> torch.Tensor:
    return raw / (1 + (raw / limit) ** 2).sqrt()


def test_one_component_is_an_affine_map() -> None:
    mixture, x = LogisticMixture(1), torch.randn(20)
    shift, a, mean, log_scale = torch.randn(4, 20)
    theta = torch.stack([shift, a, torch.randn(20), mean, log_scale], -1)
    bounded = bound(torch.stack([a, log_scale]), 5.0)
    slope = (bounded[0] - bounded[1]).exp()
    for way, expected in (
        ("forward_and_log_slope", slope * x + shift - bounded[0].exp() * mean / bounded[1].exp()),
        ("inverse_and_log_slope", (x - shift) / slope + mean),
    ):
        y, log_slope = getattr(mixture, way)(x, theta)
        torch.testing.assert_close(y, expected)
        sign = 1 if way.startswith("forward") else -1
        torch.testing.assert_close(log_slope, sign * slope.log())


def test_equal_components_are_the_affine_equation() -> None:
    x, shift, a = torch.randn(3, 20)
    theta = torch.cat([torch.stack([shift, a], -1), torch.zeros(20, 9)], -1)
    affine = Affine().forward_and_log_slope(x, torch.stack([shift, a], -1))
    found = LogisticMixture(3).forward_and_log_slope(x, theta)
    for f, e in zip(found, affine, strict=True):
        torch.testing.assert_close(f, e)


def test_it_is_the_logit_of_the_distribution_function_of_a_mixture() -> None:
    mixture, x, theta = LogisticMixture(3, bound=4.0), torch.randn(50), torch.randn(50, 11)
    weights = theta[:, 2:5].softmax(-1)
    scales = bound(theta[:, 8:], 4.0).exp()
    cdf = (weights * torch.sigmoid((x[:, None] - theta[:, 5:8]) / scales)).sum(-1)
    expected = bound(theta[:, 1], 4.0).exp() * torch.logit(cdf) + theta[:, 0]
    torch.testing.assert_close(mixture.forward_and_log_slope(x, theta)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_round_trips_of_wild_parameters_and_far_points(
    dtype: torch.dtype, device: torch.device
) -> None:
    mixture = LogisticMixture(4)
    y = (torch.linspace(-2, 2, 401).sinh() * 300).to(device, dtype)  # to 1e3 either way
    for size in (0.1, 1.0, 5.0, 50.0):
        theta = (size * torch.randn(401, 14)).to(device, dtype)
        x, log_slope = mixture.inverse_and_log_slope(y, theta)
        assert bool(x.isfinite().all() & log_slope.isfinite().all())
        back, log_slope_back = mixture.forward_and_log_slope(x, theta)
        torch.testing.assert_close(log_slope_back, -log_slope)
        # The error of rounding x and what is added up, in y.
        scale = 1 + y.abs() + theta.abs().amax(-1)
        unit = torch.finfo(dtype).eps * scale * (1 + log_slope_back.exp())
        assert bool(((back - y).abs() <= 100 * unit).all())


def test_derivatives_of_the_root_are_those_of_the_implicit_function() -> None:
    mixture, y = LogisticMixture(2), torch.randn(3, requires_grad=True)
    theta = torch.randn(3, 8, requires_grad=True)
    assert torch.autograd.gradcheck(mixture.inverse_and_log_slope, (y, theta))
    assert torch.autograd.gradgradcheck(mixture.inverse_and_log_slope, (y, theta))


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="num_components a positive"):
        LogisticMixture(0)
    with pytest.raises(ValueError, match="expected a positive bound"):
        LogisticMixture(2, bound=0.0)
