# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Densities with a formula: pointwise, and by quadrature."""

import math

import pytest
import torch
from torch import Tensor

from pyro_deepgen.datasets import POTENTIALS, Potential, potential

BOX = {
    "U1": ((-6.0, 6.0), (-6.0, 6.0)),
    "U2": ((-4.0, 4.0), (-5.0, 5.0)),
    "U3": ((-4.0, 4.0), (-7.0, 5.0)),
    "U4": ((-4.0, 4.0), (-8.0, 5.0)),
    "banana": ((-6.0, 6.0), (-5.0, 40.0)),
}


def midpoints(low: float, high: float, num: int) -> tuple[Tensor, float]:
    step = (high - low) / num
    return low + step * (torch.arange(num, dtype=torch.float64) + 0.5), step


def integral(density: Potential, box: tuple[tuple[float, float], tuple[float, float]]) -> float:
    (first, step1), (second, step2) = (midpoints(*side, 1500) for side in box)
    z = torch.cartesian_prod(first, second)
    return float(density.log_prob(z).exp().sum() * step1 * step2)


def by_hand(name: str, z1: float, z2: float) -> float:
    """The energies of table 1, number by number."""
    gauss = lambda x, s: math.exp(-0.5 * (x / s) ** 2)  # noqa: E731
    w1 = math.sin(2 * math.pi * z1 / 4)
    w2 = 3 * gauss(z1 - 1, 0.6)
    w3 = 3 / (1 + math.exp(-(z1 - 1) / 0.3))
    if name == "U1":
        ring = 0.5 * ((math.hypot(z1, z2) - 2) / 0.4) ** 2
        return ring - math.log(gauss(z1 - 2, 0.6) + gauss(z1 + 2, 0.6))
    if name == "U2":
        return 0.5 * ((z2 - w1) / 0.4) ** 2
    if name == "U3":
        return -math.log(gauss(z2 - w1, 0.35) + gauss(z2 - w1 + w2, 0.35))
    return -math.log(gauss(z2 - w1, 0.4) + gauss(z2 - w1 + w3, 0.35))


@pytest.mark.parametrize("name", ["U1", "U2", "U3", "U4"])
def test_energies_of_the_table(name):
    z = torch.randn(200, 2, dtype=torch.float64)
    expected = torch.tensor([-by_hand(name, *point) for point in z.tolist()], dtype=torch.float64)
    torch.testing.assert_close(potential(name)(z), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", BOX)
def test_log_prob_is_normalised(name):
    assert integral(potential(name), BOX[name]) == pytest.approx(1, abs=1e-5)


def test_log_normalizer_of_u1_in_polar_coordinates():
    radius, step1 = midpoints(0, 6, 1500)
    angle, step2 = midpoints(0, 2 * math.pi, 1500)
    r, a = torch.cartesian_prod(radius, angle).unbind(-1)
    density = potential("U1")
    z = torch.stack([r * a.cos(), r * a.sin()], -1)
    total = (density(z).exp() * r).sum() * step1 * step2
    assert math.log(float(total)) == pytest.approx(density.log_normalizer, abs=1e-8)


def test_funnel_is_normalised():
    # With z2 = exp(z1 / 2) u the narrow end needs no finer grid than the wide one.
    (z1, step1), (u, step2) = midpoints(-25, 25, 1000), midpoints(-8, 8, 400)
    z1, u = torch.cartesian_prod(z1, u).unbind(-1)
    z = torch.stack([z1, (z1 / 2).exp() * u], -1)
    log_prob = potential("funnel").log_prob(z) + z1 / 2
    assert float(log_prob.exp().sum() * step1 * step2) == pytest.approx(1, abs=1e-6)


def test_banana_and_funnel_against_distributions():
    z = torch.randn(100, 2, dtype=torch.float64)
    normal = torch.distributions.Normal
    z1, z2 = z.unbind(-1)
    banana = normal(0.0, 1.0).log_prob(z1) + normal(z1**2 - 1, 0.5).log_prob(z2)
    funnel = normal(0.0, 3.0).log_prob(z1) + normal(0.0, (z1 / 2).exp()).log_prob(z2)
    torch.testing.assert_close(potential("banana").log_prob(z), banana)
    torch.testing.assert_close(potential("funnel").log_prob(z), funnel)


@pytest.mark.parametrize("name", ["U2", "U3", "U4"])
def test_waves_are_cut_off(name):
    density = potential(name)
    outside = torch.tensor([[4.5, 0.0], [-4.5, 0.0]])
    assert density.log_prob(outside).tolist() == [-math.inf, -math.inf]
    assert bool(density(outside).isfinite().all())


@pytest.mark.parametrize("name", POTENTIALS)
def test_shape_dtype_device_and_gradient(name, device):
    density = potential(name)
    assert density.name == name
    for dtype in (torch.float32, torch.float64):
        z = torch.randn(4, 3, 2, dtype=dtype, device=device).requires_grad_()
        value = density(z)
        assert value.shape == (4, 3)
        assert value.dtype == dtype
        (gradient,) = torch.autograd.grad(value.sum(), z)
        assert bool(gradient.isfinite().all())
        assert density.log_prob(z).shape == (4, 3)


@pytest.mark.parametrize("name", POTENTIALS)
def test_bounds_hold_most_of_the_mass(name):
    density = potential(name)
    # The funnel loses the ends of z1, whose standard deviation is 3, and a long tail of z2.
    assert integral(density, density.bounds) > (0.9 if name == "funnel" else 0.98)


def test_errors():
    with pytest.raises(ValueError, match="expected one of U1, U2, U3, U4, banana, funnel"):
        potential("U5")
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 2\), got \(5, 3\)"):
        potential("U1")(torch.zeros(5, 3))
