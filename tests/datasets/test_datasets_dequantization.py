# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Uniform dequantisation and its inverse."""

import math

import pytest
import torch

from pyro_deepgen.datasets import dequantize, dequantized_scale, quantize


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_levels", [2, 17, 49, 256])
def test_quantize_inverts_dequantize(num_levels, dtype, device):
    level = torch.arange(num_levels, dtype=dtype, device=device).repeat(500, 1)
    x = level / (num_levels - 1)
    y = dequantize(x, num_levels)
    assert y.dtype == dtype
    assert y.device.type == device.type
    assert float(y.min()) > 0
    assert float(y.max()) < 1
    assert torch.equal(quantize(y, num_levels), x)


@pytest.mark.parametrize("extreme", [0.0, 1.0])
@pytest.mark.parametrize("num_levels", [2, 17, 49, 255, 256])
def test_extreme_noise_stays_in_its_bin(num_levels, extreme, monkeypatch):
    # The largest noise that torch.rand gives is one rounding error below 1: a plain sum with the
    # level would round up to the next one.
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, extreme))
    x = torch.arange(num_levels) / (num_levels - 1)
    assert torch.equal(quantize(dequantize(x, num_levels), num_levels), x)


def test_noise_is_uniform_in_its_bin():
    n, num_levels = 40_000, 256
    x = torch.randint(0, num_levels, (n,)).double() / (num_levels - 1)
    noise = dequantize(x, num_levels) * num_levels - x * (num_levels - 1)
    # Mean 1/2 with variance 1/12; the square of the centred noise has mean 1/12, variance 1/180.
    assert abs(float(noise.mean()) - 1 / 2) < 4 * math.sqrt(1 / 12 / n)
    assert abs(float((noise - 0.5).square().mean()) - 1 / 12) < 4 * math.sqrt(1 / 180 / n)
    triangular = (torch.rand(n) + torch.rand(n)) / 2
    planted = float((triangular - 0.5).square().mean())
    assert abs(planted - 1 / 12) > 4 * math.sqrt(1 / 180 / n)


def test_generator_decides_the_noise(device):
    x = torch.zeros(50, device=device)
    first, second = (dequantize(x, 256, torch.Generator(device).manual_seed(0)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, dequantize(x, 256))


def test_scale_turns_nats_into_bits():
    # A uniform density over the levels has log2(K) bits a dimension, whatever the units.
    num_levels, dim = 17, 64
    scale = dequantized_scale(num_levels)
    log_density = 0.0
    bits = -(log_density + dim * math.log(scale.bin_width)) / (dim * math.log(2))
    assert bits == pytest.approx(math.log2(num_levels))


def test_errors():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        dequantize(torch.zeros(3), 1)
    with pytest.raises(ValueError, match=r"torch\.uint8; divide integer levels"):
        dequantize(torch.zeros(3, dtype=torch.uint8), 256)
    with pytest.raises(ValueError, match=r"use torch\.float32"):
        dequantize(torch.zeros(3, dtype=torch.bfloat16), 256)
    with pytest.raises(ValueError, match="at least 2, got 0"):
        quantize(torch.zeros(3), 0)


def test_quantize_takes_values_outside_to_the_nearest_level():
    assert quantize(torch.tensor([-0.5, 1.0, 3.0]), 3).tolist() == [0.0, 1.0, 1.0]
