# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Pictures of two-dimensional densities: what stands where, and errors."""

import numpy as np
import pytest
import torch

from pyro_deepgen.plots import density, density_grid

BOX = ((-2.0, 4.0), (-1.0, 3.0))


def test_density_has_its_axes_the_right_way_round(device):
    mean = torch.tensor([3.0, 0.0], device=device)
    samples = (mean + torch.randn(20, 2, device=device)).requires_grad_()

    def log_prob(z):
        assert z.device.type == device.type
        # Far from normalised: exp of it would overflow.
        return 5000 - (z - mean).square().sum(-1)

    axes = density(log_prob, BOX, samples).axes[0]
    image = axes.images[0]
    array = np.asarray(image.get_array())
    row, column = np.unravel_index(array.argmax(), array.shape)
    left, right, bottom, top = image.get_extent()
    assert image.origin == "lower"
    assert left + (column + 0.5) / 200 * (right - left) == pytest.approx(3.0, abs=0.03)
    assert bottom + (row + 0.5) / 200 * (top - bottom) == pytest.approx(0.0, abs=0.02)
    assert array.max() == 1
    points = np.asarray(axes.collections[0].get_offsets())
    assert np.allclose(points, samples.detach().cpu().numpy())
    assert axes.get_xlim() == BOX[0]
    assert axes.get_ylim() == BOX[1]


def test_density_may_be_zero_in_places():
    def log_prob(z):
        return torch.where(z[:, 0] > 0, -z.square().sum(-1), -torch.inf)

    array = np.asarray(density(log_prob, BOX).axes[0].images[0].get_array())
    assert array[:, :60].max() == 0
    assert array.max() == 1


def test_density_follows_the_dtype_of_the_samples():
    seen = set()

    def log_prob(z):
        seen.add((z.dtype, z.requires_grad, torch.is_grad_enabled()))
        return -z.square().sum(-1)

    density(log_prob, BOX, torch.zeros(3, 2, dtype=torch.float64))
    density(log_prob, BOX)
    assert seen == {(torch.float64, False, False), (torch.float32, False, False)}


def test_density_errors():
    def gaussian(z):
        return -z.square()

    with pytest.raises(ValueError, match=r"must map shape \(N, 2\) to \(N,\), got \(10000, 2\)"):
        density(gaussian, BOX)
    with pytest.raises(ValueError, match="low < high"):
        density(lambda z: -z.square().sum(-1), ((1.0, -1.0), (0.0, 1.0)))
    with pytest.raises(ValueError, match=r"samples must have shape \(N, 2\), got \(5, 3\)"):
        density(lambda z: -z.square().sum(-1), BOX, torch.zeros(5, 3))
    for bad in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(ValueError, match="finite somewhere"):
            density(lambda z, bad=bad: z[:, 0] * 0 + bad, BOX)


def peak_at(x, y):
    return lambda z: 300 - 20 * (z - torch.tensor([x, y])).square().sum(-1)


def test_density_grid_has_rows_columns_and_boxes_the_right_way_round():
    wide = ((-10.0, 10.0), (-6.0, 0.0))
    peaks = [[(3.0, 0.0), (-1.0, 2.0), (0.0, 0.5)], [(8.0, -5.0), (-9.0, -1.0), (2.0, -3.0)]]
    rows = [[peak_at(*place) for place in row] for row in peaks]
    figure = density_grid(rows, [BOX, wide], ["first", "second"], ["a", "b", "c"])
    panels = np.array(figure.axes).reshape(2, 3)
    assert [axes.get_title() for axes in panels[0]] == ["a", "b", "c"]
    assert [axes.get_ylabel() for axes in panels[:, 0]] == ["first", "second"]
    for row, box in enumerate((BOX, wide)):
        for column in range(3):
            (image,) = panels[row, column].images
            array = np.asarray(image.get_array())
            assert array.max() == 1
            (left, right), (bottom, top) = box
            assert image.get_extent() == [left, right, bottom, top]
            at = np.unravel_index(array.argmax(), array.shape)
            x, y = peaks[row][column]
            assert left + (at[1] + 0.5) / 120 * (right - left) == pytest.approx(x, abs=0.1)
            assert bottom + (at[0] + 0.5) / 120 * (top - bottom) == pytest.approx(y, abs=0.03)


@pytest.mark.parametrize(
    ("rows", "boxes", "row_labels", "column_labels", "said"),
    [
        (0, 0, [], ["a"], "a panel at least, got 0 rows"),
        (1, 1, ["r"], [], "0 column labels"),
        (2, 1, ["r", "s"], ["a"], "got 2 rows, 1 bounds, 2 row labels"),
        (1, 1, ["r", "s"], ["a"], "got 1 rows, 1 bounds, 2 row labels"),
        (1, 1, ["r"], ["a", "b"], "expected 2 log densities in each row.* got a row of 1"),
    ],
)
def test_density_grid_errors(rows, boxes, row_labels, column_labels, said):
    functions = [[peak_at(0.0, 0.0)]] * rows
    with pytest.raises(ValueError, match=said):
        density_grid(functions, [BOX] * boxes, row_labels, column_labels)


def test_density_grid_refuses_bad_bounds_and_bad_densities():
    with pytest.raises(ValueError, match="low < high"):
        density_grid([[peak_at(0.0, 0.0)]], [((1.0, 0.0), (0.0, 1.0))], ["r"], ["a"])
    with pytest.raises(ValueError, match="finite somewhere"):
        density_grid([[lambda z: z[:, 0] * torch.nan]], [BOX], ["r"], ["a"])
