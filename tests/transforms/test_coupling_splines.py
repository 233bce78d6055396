# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Rational-quadratic splines against a scalar reference, at knots, in the tails, in float32."""

import math

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_deepgen.transforms import RationalQuadratic

pytestmark = pytest.mark.usefixtures("float64")


def knots(theta: list[float], spline: RationalQuadratic) -> tuple[list[float], ...]:
    """Return the knots and the slopes there from the parameters, number by number."""
    num, bound = spline.num_bins, spline.bound
    places = []
    for part in (theta[:num], theta[num : 2 * num]):
        weights = [math.exp(p - max(part)) for p in part]
        place = [-bound]
        for weight in weights[:-1]:
            share = weight / sum(weights)
            fraction = spline.min_size + (1 - num * spline.min_size) * share
            place.append(place[-1] + 2 * bound * fraction)
        places.append([*place, bound])
    shift = math.log(math.exp(1 - spline.min_slope) - 1)
    slopes = []
    for p in theta[2 * num :]:
        softplus = max(p + shift, 0.0) + math.log1p(math.exp(-abs(p + shift)))
        slopes.append(spline.min_slope + softplus)
    return places[0], places[1], [1.0, *slopes, 1.0]


def reference(x: float, theta: list[float], spline: RationalQuadratic) -> tuple[float, float]:
    """Return the value and the log-slope by the formula of the paper (equations 4 and 5)."""
    if not -spline.bound <= x <= spline.bound:
        return x, 0.0
    xs, ys, slopes = knots(theta, spline)
    k = max(i for i in range(spline.num_bins) if xs[i] <= x)
    s = (ys[k + 1] - ys[k]) / (xs[k + 1] - xs[k])
    xi = (x - xs[k]) / (xs[k + 1] - xs[k])
    bottom = s + (slopes[k + 1] + slopes[k] - 2 * s) * xi * (1 - xi)
    y = ys[k] + (ys[k + 1] - ys[k]) * (s * xi**2 + slopes[k] * xi * (1 - xi)) / bottom
    top = slopes[k + 1] * xi**2 + 2 * s * xi * (1 - xi) + slopes[k] * (1 - xi) ** 2
    return y, math.log(s**2 * top / bottom**2)


@pytest.mark.parametrize("num_bins", [1, 2, 5])
@pytest.mark.parametrize("size", [0.0, 1.0, 3.0])
def test_values_are_those_of_the_scalar_formula(num_bins: int, size: float) -> None:
    spline = RationalQuadratic(num_bins, bound=2.5)
    x, theta = 2 * torch.randn(40), size * torch.randn(40, 3 * num_bins - 1)
    y, log_slope = spline.forward_and_log_slope(x, theta)
    expected = [reference(x[i].item(), theta[i].tolist(), spline) for i in range(40)]
    torch.testing.assert_close(torch.stack([y, log_slope], -1), torch.tensor(expected))


def test_the_memory_layout_of_the_parameters_and_broadcasting_change_nothing() -> None:
    spline, x = RationalQuadratic(4), 3 * torch.randn(6, 5, 3)
    theta = torch.randn(5, 11, 3).mT
    for run in (spline.forward_and_log_slope, spline.inverse_and_log_slope):
        whole = run(x, theta.contiguous().expand(6, 5, 3, 11))
        for found, expected in zip(run(x, theta), whole, strict=True):
            torch.testing.assert_close(found, expected)
        wide = run(x[0, 0], theta)
        for found, expected in zip(wide, run(x[:1, :1].expand(1, 5, 3)[0], theta), strict=True):
            torch.testing.assert_close(found, expected)


def test_zero_parameters_are_the_identity() -> None:
    spline, x = RationalQuadratic(7, bound=3.0), torch.linspace(-4, 4, 999)
    for run in (spline.forward_and_log_slope, spline.inverse_and_log_slope):
        y, log_slope = run(x, torch.zeros(20))
        torch.testing.assert_close(y, x, atol=1e-14, rtol=0)
        torch.testing.assert_close(log_slope, torch.zeros(999), atol=1e-13, rtol=0)


def random_spline(num_bins: int, size: float) -> tuple[RationalQuadratic, torch.Tensor]:
    return RationalQuadratic(num_bins), size * torch.randn(3 * num_bins - 1)


def knots_of(spline: RationalQuadratic, theta: torch.Tensor) -> torch.Tensor:
    """Return the knots of x, as the spline has them to the last bit or one beside it."""
    return torch.tensor(knots(theta.tolist(), spline)[0])


def test_increasing_and_continuous_with_its_slope() -> None:
    for size in (1.0, 3.0):
        spline, theta = random_spline(6, size)
        x = torch.linspace(-6, 6, 20_001)
        y, _ = spline.forward_and_log_slope(x, theta)
        assert bool((y.diff() > 0).all())
        x = knots_of(spline, theta)
        for gap in (1e-9, 1e-11):
            below, slope_below = spline.forward_and_log_slope(x - gap, theta)
            above, slope_above = spline.forward_and_log_slope(x + gap, theta)
            assert bool(((above - below).abs() <= 3 * gap * slope_below.exp() + 1e-13).all())
            torch.testing.assert_close(slope_below, slope_above, atol=1e-4 * gap / 1e-9, rtol=1e-4)


def test_outside_the_bound_it_is_the_identity_to_the_last_bit() -> None:
    spline, theta = random_spline(8, 2.0)
    edge = torch.nextafter(torch.tensor(5.0), torch.tensor(6.0))
    x = torch.tensor([edge, 7.0, 1e3, 1e30, math.inf])
    x = torch.cat([-x, x])
    for run in (spline.forward_and_log_slope, spline.inverse_and_log_slope):
        y, log_slope = run(x, theta)
        assert torch.equal(y, x)
        assert bool((log_slope == 0).all())
        at_bound = run(torch.tensor([-5.0, 5.0]), theta)
        torch.testing.assert_close(at_bound[0], torch.tensor([-5.0, 5.0]), atol=1e-14, rtol=0)
        torch.testing.assert_close(at_bound[1], torch.zeros(2), atol=1e-13, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_are_finite_at_knots_and_for_extreme_values(
    dtype: torch.dtype, device: torch.device
) -> None:
    for size in (0.0, 1.0, 30.0, 1e3):
        spline, theta = random_spline(6, size)
        at = torch.cat([knots_of(spline, theta), torch.tensor([-1e3, 1e3, -5.0, 5.0, 1e30, 0.0])])
        points = at.to(device, dtype).requires_grad_()
        theta = theta.to(device, dtype).requires_grad_()
        for run in (spline.forward_and_log_slope, spline.inverse_and_log_slope):
            y, log_slope = run(points, theta)
            assert bool(y.isfinite().all() & log_slope.isfinite().all())
            for output in (y, log_slope):
                gradients = torch.autograd.grad(output.sum(), (points, theta), retain_graph=True)
                assert all(bool(g.isfinite().all()) for g in gradients)


def test_the_log_slope_is_that_of_the_slope_by_autograd() -> None:
    spline, x = RationalQuadratic(5), 3 * torch.randn(500)
    theta = 2 * torch.randn(500, 14)
    for run in (spline.forward_and_log_slope, spline.inverse_and_log_slope):
        x = x.detach().requires_grad_()
        y, log_slope = run(x, theta)
        (slope,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(slope.log(), log_slope, atol=1e-9, rtol=1e-9)


# In single precision, K = 8 bins on [-5, 5]. What no algorithm avoids is the rounding of y, which
# a slope magnifies in x; so errors of x are held against eps * B / slope.
@pytest.mark.parametrize(("size", "largest"), [(0.1, 2e-6), (1.0, 1e-5)])
def test_the_round_trip_in_single_precision_is_as_good_as_rounding_allows(
    size: float, largest: float
) -> None:
    spline = RationalQuadratic(8)
    x = (10 * torch.rand(100_000) - 5).float()
    theta = (size * torch.randn(100_000, 23)).float()
    y, log_slope = spline.forward_and_log_slope(x, theta)
    back, log_slope_back = spline.inverse_and_log_slope(y, theta)
    error = (back - x).abs()
    reach = torch.finfo(torch.float32).eps * 5 * (1 + (-log_slope).exp())
    assert bool((error <= 8 * reach).all())
    assert float(error.mean()) < largest
    exact, _ = spline.forward_and_log_slope(x.double(), theta.double())
    reach = torch.finfo(torch.float32).eps * 5 * (1 + log_slope.exp())
    assert bool(((y - exact).abs() <= 8 * reach).all())
    assert float((log_slope_back + log_slope).abs().max()) < 1e-2


def test_the_discriminant_of_the_textbook_loses_what_ours_keeps() -> None:
    # A flat end: slope 1e-3 at the last knot of a steep bin, and a point just before it.
    left, right, s = (torch.tensor(v, dtype=torch.float32) for v in (1.0, 1e-3, 1.0))
    xi = 1 - torch.logspace(-6, -2, 200, dtype=torch.float64)
    bottom = s.double() + (left.double() + right.double() - 2 * s.double()) * xi * (1 - xi)
    eta = ((s * xi**2 + left * xi * (1 - xi)) / bottom).float()
    # By the formula of the paper.
    total = left + right - 2 * s
    a, b, c = s - left + eta * total, left - eta * total, -s * eta
    textbook = 2 * c / (-b - torch.sqrt((b * b - 4 * a * c).clamp_min(0)))
    rest = 1 - eta
    u = left * rest - right * eta
    q = u.abs() + torch.sqrt(u * u + 4 * s * s * eta * rest)
    ours = torch.where(u >= 0, 2 * s * eta / (2 * s * eta + q), q / (q + 2 * s * rest))
    # The exact roots of the rounded eta.
    e = eta.double()
    u = left.double() * (1 - e) - right.double() * e
    q = u.abs() + torch.sqrt(u * u + 4 * e * (1 - e))
    exact = torch.where(u >= 0, 2 * e / (2 * e + q), q / (q + 2 * (1 - e)))
    assert float((ours - exact).abs().max()) < 2e-7
    assert float((textbook - exact).abs().max()) > 1e-5


def test_under_vmap_and_compiled_and_recorded() -> None:
    torch._dynamo.reset()
    spline, x, theta = RationalQuadratic(4), 4 * torch.randn(6, 3), torch.randn(6, 3, 11)

    def run(x: torch.Tensor, theta: torch.Tensor) -> tuple[torch.Tensor, ...]:
        there = spline.forward_and_log_slope(x, theta)
        return *there, *spline.inverse_and_log_slope(x, theta)

    expected = run(x, theta)
    compiled = torch.compile(run, fullgraph=True, backend="eager")
    recorded = make_fx(torch.func.vmap(run))(x + 1, theta)
    per_weight = torch.func.vmap(run, in_dims=(None, 0))(x[0], theta)
    for ways in (torch.func.vmap(run)(x, theta), compiled(x, theta), recorded(x, theta)):
        for found, e in zip(ways, expected, strict=True):
            torch.testing.assert_close(found, e)
    torch.testing.assert_close(per_weight[0][2], run(x[0], theta[2])[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_bins": 0}, "expected as num_bins a positive whole number"),
        ({"min_size": 0.0}, r"expected min_size above 0 and below 1 / num_bins = 0\.125"),
        ({"min_size": 0.125}, "use fewer bins, or a smaller min_size"),
        ({"min_slope": 1.0}, "expected min_slope above 0 and below 1, got 1.0"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RationalQuadratic(**arguments)  # type: ignore[arg-type]
