# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Draws with cached rows: the same values as by whole passes, with a fraction of their work."""

from itertools import product
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pyro_deepgen.autoregressive import GatedPixelCNN, PixelCNN, PixelRNN
from tests.autoregressive.rows_pixels import NETWORKS, SETTINGS, changed, pixels

pytestmark = pytest.mark.usefixtures("float64")


def both_ways(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return draws of the quick and of the slowest way from the same random numbers."""
    torch.manual_seed(5)
    quick = model.sample((20,))
    torch.manual_seed(5)
    return quick, model.naive_sample((20,))


CONTEXTS: list[dict[str, int]] = [{"context_dim": 2}, {"context_channels": 2}]


@pytest.mark.parametrize(
    ("setting", "kwargs"),
    [*((name, {}) for name in SETTINGS), *product(["grey", "colour", "mixture"], CONTEXTS)],
)
@pytest.mark.parametrize("network", NETWORKS)
def test_the_same_values_from_the_same_random_numbers(
    network: str, setting: str, kwargs: Any
) -> None:
    model = pixels(network, setting, **kwargs)
    if kwargs:
        model = model.condition(torch.randn(2, *model.context_shape))
    quick, slow = both_ways(model)
    assert quick.dtype == slow.dtype
    assert torch.equal(quick, slow)
    assert 1 < len(quick.unique()) <= model.output.num_values
    assert model.sample((0,)).shape == (0, *model.batch_shape, *model.event_shape)


@pytest.mark.parametrize("shape", [(1, 1, 5), (1, 5, 1), (2, 1, 1), (1, 7, 6)])
@pytest.mark.parametrize("network", NETWORKS)
def test_images_of_any_shape(network: str, shape: tuple[int, int, int]) -> None:
    model = changed(NETWORKS[network](shape))
    assert torch.equal(*both_ways(model))


@pytest.mark.parametrize("network", NETWORKS)
def test_kernels_that_are_wider_than_the_image(network: str) -> None:
    cls = {"cnn": PixelCNN, "gated": GatedPixelCNN}.get(network, PixelRNN)
    further: dict[str, Any] = {"kind": network} if cls is PixelRNN else {}
    model = changed(cls((1, 3, 3), first_kernel_size=9, kernel_size=7, **further))
    assert torch.equal(*both_ways(model))


def test_a_wrong_cache_gives_other_values(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_deepgen.autoregressive.pixel_walk import ConvolutionSteps

    model = pixels("cnn")
    monkeypatch.setattr(ConvolutionSteps, "new_row", lambda self: self.current.zero_())
    assert not torch.equal(*both_ways(model))


@pytest.mark.parametrize("setting", ["grey", "colour", "mixture"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_draw_takes_no_more_products_than_one_pass(network: str, setting: str) -> None:
    (channels, *_), output, further = SETTINGS[setting]
    model = NETWORKS[network]((channels, 5, 6), output, **further).eval().requires_grad_(False)
    x = model.sample()
    counts = []
    for work in (model.sample, lambda: model.conditionals(x)):
        with FlopCounterMode(display=False) as counter:
            work()
        counts.append(counter.get_total_flops())
    # The pass also multiplies by the weights that are hidden; and it is one of D.
    assert 0 < counts[0] < counts[1]
