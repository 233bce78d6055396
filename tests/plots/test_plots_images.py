# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Pictures of images: what stands where, and errors."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_deepgen.plots import (
    image_grid,
    latent_map,
    latent_sizes,
    manifold,
    nearest,
    nearest_neighbors,
    reconstructions,
    sample_grid,
    traversal,
)


def pixels(figure: Figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


def yticks(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def constant(*values: float, size: int = 8) -> Tensor:
    """Images of one shade each."""
    return torch.tensor(values)[:, None, None, None].expand(-1, 1, size, size)


def test_places_are_in_reading_order_and_the_rest_is_white():
    array = pixels(image_grid(constant(0.1, 0.2, 0.3, 0.4, 0.5), ncols=3))
    # 8 pixels an image and a gap of 1.
    assert array.shape == (17, 26, 3)
    assert np.allclose(array[4, [4, 13, 22], 0], [0.1, 0.2, 0.3])
    assert np.allclose(array[13, [4, 13, 22], 0], [0.4, 0.5, 1.0])
    assert np.allclose(array[8], 1.0)


@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 1, 6, 5), (4, 3, 6, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shapes_dtypes_and_gradients(shape, dtype, device):
    images = torch.rand(shape, device=device).to(dtype).requires_grad_()
    array = pixels(image_grid(images * 1, ncols=2))
    assert array.shape == (13, 11, 3)
    first = images[0].detach().double().cpu().reshape(-1, 6, 5).expand(3, 6, 5)
    assert np.allclose(array[:6, :5], first.permute(1, 2, 0).numpy())


def test_values_outside_are_drawn_as_black_and_white():
    array = pixels(image_grid(constant(-2.0, 3.0)))
    assert array.min() == 0
    assert array.max() == 1


def test_row_labels_and_columns():
    figure = image_grid(torch.rand(5, 8, 8), ncols=2, row_labels=["a", "b", "c"])
    assert yticks(figure) == ["a", "b", "c"]
    assert pixels(sample_grid(torch.rand(10, 8, 8))).shape == (26, 35, 3)
    assert pixels(sample_grid(torch.rand(10, 8, 8), ncols=5)).shape == (17, 44, 3)


def test_reconstructions_stand_below_their_originals():
    x = constant(0.1, 0.2, 0.3)
    array = pixels(reconstructions(x, x + 0.5, ncols=2))
    middle = array[:, :, 0][:, [4, 13]]
    tops = [4, 13, 25, 34]
    expected = [[0.1, 0.2], [0.6, 0.7], [0.3, 1.0], [0.8, 1.0]]
    assert np.allclose(middle[tops], expected)


def test_nearest_agrees_with_sorting_all_distances(device):
    x_train = torch.rand(57, 1, 4, 4, device=device)
    samples = torch.rand(5, 1, 4, 4, device=device).requires_grad_()
    everything = (samples.detach().flatten(1)[:, None] - x_train.flatten(1)).norm(dim=-1)
    expected, order = everything.sort(-1)
    for max_elements in (1, 40, 10**6):
        distances, indices = nearest(samples, x_train, 4, max_elements)
        torch.testing.assert_close(distances, expected[:, :4])
        assert torch.equal(indices, order[:, :4])


def test_a_copy_is_at_distance_zero():
    x_train = torch.rand(100, 784)
    distances, indices = nearest(x_train, x_train, 1)
    assert float(distances.max()) == 0.0
    assert indices.flatten().tolist() == list(range(100))
    # The expanded square, which is faster, leaves a distance that looks like no copy.
    expanded = torch.cdist(x_train, x_train, compute_mode="use_mm_for_euclid_dist")
    assert float(expanded.diagonal().max()) > 1e-3


def test_neighbours_stand_to_the_right_in_rising_distance():
    x_train = constant(0.9, 0.3, 0.5)
    figure = nearest_neighbors(constant(0.32), x_train, num_neighbors=3)
    array = pixels(figure)[4, :, 0]
    # The gap between the sample and its neighbours is wider by 3.
    assert np.allclose(array[[4, 16, 25, 34]], [0.32, 0.3, 0.5, 0.9])
    assert yticks(figure) == ["0.16"]
    columns = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert columns == ["sample", "nearest", "no. 2", "no. 3"]


@pytest.mark.parametrize(("num", "rows"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_latent_sizes_has_a_panel_for_each(num, rows):
    figure = latent_sizes({d: torch.rand(6, 8, 8) for d in range(1, num + 1)})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "1 latent dimension"
    assert len(titles) == num
    assert len({round(axes.get_position().y0, 3) for axes in figure.axes}) == rows


@pytest.mark.parametrize(
    "images", [torch.rand(4, 64), torch.rand(8), torch.rand(2, 2, 8, 8), torch.rand(0, 8, 8)]
)
def test_wrong_shapes(images):
    with pytest.raises(ValueError, match=r"must have shape \(N, H, W\), .* got .*; reshape flat"):
        image_grid(images)


def test_wrong_values():
    with pytest.raises(ValueError, match=r"torch.uint8; divide"):
        image_grid(torch.zeros(2, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="holds NaN"):
        image_grid(torch.full((2, 8, 8), float("nan")))


def test_wrong_arguments():
    x = torch.rand(4, 8, 8)
    with pytest.raises(ValueError, match="each of the 2 rows, got 3"):
        image_grid(x, ncols=2, row_labels=["a", "b", "c"])
    for draw in (lambda: image_grid(x, ncols=0), lambda: reconstructions(x, x, ncols=0)):
        with pytest.raises(ValueError, match="ncols must be at least 1, got 0"):
            draw()
    with pytest.raises(ValueError, match=r"one shape, got \(4, 8, 8\) and \(3, 8, 8\)"):
        reconstructions(x, x[:3])
    with pytest.raises(ValueError, match="images of one size"):
        nearest_neighbors(x, torch.rand(9, 8, 7))
    with pytest.raises(ValueError, match="from 1 to the 3 training data, got 5"):
        nearest_neighbors(x, x[:3])
    with pytest.raises(ValueError, match="from 1 to the 0 training data, got 5"):
        nearest_neighbors(x, x[:0])
    with pytest.raises(ValueError, match="samples must have shape"):
        nearest_neighbors(x[:0], x)
    with pytest.raises(ValueError, match="at least one grid"):
        latent_sizes({})
    with pytest.raises(ValueError, match="the samples of 3 latent dimensions must have shape"):
        latent_sizes({3: torch.rand(9)})


def test_arrays_are_drawn_as_tensors_are():
    x = torch.rand(5, 1, 8, 8)
    array = x.numpy()
    for draw in (
        lambda x: sample_grid(x),
        lambda x: reconstructions(x, x),
        lambda x: nearest_neighbors(x[:2], x, 3),
        lambda x: latent_sizes({2: x}),
        lambda x: traversal(x[:4], [0.0, 1.0], dims=[0, 1]),
        lambda x: manifold(x[:4], [-1.0, 1.0]),
    ):
        assert np.array_equal(pixels(draw(x)), pixels(draw(array)))
    # One that is not contiguous, or cannot be written to.
    turned = np.flip(array, 0)
    turned.flags.writeable = False
    assert np.array_equal(pixels(sample_grid(turned)), pixels(sample_grid(x.flip(0))))
    codes, classes = x[:, 0, 0, :2], torch.arange(5)
    places = [
        figure.axes[0].collections[0].get_offsets()
        for figure in (latent_map(codes, classes), latent_map(codes.numpy(), classes.numpy()))
    ]
    assert np.array_equal(*places)


def test_a_list_is_refused():
    with pytest.raises(ValueError, match=r"images must be a tensor or an array, got list; .*stack"):
        sample_grid(list(torch.rand(4, 8, 8)))
