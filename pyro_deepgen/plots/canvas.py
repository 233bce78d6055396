# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""What all pictures share: a figure that needs no display, images as arrays, and mosaics."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

TITLE_SIZE = 11
LABEL_SIZE = 9
TICK_SIZE = 8


class _Picture(Figure):
    """A figure that a notebook shows even when ``pyplot`` was never imported."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure, in inches, whose title is wrapped to its width."""
    lines = textwrap.wrap(title, width=max(10, int(11 * width)))
    figure = _Picture(figsize=(width, height + 0.2 * len(lines)), dpi=150, layout="constrained")
    figure.suptitle("\n".join(lines), fontsize=TITLE_SIZE)
    return figure


def label_axes(axes: Axes, x: str, y: str) -> None:
    """Label both axes, and set the size of all their text."""
    axes.set_xlabel(x, fontsize=LABEL_SIZE)
    axes.set_ylabel(y, fontsize=LABEL_SIZE)
    axes.tick_params(labelsize=TICK_SIZE)


def as_tensor(values: Tensor | NDArray[Any], name: str) -> Tensor:
    """A tensor as it is, and an array as a tensor."""
    if isinstance(values, Tensor):
        return values
    if isinstance(values, np.ndarray):
        return torch.from_numpy(values.copy())  # one that is not contiguous, or read-only, too
    raise ValueError(
        f"{name} must be a tensor or an array, got {type(values).__name__}; make one of several "
        "by torch.stack"
    )


def as_array(values: Tensor | NDArray[Any]) -> NDArray[np.float64]:
    """The values on the host in double precision, whatever device and graph they are on."""
    array: NDArray[np.float64] = as_tensor(values, "values").detach().double().cpu().numpy()
    return array


def as_images(images: Tensor | NDArray[Any], name: str = "images") -> NDArray[np.float64]:
    """Images of shape (N, H, W), (N, 1, H, W) or (N, 3, H, W) as RGB of shape (N, H, W, 3).

    Values are shades from 0 to 1; what lies outside is drawn as 0 or 1.
    """
    images = as_tensor(images, name)
    color = images.ndim == 4 and images.shape[1] in (1, 3)
    if not (color or images.ndim == 3) or 0 in images.shape:
        raise ValueError(
            f"{name} must have shape (N, H, W), (N, 1, H, W) or (N, 3, H, W) with N > 0, got "
            f"{tuple(images.shape)}; reshape flat images first, as x.reshape(-1, 28, 28)"
        )
    if not images.is_floating_point():
        raise ValueError(
            f"{name} must be floating-point in [0, 1], got {images.dtype}; divide by the largest "
            "level"
        )
    array = np.clip(as_array(images), 0, 1)
    if np.isnan(array).any():
        raise ValueError(f"{name} holds NaN; look for its source before drawing")
    if not color:
        array = array[:, None]
    return np.broadcast_to(np.moveaxis(array, 1, -1), (len(array), *array.shape[2:], 3))


@dataclass(frozen=True)
class Mosaic:
    """Images in rows and columns as one array, and where the middle of each row and column is."""

    array: NDArray[np.float64]
    rows: list[float]
    columns: list[float]


def mosaic(
    images: NDArray[np.float64],
    num_columns: int,
    rows_together: int | None = None,
    columns_together: int | None = None,
) -> Mosaic:
    """RGB images of shape (N, H, W, 3) in reading order on white.

    Wider gaps set apart groups of ``rows_together`` rows, and the first ``columns_together``
    columns from the others.
    """
    num_images, height, width, _ = images.shape
    gap = max(1, round(min(height, width) / 16))
    rows = np.arange(math.ceil(num_images / num_columns))
    columns = np.arange(num_columns)
    tops = rows * (height + gap)
    lefts = columns * (width + gap)
    if rows_together is not None:
        tops = tops + 3 * gap * (rows // rows_together)
    if columns_together is not None:
        lefts = lefts + 3 * gap * (columns >= columns_together)
    array = np.ones((tops[-1] + height, lefts[-1] + width, 3))
    for place, image in enumerate(images):
        top, left = tops[place // num_columns], lefts[place % num_columns]
        array[top : top + height, left : left + width] = image
    return Mosaic(array, (tops + (height - 1) / 2).tolist(), (lefts + (width - 1) / 2).tolist())


def draw_mosaic(
    axes: Axes,
    picture: Mosaic,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
) -> None:
    """Draw a mosaic with a label to the left of each row and below each column."""
    axes.imshow(picture.array, interpolation="nearest")
    axes.set_yticks(picture.rows if row_labels else [], row_labels or [])
    axes.set_xticks(picture.columns if column_labels else [], column_labels or [])
    axes.tick_params(length=0, labelsize=TICK_SIZE)
    axes.spines[:].set_visible(False)


def mosaic_size(picture: Mosaic, cell: float = 0.55) -> tuple[float, float]:
    """The width and height, in inches, that give each image about ``cell`` inches."""
    height, width, _ = picture.array.shape
    width_inches = min(9.0, max(2.0, cell * len(picture.columns)))
    return width_inches, width_inches * height / width
