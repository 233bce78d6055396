# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""The three binarisation protocols."""

import math

import pytest
import torch
from torch import Tensor

from pyro_deepgen.datasets import BINARIZATIONS, Binarize, binarize


def grey(num: int = 400, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randint(0, 17, (num, 1, 8, 8)).to(dtype) / 16


def mean_score(bits: Tensor, x: Tensor) -> float:
    """The error of the bits' total, in its standard errors, if the bits are Bernoulli(x)."""
    return float((bits - x).sum() / (x * (1 - x)).sum().sqrt())


def neighbor_score(bits: Tensor, x: Tensor) -> float:
    """The sum of products of errors of neighbouring pixels, in its standard errors."""
    error, variance = (bits - x).flatten(1), (x * (1 - x)).flatten(1)
    scale = (variance[:, 1:] * variance[:, :-1]).sum().sqrt()
    return float((error[:, 1:] * error[:, :-1]).sum() / scale)


def datum_score(bits: Tensor, x: Tensor) -> float:
    """The sum of products of errors of one pixel in consecutive data, in its standard errors."""
    return neighbor_score(bits.flatten(1).T, x.flatten(1).T)


@pytest.mark.parametrize("protocol", BINARIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_have_shape_dtype_and_device_of_the_data(protocol, dtype, device):
    x = grey(dtype=dtype).to(device).requires_grad_()
    bits = binarize(x, protocol)
    assert bits.shape == x.shape
    assert bits.dtype == dtype
    assert bits.device.type == device.type
    assert not bits.requires_grad
    assert set(bits.unique().tolist()) == {0.0, 1.0}


def test_threshold_is_strict():
    x = torch.tensor([[0.0, 0.5, 0.501, 1.0]])
    assert binarize(x, "threshold").tolist() == [[0.0, 0.0, 1.0, 1.0]]


@pytest.mark.parametrize("protocol", ["fixed", "dynamic"])
def test_bits_are_independent_bernoulli(protocol, device):
    x = grey(4000).to(device)
    bits = binarize(x, protocol)
    for score in (mean_score, neighbor_score, datum_score):
        assert abs(score(bits, x)) < 4, score.__name__


def test_scores_find_planted_bugs():
    x = grey(4000)
    rounded = torch.rand_like(x) < (x * 15 / 16)
    one_noise_an_image = (torch.rand(len(x), 1, 1, 1) < x).float()
    one_noise_for_all = (torch.rand(1, 1, 8, 8) < x).float()
    assert abs(mean_score(rounded.float(), x)) > 4
    assert abs(neighbor_score(one_noise_an_image, x)) > 4
    assert abs(datum_score(one_noise_for_all, x)) > 4


@pytest.mark.parametrize("protocol", BINARIZATIONS)
def test_black_and_white_stay(protocol, device):
    x = torch.randint(0, 2, (200, 64)).float().to(device)
    assert torch.equal(binarize(x, protocol), x)


def test_fixed_is_a_function_of_datum_and_seed():
    x = grey()
    bits = binarize(x, "fixed", seed=1)
    order = torch.randperm(len(x))
    torch.manual_seed(99)
    assert torch.equal(binarize(x, "fixed", seed=1), bits)
    assert torch.equal(binarize(x[order], "fixed", seed=1), bits[order])
    assert torch.equal(torch.cat([binarize(b, "fixed", seed=1) for b in x.split(7)]), bits)
    assert torch.equal(binarize(x.double(), "fixed", seed=1).float(), bits)


def test_fixed_leaves_the_global_generator_alone():
    x = grey()
    state = torch.get_rng_state()
    binarize(x, "fixed")
    assert torch.equal(torch.get_rng_state(), state)


def test_fixed_agrees_between_devices(device):
    x = grey()
    assert torch.equal(binarize(x.to(device), "fixed", seed=5).cpu(), binarize(x, "fixed", seed=5))


def test_fixed_differs_by_seed_and_between_near_twins():
    # Where two draws are independent and x = 1/2, they agree in half of the pixels.
    half = torch.full((1, 10_000), 0.5)
    twin = half.clone()
    twin[0, 0] = 0.5 + 1 / 255
    for one, other in (
        (binarize(half, "fixed", seed=0), binarize(half, "fixed", seed=1)),
        (binarize(half, "fixed", seed=0), binarize(half, "fixed", seed=-1)),
        (binarize(half, "fixed"), binarize(twin, "fixed")),
    ):
        agreement = float((one == other).float().mean())
        assert abs(agreement - 0.5) < 4 * math.sqrt(0.25 / 10_000)


def test_fixed_works_in_chunks_and_without_data(monkeypatch):
    x = grey(50)
    whole = binarize(x, "fixed")
    monkeypatch.setattr("pyro_deepgen.datasets.binarization._CHUNK_ELEMENTS", 200)
    assert torch.equal(binarize(x, "fixed"), whole)
    assert binarize(x[:0], "fixed").shape == (0, 1, 8, 8)


def test_dynamic_is_drawn_afresh_from_the_global_generator():
    x = grey()
    torch.manual_seed(3)
    first, second = binarize(x, "dynamic"), binarize(x, "dynamic")
    torch.manual_seed(3)
    assert torch.equal(binarize(x, "dynamic"), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("protocol", BINARIZATIONS)
@pytest.mark.parametrize("bad", [-0.1, 1.1, 255.0, float("nan")])
def test_values_outside_the_unit_interval(protocol, bad):
    x = grey(3)
    x[1, 0, 2, 2] = bad
    with pytest.raises(ValueError, match=r"expected grey values in \[0, 1\], got values from"):
        binarize(x, protocol)


def test_validation_can_be_switched_off():
    x = torch.tensor([[2.0, -1.0]])
    assert binarize(x, "threshold", validate_args=False).tolist() == [[1.0, 0.0]]


def test_integers_and_unknown_protocols():
    with pytest.raises(ValueError, match=r"torch.uint8; divide"):
        binarize(torch.zeros(2, 3, dtype=torch.uint8), "threshold")
    with pytest.raises(ValueError, match="expected one of threshold, fixed, dynamic"):
        binarize(grey(1), "static")
    with pytest.raises(ValueError, match="expected one of threshold, fixed, dynamic"):
        Binarize("static")


def test_binarize_object_is_the_function_with_a_name():
    x = grey()
    assert torch.equal(Binarize("fixed", seed=4)(x), binarize(x, "fixed", seed=4))
    names = [Binarize(protocol, seed=4).name for protocol in BINARIZATIONS]
    assert names == ["threshold", "fixed(seed=4)", "dynamic"]
