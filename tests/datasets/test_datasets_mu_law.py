# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The mu-law: the published formula, its inverse, its levels and their edges."""

from math import log

import pytest
import torch

from pyro_deepgen.datasets import MuLaw


@pytest.mark.parametrize("num_levels", [2, 3, 16, 255, 256, 65_536])
def test_levels_come_back(num_levels: int, float64: torch.dtype) -> None:
    law, levels = MuLaw(num_levels), torch.arange(num_levels)
    amplitudes = law.restore(levels)
    assert torch.equal(law.quantize(amplitudes), levels)
    assert bool((amplitudes.diff() > 0).all())
    torch.testing.assert_close(amplitudes, -amplitudes.flip(0))
    assert float(amplitudes[-1]) == pytest.approx(1.0)


def test_eight_bits_in_single_precision() -> None:
    levels = torch.arange(256)
    amplitudes = MuLaw().restore(levels)
    assert amplitudes.dtype == torch.float32
    assert torch.equal(MuLaw().quantize(amplitudes), levels)
    assert MuLaw().restore(levels.double()).dtype == torch.float64


def test_the_published_formula(float64: torch.dtype) -> None:
    law = MuLaw(256)
    for x in (-1.0, -0.5, -1e-3, 0.0, 1e-3, 0.02, 0.7, 1.0):
        sign = (x > 0) - (x < 0)
        expected = sign * log(1 + 255 * abs(x)) / log(1 + 255)
        assert float(law.compress(torch.tensor(x))) == pytest.approx(expected, abs=1e-14)
    x = torch.linspace(-1, 1, 1001)
    torch.testing.assert_close(law.expand(law.compress(x)), x)
    # The slopes at 0 and at 1: 255 / ln 256, and that over 256.
    slope = torch.func.vmap(torch.func.grad(law.compress))(torch.tensor([1e-12, 1.0]))
    expected_slopes = torch.tensor([255 / log(256), 255 / log(256) / 256])
    torch.testing.assert_close(slope, expected_slopes)


def test_levels_are_the_nearest_in_what_is_compressed(float64: torch.dtype) -> None:
    law, x = MuLaw(64), 2 * torch.rand(5000) - 1
    places = 2 * torch.arange(64) / 63 - 1
    nearest = (law.compress(x).unsqueeze(-1) - places).abs().argmin(-1)
    assert torch.equal(law.quantize(x), nearest)
    assert law.quantize(torch.tensor([-3.0, 3.0])).tolist() == [0, 63]


def test_errors_are_in_proportion_to_amplitudes(float64: torch.dtype) -> None:
    law = MuLaw(256)
    x = torch.logspace(-1.5, 0, 2000)
    relative = (law.restore(law.quantize(x)) - x).abs() / x
    # Half a step, ln(256) / 255, of ln(1 + 255 x), and a little for the 1.
    assert float(relative.max()) < log(256) / 255 * (1 + 10**1.5 / 255) * 1.02
    uniform = ((x + 1) / 2 * 255).round() / 255 * 2 - 1
    assert float(((uniform - x).abs() / x).max()) > 3 * float(relative.max())


def test_edges_are_where_the_level_changes(float64: torch.dtype) -> None:
    law = MuLaw(256)
    edges = law.edges()
    assert edges.shape == (255,)
    assert torch.equal(law.quantize(edges - 1e-9), torch.arange(255))
    assert torch.equal(law.quantize(edges + 1e-9), torch.arange(1, 256))
    assert law.edges(torch.zeros((), dtype=torch.float32)).dtype == torch.float32


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="num_levels must be at least 2, got 1"):
        MuLaw(1)
    with pytest.raises(
        ValueError, match=r"floating-point amplitudes in \[-1, 1\], got torch.int16"
    ):
        MuLaw().quantize(torch.zeros(3, dtype=torch.int16))
