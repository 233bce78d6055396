# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Pictures of a latent space: a map, a traversal, the manifold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from pyro_deepgen.plots.canvas import (
    TICK_SIZE,
    Mosaic,
    as_array,
    as_images,
    draw_mosaic,
    label_axes,
    mosaic,
    mosaic_size,
    new_figure,
)

_MAX_CLASSES = 20


def latent_map(
    z: Tensor | NDArray[Any],
    y: Tensor | NDArray[Any] | None = None,
    title: str = "Latent map",
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Two-dimensional codes, coloured by class.

    Args:
        z: Codes, shape ``(N, 2)``.
        y: Integer classes, shape ``(N,)``; ``None`` draws one colour.
        title: The title.
        class_names: The name of each class that occurs, in rising order of class; ``None`` names
            them by their number.

    Returns:
        The figure.

    Raises:
        ValueError: If a shape does not fit, or there are more than 20 classes.

    Example:
        >>> figure = latent_map(torch.randn(30, 2), torch.arange(30) % 3)
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['0', '1', '2']
    """
    if z.ndim != 2 or z.shape[1] != 2 or len(z) == 0:
        raise ValueError(
            f"z must have shape (N, 2), got {tuple(z.shape)}; choose two of its dimensions, as "
            "z[:, [0, 1]]"
        )
    if y is not None and y.shape != z.shape[:1]:
        raise ValueError(f"y must have shape ({len(z)},), one class a code, got {tuple(y.shape)}")
    points = as_array(z)
    classes = np.zeros(len(z)) if y is None else as_array(y)
    found = np.unique(classes)
    if len(found) > _MAX_CLASSES:
        raise ValueError(
            f"at most {_MAX_CLASSES} classes can be told apart by colour, got {len(found)}"
        )
    names = [f"{c:g}" for c in found] if class_names is None else list(class_names)
    if len(names) != len(found):
        raise ValueError(f"class_names must hold {len(found)} names, got {len(names)}")
    figure = new_figure(5.4 if y is not None else 4.8, 4.6, title)
    axes = figure.add_subplot()
    colors = colormaps["tab10" if len(found) <= 10 else "tab20"]
    # One class after another would hide the early classes under the late ones.
    order = np.random.default_rng(0).permutation(len(points))
    axes.scatter(
        points[order, 0],
        points[order, 1],
        c=[colors(i) for i in np.searchsorted(found, classes)[order]],
        s=float(np.clip(8000 / len(points), 3, 20)),
        alpha=0.75,
        linewidths=0,
    )
    if y is not None:
        handles = [
            axes.scatter([], [], color=colors(i), s=25, label=name) for i, name in enumerate(names)
        ]
        axes.legend(
            handles=handles,
            title="class",
            fontsize=TICK_SIZE,
            title_fontsize=TICK_SIZE,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            frameon=False,
        )
    axes.set_aspect("equal", adjustable="datalim")
    label_axes(axes, "$z_1$", "$z_2$")
    return figure


def traversal(
    images: Tensor | NDArray[Any],
    values: Tensor | Sequence[float],
    dims: Sequence[int],
    title: str = "Latent traversal",
) -> Figure:
    """What the decoder makes of a code when one latent dimension after the other is changed.

    Args:
        images: Decoded images, shape ``(len(dims) * len(values), ...)`` with ``...`` one of
            ``(H, W)``, ``(1, H, W)`` and ``(3, H, W)``: all values of the first dimension, then of
            the second (:func:`traversal_codes` has this order).
        values: The values, one a column.
        dims: The latent dimensions, one a row, counted from 0.
        title: The title.

    Returns:
        The figure; rows are named :math:`z_1, z_2, ...`, counted from 1.

    Raises:
        ValueError: If a shape does not fit.

    Example:
        >>> figure = traversal(torch.rand(6, 8, 8), [-1.0, 0.0, 1.0], dims=[0, 4])
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['$z_{1}$', '$z_{5}$']
    """
    steps = [float(v) for v in values]
    array = as_images(images)
    if len(array) != len(dims) * len(steps) or not steps:
        raise ValueError(
            f"images must be {len(dims)} dimensions x {len(steps)} values = "
            f"{len(dims) * len(steps)} images, got {len(array)}"
        )
    picture = mosaic(array, len(steps))
    width, height = mosaic_size(picture)
    figure = new_figure(width + 0.7, height + 0.6, title)
    axes = figure.add_subplot()
    draw_mosaic(axes, picture, [f"$z_{{{d + 1}}}$" for d in dims], _names(steps))
    label_axes(axes, "value of the dimension that is changed", "latent dimension")
    return figure


def traversal_codes(z: Tensor, values: Tensor | Sequence[float], dims: Sequence[int]) -> Tensor:
    """The codes of a traversal: ``z`` with one dimension after the other set to each value.

    Args:
        z: The code to start from, shape ``(latent_dim,)``.
        values: The values.
        dims: The dimensions to change, counted from 0.

    Returns:
        Codes, shape ``(len(dims) * len(values), latent_dim)``.

    Raises:
        ValueError: If ``z`` is not one code, or a dimension is not one of its.

    Example:
        >>> traversal_codes(torch.zeros(2), [-1.0, 1.0], dims=[0, 1]).tolist()
        [[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]]
    """
    if z.ndim != 1 or not all(0 <= d < len(z) for d in dims):
        raise ValueError(
            f"expected one code of shape (latent_dim,) and dims from 0 to latent_dim - 1, got "
            f"shape {tuple(z.shape)} and dims {list(dims)}"
        )
    steps = torch.as_tensor(values, dtype=z.dtype, device=z.device)
    codes = z.detach().repeat(len(dims), len(steps), 1)
    for row, d in enumerate(dims):
        codes[row, :, d] = steps
    return codes.flatten(0, 1)


def manifold(
    images: Tensor | NDArray[Any], values: Tensor | Sequence[float], title: str = "Latent manifold"
) -> Figure:
    r"""Decoded images over a grid of a two-dimensional latent space.

    The grid is uniform in probability: :math:`z = \Phi^{-1}(u)` of equally spaced :math:`u`
    (:func:`manifold_codes`), so each image stands for an equal share of the prior.

    Args:
        images: Decoded images, shape ``(n * n, ...)`` with ``...`` one of ``(H, W)``, ``(1, H, W)``
            and ``(3, H, W)``, in the order of :func:`manifold_codes`: the top row first.
        values: The coordinates :math:`z` in rising order, shape ``(n,)``.
        title: The title.

    Returns:
        The figure; :math:`z_1` rises to the right, :math:`z_2` upwards.

    Raises:
        ValueError: If a shape does not fit.

    References:
        Auto-encoding variational Bayes, Diederik Kingma and Max Welling, 2013, arXiv:1312.6114
        (figure 4).

    Example:
        >>> codes, values = manifold_codes(3)
        >>> figure = manifold(torch.rand(9, 8, 8), values)
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['-0.97', '0.00', '0.97']
    """
    steps = [float(v) for v in values]
    array = as_images(images)
    if len(array) != len(steps) ** 2:
        raise ValueError(
            f"images must be {len(steps)} x {len(steps)} = {len(steps) ** 2}, got {len(array)}"
        )
    picture = mosaic(array, len(steps))
    width, height = mosaic_size(picture, cell=0.42)
    figure = new_figure(width + 0.7, height + 0.6, title)
    axes = figure.add_subplot()
    every = max(1, -(-len(steps) // 9))
    places = Mosaic(picture.array, picture.rows[::every], picture.columns[::every])
    names = _names(steps)
    draw_mosaic(axes, places, names[::-1][::every], names[::every])
    label_axes(axes, r"$z_1 = \Phi^{-1}(u_1)$", r"$z_2 = \Phi^{-1}(u_2)$")
    return figure


def manifold_codes(
    num_values: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    r"""A two-dimensional grid of codes that is uniform in probability under :math:`N(0, I)`.

    :math:`z = \Phi^{-1}(u)` for :math:`u = 1 / 2n, 3 / 2n, ..., (2n - 1) / 2n`.

    Args:
        num_values: :math:`n`, the number of values of each coordinate.
        dtype: The dtype of the codes.
        device: The device of the codes.

    Returns:
        Codes, shape ``(n * n, 2)``, in reading order of a picture whose second coordinate rises
        upwards, and the values of a coordinate in rising order, shape ``(n,)``, with 0 exactly in
        the middle of an odd number.

    Raises:
        ValueError: If ``num_values`` is below 2.

    Example:
        >>> codes, values = manifold_codes(15)
        >>> u = torch.distributions.Normal(0, 1).cdf(values)
        >>> torch.allclose(u.diff(), torch.full((14,), 1 / 15), atol=1e-6)
        True
    """
    if num_values < 2:
        raise ValueError(f"num_values must be at least 2, got {num_values}")
    u = (torch.arange(num_values, dtype=torch.float64) + 0.5) / num_values
    values = torch.special.ndtri(u).to(dtype=dtype, device=device)
    z2, z1 = torch.meshgrid(values.flip(0), values, indexing="ij")
    return torch.stack([z1, z2], -1).reshape(-1, 2), values


def _names(values: Sequence[float]) -> list[str]:
    """The values with one decimal where that is exact for all, else with two."""
    digits = 1 if all(abs(round(v, 1) - v) < 1e-6 for v in values) else 2
    # Adding 0 turns -0.0 into 0.0.
    return [f"{round(v, digits) + 0.0:.{digits}f}" for v in values]
