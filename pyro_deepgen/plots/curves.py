# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Pictures of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyro_deepgen.plots.canvas import (
    TICK_SIZE,
    label_axes,
    new_figure,
)


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
