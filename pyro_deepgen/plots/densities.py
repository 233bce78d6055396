# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Pictures of two-dimensional densities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from torch import Tensor

from pyro_deepgen.plots.canvas import (
    LABEL_SIZE,
    TICK_SIZE,
    as_array,
    label_axes,
    new_figure,
)

_CHUNK_POINTS = 10_000
LogDensity = Callable[[Tensor], Tensor]
Bounds = tuple[tuple[float, float], tuple[float, float]]


def density(
    log_prob: LogDensity,
    bounds: Bounds,
    samples: Tensor | None = None,
    title: str = "Density",
    num_points: int = 200,
) -> Figure:
    """A two-dimensional density, which need not be normalised, with samples on top.

    Args:
        log_prob: The log density up to a constant, from shape ``(N, 2)`` to ``(N,)``. It is
            evaluated without gradients, with the dtype and device of the samples if there are any.
        bounds: The lower and upper end of each coordinate.
        samples: Samples, shape ``(N, 2)``; those outside the bounds are not drawn.
        title: The title.
        num_points: The number of points along each coordinate.

    Returns:
        The figure; the colour is the density divided by its largest value in the picture.

    Raises:
        ValueError: If a shape does not fit, the bounds are not in rising order, or the log density
            is NaN or plus infinity somewhere or minus infinity everywhere.

    Example:
        >>> figure = density(lambda z: -z.square().sum(-1), ((-2.0, 2.0), (-1.0, 1.0)))
        >>> float(figure.axes[0].images[0].get_array().max()) > 0.99
        True
    """
    if samples is not None and (samples.ndim != 2 or samples.shape[1] != 2):
        raise ValueError(f"samples must have shape (N, 2), got {tuple(samples.shape)}")
    values = _relative(log_prob, bounds, samples, num_points)
    (left, right), (bottom, top) = bounds
    ratio = (top - bottom) / (right - left)
    figure = new_figure(5.2, float(np.clip(3.8 * ratio, 2.2, 5.2)) + 0.5, title)
    axes = figure.add_subplot()
    image = _draw(axes, values, bounds)
    axes.set_aspect("equal" if 0.5 <= ratio <= 2 else "auto")
    bar = figure.colorbar(image, ax=axes, shrink=0.9)
    bar.set_label("density / largest density", fontsize=TICK_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE)
    if samples is not None:
        points = as_array(samples)
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=5,
            color="tab:orange",
            alpha=0.6,
            linewidths=0,
            label="samples",
        )
        axes.legend(fontsize=TICK_SIZE, loc="upper right", markerscale=2)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    label_axes(axes, "$x_1$", "$x_2$")
    return figure


def density_grid(
    log_probs: Sequence[Sequence[LogDensity]],
    bounds: Sequence[Bounds],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str = "Densities",
    num_points: int = 120,
) -> Figure:
    """Many two-dimensional densities side by side, for comparison by eye.

    Args:
        log_probs: Rows of log densities up to a constant, each from shape ``(N, 2)`` to ``(N,)``;
            all rows have the same length. They are evaluated without gradients.
        bounds: The lower and upper end of each coordinate, for each row.
        row_labels: What each row is.
        column_labels: What each column is.
        title: The title.
        num_points: The number of points along each coordinate.

    Returns:
        The figure; in each panel the colour is the density divided by its largest value there.

    Raises:
        ValueError: If there is no panel, the numbers of rows, bounds and labels differ, bounds are
            not in rising order, or a log density is NaN or plus infinity somewhere or minus
            infinity everywhere.

    Example:
        >>> narrow, wide = lambda z: -z.square().sum(-1), lambda z: -0.1 * z.square().sum(-1)
        >>> square = ((-2.0, 2.0), (-2.0, 2.0))
        >>> figure = density_grid([[narrow, wide]], [square], ["normal"], ["narrow", "wide"])
        >>> inked = [axes.images[0].get_array().sum() for axes in figure.axes]
        >>> bool(inked[0] < inked[1])
        True
    """
    num_rows, num_columns = len(row_labels), len(column_labels)
    if not num_rows * num_columns or {len(log_probs), len(bounds)} != {num_rows}:
        raise ValueError(
            "expected as many rows of log densities and bounds as row labels, and a panel at "
            f"least, got {len(log_probs)} rows, {len(bounds)} bounds, {num_rows} row labels and "
            f"{num_columns} column labels"
        )
    if lengths := {len(row) for row in log_probs} - {num_columns}:
        raise ValueError(
            f"expected {num_columns} log densities in each row, one for each column label, got a "
            f"row of {lengths.pop()}"
        )
    cell = min(1.45, 9.0 / num_columns)
    figure = new_figure(cell * num_columns + 0.4, cell * num_rows + 0.3, title)
    panels = figure.subplots(num_rows, num_columns, squeeze=False)
    for row, (functions, box) in enumerate(zip(log_probs, bounds, strict=True)):
        for column, log_prob in enumerate(functions):
            axes: Axes = panels[row, column]
            _draw(axes, _relative(log_prob, box, None, num_points), box)
            axes.set_aspect("auto")
            axes.set_box_aspect(1)
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(column_labels[column], fontsize=LABEL_SIZE)
            if column == 0:
                axes.set_ylabel(row_labels[row], fontsize=LABEL_SIZE)
    return figure


def _relative(
    log_prob: LogDensity, bounds: Bounds, samples: Tensor | None, num_points: int
) -> NDArray[np.float64]:
    """The density divided by its largest value, shape ``(num_points, num_points)``."""
    if not all(low < high for low, high in bounds):
        raise ValueError(f"bounds must be ((low, high), (low, high)) with low < high, got {bounds}")
    values = as_array(_on_grid(log_prob, bounds, samples, num_points))
    if not np.isfinite(values.max()):
        raise ValueError(
            "log_prob must be a number or minus infinity on the grid, and finite somewhere; its "
            f"largest value is {values.max()}"
        )
    relative: NDArray[np.float64] = np.exp(values - values.max())
    return relative


def _draw(axes: Axes, values: NDArray[np.float64], bounds: Bounds) -> AxesImage:
    (left, right), (bottom, top) = bounds
    return axes.imshow(
        values.T,
        extent=(left, right, bottom, top),
        origin="lower",
        cmap="Blues",
        vmin=0,
        vmax=1,
        interpolation="bilinear",
    )


def _on_grid(
    log_prob: LogDensity,
    bounds: Bounds,
    samples: Tensor | None,
    num_points: int,
) -> Tensor:
    """The log density at the middle of each cell, shape ``(num_points, num_points)``."""
    middle = (torch.arange(num_points, dtype=torch.float64) + 0.5) / num_points
    first, second = (low + (high - low) * middle for low, high in bounds)
    grid = torch.cartesian_prod(first, second)
    grid = grid.to(torch.get_default_dtype()) if samples is None else grid.to(samples)
    with torch.no_grad():
        values = [log_prob(points) for points in grid.split(_CHUNK_POINTS)]
    for points, value in zip(grid.split(_CHUNK_POINTS), values, strict=True):
        if value.shape != points.shape[:1]:
            raise ValueError(
                f"log_prob must map shape (N, 2) to (N,), got {tuple(value.shape)} for "
                f"{tuple(points.shape)}; give the distribution an event dimension (.to_event(1))"
            )
    return torch.cat(values).reshape(num_points, num_points)
