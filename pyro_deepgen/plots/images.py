# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Pictures of images: grids, reconstructions, nearest neighbours, several latent sizes.

All take tensors or arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from pyro_deepgen.plots.canvas import (
    LABEL_SIZE,
    as_images,
    as_tensor,
    draw_mosaic,
    mosaic,
    mosaic_size,
    new_figure,
)


def image_grid(
    images: Tensor | NDArray[Any],
    ncols: int = 10,
    title: str = "Images",
    row_labels: Sequence[str] | None = None,
) -> Figure:
    """Images in rows, in reading order.

    Args:
        images: Shades in [0, 1], shape ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, 3, H, W)``.
        ncols: The number of columns.
        title: The title.
        row_labels: A label for each row.

    Returns:
        The figure.

    Raises:
        ValueError: If a shape does not fit, or the labels are not one for each row.

    Example:
        >>> figure = image_grid(torch.rand(6, 8, 8), ncols=3, row_labels=["first", "second"])
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['first', 'second']
    """
    if ncols < 1:
        raise ValueError(f"ncols must be at least 1, got {ncols}")
    array = as_images(images)
    picture = mosaic(array, min(ncols, len(array)))
    if row_labels is not None and len(row_labels) != len(picture.rows):
        raise ValueError(
            f"row_labels must hold one label for each of the {len(picture.rows)} rows, got "
            f"{len(row_labels)}"
        )
    width, height = mosaic_size(picture)
    labels_width = 0.0 if row_labels is None else 0.2 + 0.08 * max(len(s) for s in row_labels)
    figure = new_figure(width + labels_width + 0.2, height + 0.2, title)
    draw_mosaic(figure.add_subplot(), picture, row_labels)
    return figure


def sample_grid(
    images: Tensor | NDArray[Any], title: str = "Samples", ncols: int | None = None
) -> Figure:
    """Samples of a model in a grid that is as square as it can be.

    Args:
        images: Shades in [0, 1], shape ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, 3, H, W)``.
        title: The title.
        ncols: The number of columns; ``None`` is the square root of the number of images.

    Returns:
        The figure.

    Raises:
        ValueError: If a shape does not fit.

    Example:
        >>> sample_grid(torch.rand(9, 1, 8, 8)).get_suptitle()
        'Samples'
    """
    images = as_tensor(images, "images")
    return image_grid(images, ncols or math.ceil(math.sqrt(max(1, len(images)))), title)


def reconstructions(
    x: Tensor | NDArray[Any],
    x_reconstructed: Tensor | NDArray[Any],
    title: str = "Originals and reconstructions",
    ncols: int = 10,
) -> Figure:
    """Each original above its reconstruction, in pairs of rows.

    Args:
        x: Originals, shape ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, 3, H, W)``.
        x_reconstructed: Reconstructions, in the same number and order.
        title: The title.
        ncols: The number of columns.

    Returns:
        The figure.

    Raises:
        ValueError: If a shape does not fit, or the two differ in size.

    Example:
        >>> x = torch.rand(12, 1, 8, 8)
        >>> figure = reconstructions(x, x)
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['original', 'reconstruction', 'original', 'reconstruction']
    """
    if ncols < 1:
        raise ValueError(f"ncols must be at least 1, got {ncols}")
    original, copy = as_images(x, "x"), as_images(x_reconstructed, "x_reconstructed")
    if original.shape != copy.shape:
        raise ValueError(
            f"x and x_reconstructed must have one shape, got {tuple(x.shape)} and "
            f"{tuple(x_reconstructed.shape)}"
        )
    ncols = min(ncols, len(original))
    num_blocks = math.ceil(len(original) / ncols)
    # The last pair of rows must stay aligned, so it is filled up with blanks before pairing.
    blank = np.ones((num_blocks * ncols - len(original), *original.shape[1:]))
    pairs = [
        np.concatenate([images, blank]).reshape(num_blocks, ncols, *images.shape[1:])
        for images in (original, copy)
    ]
    picture = mosaic(np.stack(pairs, 1).reshape(-1, *original.shape[1:]), ncols, rows_together=2)
    width, height = mosaic_size(picture)
    figure = new_figure(width + 1.3, height + 0.2, title)
    draw_mosaic(figure.add_subplot(), picture, ["original", "reconstruction"] * num_blocks)
    return figure


def nearest_neighbors(
    samples: Tensor | NDArray[Any],
    x_train: Tensor | NDArray[Any],
    num_neighbors: int = 5,
    title: str = "Samples and their nearest training data",
) -> Figure:
    r"""Each sample beside the training data nearest to it in :math:`L_2` distance.

    A model that memorises shows good samples; here it shows a copy in the second column, with a
    distance near 0.

    Args:
        samples: Samples, shape ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, 3, H, W)``.
        x_train: Training data of the same shape but for their number.
        num_neighbors: The number of neighbours of each sample.
        title: The title.

    Returns:
        The figure; each row is labelled by the distance to the nearest.

    Raises:
        ValueError: If a shape does not fit, or there are fewer training data than neighbours.

    Example:
        >>> x_train = torch.rand(100, 1, 8, 8)
        >>> figure = nearest_neighbors(x_train[40:42], x_train)
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['0.00', '0.00']
    """
    samples, x_train = as_tensor(samples, "samples"), as_tensor(x_train, "x_train")
    own = as_images(samples, "samples")
    if samples.shape[1:].numel() != x_train.shape[1:].numel():
        raise ValueError(
            f"samples and x_train must be images of one size, got {tuple(samples.shape)} and "
            f"{tuple(x_train.shape)}"
        )
    if not 1 <= num_neighbors <= len(x_train):
        raise ValueError(
            f"num_neighbors must be from 1 to the {len(x_train)} training data, got {num_neighbors}"
        )
    distances, indices = nearest(samples, x_train, num_neighbors)
    neighbors = as_images(x_train[indices.flatten().to(x_train.device)], "x_train")
    rows = np.concatenate(
        [own[:, None], neighbors.reshape(len(own), num_neighbors, *own.shape[1:])], 1
    )
    picture = mosaic(rows.reshape(-1, *own.shape[1:]), num_neighbors + 1, columns_together=1)
    width, height = mosaic_size(picture, cell=0.62)
    figure = new_figure(width + 0.7, height + 0.4, title)
    axes = figure.add_subplot()
    columns = ["sample", "nearest", *(f"no. {k}" for k in range(2, num_neighbors + 1))]
    draw_mosaic(axes, picture, [f"{d:.2f}" for d in distances[:, 0].tolist()], columns)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_ylabel("$L_2$ distance to the nearest", fontsize=LABEL_SIZE)
    return figure


def nearest(
    samples: Tensor, x_train: Tensor, num_neighbors: int, max_elements: int = 2**22
) -> tuple[Tensor, Tensor]:
    r"""The nearest training data of each sample in :math:`L_2` distance, in bounded memory.

    Args:
        samples: Samples, shape ``(N, ...)``.
        x_train: Training data, shape ``(M, ...)``.
        num_neighbors: :math:`k`.
        max_elements: How many distances are held at a time.

    Returns:
        Distances in rising order and indices into ``x_train``, each of shape ``(N, k)``.

    Example:
        >>> x_train = torch.rand(50, 4)
        >>> nearest(x_train[[7, 3]], x_train, 1)[1].flatten().tolist()
        [7, 3]
    """
    points = samples.detach().flatten(1)
    distances = points.new_full((len(points), num_neighbors), math.inf)
    indices = torch.zeros_like(distances, dtype=torch.long)
    chunk = max(1, max_elements // len(points))
    for start in range(0, len(x_train), chunk):
        data = x_train[start : start + chunk].detach().flatten(1).to(points)
        # By differences: the expanded square would give a copy a distance far above 0.
        found = torch.cdist(points, data, compute_mode="donot_use_mm_for_euclid_dist")
        where = torch.arange(start, start + len(data), device=points.device).expand_as(found)
        distances, order = torch.cat([distances, found], 1).topk(num_neighbors, largest=False)
        indices = torch.cat([indices, where], 1).gather(1, order)
    return distances, indices


def latent_sizes(
    images: Mapping[int, Tensor | NDArray[Any]],
    title: str = "Samples by latent size",
    ncols: int = 6,
) -> Figure:
    """Samples of models that differ in the number of latent dimensions, side by side.

    Args:
        images: For each number of latent dimensions its samples, each of shape ``(N, H, W)``,
            ``(N, 1, H, W)`` or ``(N, 3, H, W)``.
        title: The title.
        ncols: The number of columns of each grid.

    Returns:
        The figure, with one panel for each number of latent dimensions.

    Raises:
        ValueError: If there is no grid or a shape does not fit.

    Example:
        >>> figure = latent_sizes({2: torch.rand(12, 8, 8), 20: torch.rand(12, 8, 8)})
        >>> [axes.get_title() for axes in figure.axes]
        ['2 latent dimensions', '20 latent dimensions']
    """
    if not images or ncols < 1:
        raise ValueError("latent_sizes needs at least one grid of samples and one column")
    pictures = {}
    for size, samples in images.items():
        array = as_images(samples, f"the samples of {size} latent dimensions")
        pictures[size] = mosaic(array, min(ncols, len(array)))
    down = math.ceil(len(pictures) / 3)
    across = math.ceil(len(pictures) / down)
    sizes = [mosaic_size(picture, cell=0.4) for picture in pictures.values()]
    width, height = (max(side) for side in zip(*sizes, strict=True))
    figure = new_figure(across * (width + 0.25), down * (height + 0.4), title)
    for place, (size, picture) in enumerate(pictures.items(), start=1):
        axes = figure.add_subplot(down, across, place)
        draw_mosaic(axes, picture)
        axes.set_title(f"{size} latent dimension{'s' * (size != 1)}", fontsize=LABEL_SIZE)
    return figure
