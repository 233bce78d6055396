# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Pictures of a training run and of a density."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyro_deepgen.plots.canvas import (
    TICK_SIZE,
    as_array,
    label_axes,
    new_figure,
)

_CHUNK_POINTS = 10_000


class Losses(Protocol):
    """Mean losses per epoch, which a training run's history has.

    Example:
        >>> from types import SimpleNamespace
        >>> losses: Losses = SimpleNamespace(train=[2.0, 1.0], held_out=[2.5, 1.5])
        >>> len(losses.train) == len(losses.held_out)
        True
    """

    @property
    def train(self) -> Sequence[float]:
        """The mean training loss of each epoch."""

    @property
    def held_out(self) -> Sequence[float]:
        """The mean held-out loss of each epoch, or nothing."""


def history(
    history: Losses, title: str = "Training", label: str = "ELBO per datum (nats)"
) -> Figure:
    """The training and held-out ELBO, minus the mean loss, of each epoch.

    Args:
        history: The mean losses per datum of each epoch; ``held_out`` may be empty.
        title: The title.
        label: What minus the loss is.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no epoch.

    Example:
        >>> from types import SimpleNamespace
        >>> figure = history(SimpleNamespace(train=[2.0, 1.0], held_out=[2.5, 1.5]))
        >>> [line.get_ydata().tolist() for line in figure.axes[0].lines]
        [[-2.0, -1.0], [-2.5, -1.5]]
    """
    if not history.train:
        raise ValueError("the history holds no epoch; train for one at least")
    figure = new_figure(5.2, 3.4, title)
    axes = figure.add_subplot()
    # A held-out curve lies on top and would hide the other where the two agree: thinner, dashed.
    for name, losses, style in (
        ("training", history.train, {"linewidth": 2.0}),
        ("held out", history.held_out, {"linewidth": 1.5, "linestyle": "--"}),
    ):
        if losses:
            epochs = np.arange(1, len(losses) + 1)
            marker = "o" if len(losses) <= 20 else ""
            axes.plot(epochs, -np.asarray(losses), marker=marker, markersize=3, label=name, **style)
    axes.set_xlim(0.5, max(len(history.train), len(history.held_out)) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=TICK_SIZE, loc="lower right")
    label_axes(axes, "epoch", label)
    return figure


def density(
    log_prob: Callable[[Tensor], Tensor],
    bounds: tuple[tuple[float, float], tuple[float, float]],
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
    if not all(low < high for low, high in bounds):
        raise ValueError(f"bounds must be ((low, high), (low, high)) with low < high, got {bounds}")
    if samples is not None and (samples.ndim != 2 or samples.shape[1] != 2):
        raise ValueError(f"samples must have shape (N, 2), got {tuple(samples.shape)}")
    values = as_array(_on_grid(log_prob, bounds, samples, num_points))
    if not np.isfinite(values.max()):
        raise ValueError(
            "log_prob must be a number or minus infinity on the grid, and finite somewhere; its "
            f"largest value is {values.max()}"
        )
    (left, right), (bottom, top) = bounds
    ratio = (top - bottom) / (right - left)
    figure = new_figure(5.2, float(np.clip(3.8 * ratio, 2.2, 5.2)) + 0.5, title)
    axes = figure.add_subplot()
    image = axes.imshow(
        np.exp(values - values.max()).T,
        extent=(left, right, bottom, top),
        origin="lower",
        cmap="Blues",
        vmin=0,
        vmax=1,
        interpolation="bilinear",
        aspect="equal" if 0.5 <= ratio <= 2 else "auto",
    )
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


def _on_grid(
    log_prob: Callable[[Tensor], Tensor],
    bounds: tuple[tuple[float, float], tuple[float, float]],
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
