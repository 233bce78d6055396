# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""The two-dimensional toys: samples against what is known of their distribution."""

import math

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from pyro_deepgen.datasets import TOYS, toy

N = 20_000
# A chi-square test at this level fails as rarely as a normal one at 4 standard errors.
LEVEL = 1 - 6.3e-5


def mean_scores(x: Tensor) -> list[float]:
    """The mean of each coordinate in its standard errors."""
    return (x.mean(0) / x.std(0) * math.sqrt(len(x))).abs().tolist()


def occupancy_score(index: Tensor, num_cells: int) -> float:
    """Pearson's statistic of equally likely cells."""
    counts = torch.bincount(index, minlength=num_cells).double()
    expected = len(index) / num_cells
    return float((counts - expected).square().sum() / expected)


@pytest.mark.parametrize("name", TOYS)
def test_shape_seed_and_dtype(name):
    state = torch.get_rng_state()
    x = toy(name, 100, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert x.shape == (100, 2)
    assert x.dtype == torch.float32
    assert torch.equal(toy(name, 100, seed=1), x)
    assert not torch.equal(toy(name, 100, seed=2), x)
    assert torch.equal(toy(name, 100, seed=1, dtype=torch.float64).float(), x)


@pytest.mark.parametrize("name", TOYS)
def test_centre_and_extent(name):
    x = toy(name, N, dtype=torch.float64)
    # Each of them is symmetric about the origin, by half a turn or a fifth of one.
    assert max(mean_scores(x)) < 4
    assert float((x.abs() <= 4).all(-1).double().mean()) > 0.98
    assert max(mean_scores(x + 0.2)) > 4


def test_eight_gaussians():
    def score(x: Tensor) -> tuple[float, Tensor]:
        cell = (torch.atan2(x[:, 1], x[:, 0]) / (math.pi / 4)).round().long() % 8
        angle = cell * math.pi / 4
        residual = x - 3 * torch.stack([angle.cos(), angle.sin()], -1)
        # Squares of 2 N standard normals: mean 2 N, variance 4 N.
        square = float((residual / 0.3).square().sum())
        return (square - 2 * N) / math.sqrt(4 * N), cell

    x = toy("eight_gaussians", N, dtype=torch.float64)
    spread, cell = score(x)
    assert abs(spread) < 4
    assert occupancy_score(cell, 8) < chi2.ppf(LEVEL, 7)
    wider, _ = score(x + 0.1 * torch.randn(N, 2, dtype=torch.float64))
    assert abs(wider) > 4


def test_checkerboard():
    def cells(x: Tensor, size: float) -> Tensor:
        return ((x + 4) / size).floor().long()

    x = toy("checkerboard", N, dtype=torch.float64)
    column, row = cells(x, 2).unbind(-1)
    assert bool(((column + row) % 2 == 0).all())
    # The 8 squares, and the quarters of each, are equally likely.
    fine = cells(x, 1) % 2
    index = ((4 * column + row) // 2) * 4 + fine @ torch.tensor([2, 1])
    assert occupancy_score(index, 32) < chi2.ppf(LEVEL, 31)
    planted = torch.where(torch.rand(N) < 0.1, index * 0, index)
    assert occupancy_score(planted, 32) > chi2.ppf(LEVEL, 31)


def test_rings():
    x = toy("rings", N, dtype=torch.float64)
    radius = x.norm(dim=-1)
    ring = radius.round().clamp(1, 3)
    assert occupancy_score(ring.long() - 1, 3) < chi2.ppf(LEVEL, 2)
    # Noise across a ring of radius r pushes outward by 0.1^2 / 2r: small beside the noise itself.
    excess = radius - ring - 0.1**2 / (2 * ring)
    assert abs(float(excess.mean())) < 4 * 0.1 / math.sqrt(N) + 1e-4
    square = float((excess / 0.1).square().mean())
    assert abs(square - 1) < 4 * math.sqrt(2 / N) + 0.01
    assert abs(1.2**2 - 1) > 4 * math.sqrt(2 / N) + 0.01
    angle = (torch.atan2(x[:, 1], x[:, 0]) / (2 * math.pi) * 12).floor().long() % 12
    assert occupancy_score(angle, 12) < chi2.ppf(LEVEL, 11)


def test_two_moons_lie_on_their_half_circles():
    x = toy("two_moons", N, dtype=torch.float64)
    upper = (x - torch.tensor([-1.0, -0.5])).norm(dim=-1) - 2
    lower = (x - torch.tensor([1.0, 0.5])).norm(dim=-1) - 2
    distance = torch.minimum(upper.abs(), lower.abs())
    # The distance to the nearer circle is at most that to the own one, which is noise of 0.2 but
    # for the curvature, 0.2^2 / 4 outward.
    assert float(distance.mean()) < 0.2 * math.sqrt(2 / math.pi) + 0.02
    assert float((distance < 5 * 0.2).double().mean()) > 0.9999


def test_spirals_lie_on_their_arms():
    x = toy("spirals", N, dtype=torch.float64)
    turn = torch.linspace(0, 1, 1500, dtype=torch.float64)
    arm = 3.5 * torch.stack(
        [turn * (3 * math.pi * turn).cos(), turn * (3 * math.pi * turn).sin()], -1
    )
    distance = torch.cdist(x[:4000], torch.cat([arm, -arm])).amin(-1)
    assert float((distance < 5 * 0.1).double().mean()) > 0.9999
    assert 0.04 < float(distance.mean()) < 0.1


def test_pinwheel_has_five_arms():
    x = toy("pinwheel", N, dtype=torch.float64)
    radius = x.norm(dim=-1)
    # Unwound by its bend, an arm is a straight line at a multiple of 72 degrees.
    angle = torch.atan2(x[:, 1], x[:, 0]) - 0.25 * (radius / 2).exp()
    arm = (angle / (2 * math.pi / 5)).round()
    off = (angle - arm * 2 * math.pi / 5).abs()
    assert float(off[radius > 1].mean()) < 0.06
    assert occupancy_score(arm.long() % 5, 5) < chi2.ppf(LEVEL, 4)


def test_errors():
    with pytest.raises(ValueError, match="expected one of two_moons, pinwheel"):
        toy("moons", 10)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        toy("rings", 0)
