# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Who sees whom in an image: nobody what comes later, and whether all that came before."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pyro_deepgen.autoregressive import (
    CategoricalOutput,
    GatedPixelCNN,
    LogisticMixtureOutput,
    PixelCNN,
    PixelRNN,
    pixel_lstm,
)
from pyro_deepgen.nn import MaskedConv2d
from tests.autoregressive.rows_pixels import NETWORKS, changed

pytestmark = pytest.mark.usefixtures("float64")

Reach = Callable[[int, int], bool]


def seen(model: Any) -> torch.Tensor:
    """Return whether a variable's parameters (row) have a gradient by another (column), in order.

    Both are numbered in reading order, with the channels of a pixel one after the other.
    """
    x = torch.rand(12, *model.event_shape)

    def summed(x: torch.Tensor) -> torch.Tensor:
        parameters = model.conditionals(x).sum(0)
        weights = torch.linspace(1, 2, parameters.shape[-1])
        return (parameters * weights).sum(-1).permute(1, 2, 0).flatten()

    jacobian = torch.autograd.functional.jacobian(summed, x)
    return torch.as_tensor((jacobian != 0).any(1).permute(0, 2, 3, 1).flatten(1))


def before(num: int) -> torch.Tensor:
    return torch.ones(num, num).tril(-1) > 0


def within(reach: Reach, height: int, width: int) -> torch.Tensor:
    """Return which pixels see which, where `reach(up, right)` says how far one sees."""
    places = [(i, j) for i in range(height) for j in range(width)]
    rows = [[reach(i - k, m - j) for k, m in places] for i, j in places]
    return torch.tensor(rows) & before(height * width)


@pytest.mark.parametrize("output", [None, LogisticMixtureOutput(2, 4)], ids=["binary", "levels"])
@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 2, 2), (2, 2, 3)])
@pytest.mark.parametrize("network", NETWORKS)
def test_nobody_sees_itself_or_what_comes_later(network: str, shape: Any, output: Any) -> None:
    pattern = seen(changed(NETWORKS[network](shape, output)))
    assert not bool((pattern & ~before(len(pattern))).any())
    assert bool(pattern.diagonal(-1).any())


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_classes_change_what_comes_later_only(network: str, one_hot: bool) -> None:
    model = changed(NETWORKS[network]((2, 2, 2), CategoricalOutput(3), one_hot=one_hot))
    x = torch.randint(3, (40, 2, 2, 2))
    parameters = model.conditionals(x)
    for place, variable in enumerate(model.order.tolist()):
        other = x.flatten(1).clone()
        other[:, variable] = (other[:, variable] + 1) % 3
        after = model.conditionals(other.reshape(x.shape))
        changes = (after != parameters).any(-1).any(0).flatten()[model.order]
        assert changes.tolist() == [False] * (place + 1) + [True] * (7 - place)


EVERYTHING: dict[str, Callable[[], Any]] = {
    "gated": lambda: GatedPixelCNN((1, 4, 5), num_layers=4, num_channels=12, first_kernel_size=3),
    "gated_wide": lambda: GatedPixelCNN((1, 4, 5), num_layers=2, num_channels=12),
    "gated_colour": lambda: GatedPixelCNN(
        (3, 3, 3), num_layers=2, num_channels=24, first_kernel_size=3
    ),
    "gated_levels": lambda: GatedPixelCNN(
        (2, 3, 3), LogisticMixtureOutput(2, 4), num_layers=3, num_channels=12, first_kernel_size=3
    ),
    "diagonal": lambda: PixelRNN((1, 4, 5), num_layers=1, num_units=6, first_kernel_size=3),
    "diagonal_colour": lambda: PixelRNN((3, 3, 3), num_layers=1, num_units=9, first_kernel_size=3),
    "row": lambda: PixelRNN(
        (1, 4, 5), kind="row", num_layers=1, num_units=6, first_kernel_size=3, kernel_size=9
    ),
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_no_blind_spot(name: str) -> None:
    pattern = seen(changed(EVERYTHING[name]()))
    assert torch.equal(pattern, before(len(pattern)))


def test_the_last_pixel_of_the_row_above_is_seen_in_the_image_itself() -> None:
    """The published network has this blind spot; see `DiagonalLSTM`."""
    model = changed(EVERYTHING["diagonal"]())
    torch.nn.init.zeros_(model.recurrent[0].look.weight)
    # A kernel of 3 columns reaches it from the last two pixels of the row.
    unseen = (before(20) & ~seen(model)).nonzero().tolist()
    assert unseen == [[5 * i + j, 5 * i - 1] for i in (1, 2, 3) for j in (0, 1, 2)]


# What is seen of the pixel `up` rows above and `right` columns to the right.
PARTIAL: dict[str, tuple[Callable[[], Any], Reach]] = {
    # The blind spot: a step up reaches one column to the right, whatever the number of layers.
    "cnn": (
        lambda: PixelCNN((1, 4, 5), num_blocks=6, num_channels=16, first_kernel_size=3),
        lambda up, right: right <= up,
    ),
    "cnn_wide": (
        lambda: PixelCNN((1, 4, 5), num_blocks=6, num_channels=16, first_kernel_size=5),
        lambda up, right: right <= up + 1,
    ),
    "cnn_shallow": (
        lambda: PixelCNN((1, 4, 5), num_blocks=1, num_channels=16, first_kernel_size=3),
        lambda up, right: right <= up <= 2 and right >= -2,
    ),
    "gated_shallow": (
        lambda: GatedPixelCNN((1, 4, 5), num_layers=2, num_channels=12, first_kernel_size=3),
        lambda up, right: up <= 2 and abs(right) <= 2,
    ),
    "row": (
        lambda: PixelRNN((1, 4, 5), kind="row", num_layers=4, num_units=6, first_kernel_size=3),
        lambda up, right: right <= up,
    ),
}


@pytest.mark.parametrize("name", PARTIAL)
def test_known_blind_spots(name: str) -> None:
    make, reach = PARTIAL[name]
    expected = within(reach, 4, 5)
    assert not torch.equal(expected, before(20))
    assert torch.equal(seen(changed(make())), expected)


# ---------------------------------------------------------------- planted errors


@pytest.mark.parametrize("network", NETWORKS)
def test_a_planted_mask_error_is_found(network: str) -> None:
    def wrong(model: Any) -> bool:
        pattern = seen(model)
        return bool((pattern & ~before(len(pattern))).any())

    model = changed(NETWORKS[network]((2, 3, 3)))
    assert not wrong(model)
    masked = [m for m in model.modules() if isinstance(m, MaskedConv2d) and m.sight in ("A", "B")]
    assert len(masked) > 3
    for layer in masked:
        right = layer.mask.clone()
        layer.mask.fill_(1.0)
        assert wrong(model)
        layer.mask.copy_(right)
    first = masked[0] if network != "gated" else model.layers[0]["horizontal"]
    for unit, label in enumerate(first.out_labels):
        if label == 0:  # a pixel's first channel sees itself
            first.mask[unit, 0, -1, first.side] = 1.0
    assert wrong(model)


def test_states_from_the_right_must_enter_a_row_below(monkeypatch: pytest.MonkeyPatch) -> None:
    right = pixel_lstm.pad

    def too_early(x: torch.Tensor, sizes: Any) -> torch.Tensor:
        return right(x, (0, 0, 0, 1) if x.dim() == 4 and sizes == (0, 0, 1, 0) else sizes)

    model = changed(NETWORKS["diagonal"]((1, 3, 3)))
    monkeypatch.setattr(pixel_lstm, "pad", too_early)
    assert bool((seen(model) & ~before(9)).any())
