# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A row of the table of transforms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from pyro_deepgen.transforms import Transform


def normal(shape: Sequence[int]) -> torch.Tensor:
    return torch.randn(tuple(shape))


def uniform(shape: Sequence[int]) -> torch.Tensor:
    return torch.rand(tuple(shape))


@dataclass(frozen=True)
class TransformRow:
    """A small transform.

    `shape` is the event shape of its domain (of a point, for a transform of scalars `()`), and
    `draw` makes points of the domain. `smooth` says that the map has no kinks, so that second
    derivatives mean something; `noise` is the size of a random change of all parameters that
    leaves the map fit for 1e-6 in double precision.
    """

    name: str
    cls: type
    make: Callable[[], Transform]
    shape: tuple[int, ...]
    draw: Callable[[Sequence[int]], torch.Tensor] = normal
    smooth: bool = True
    noise: float = 1.0

    def points(self, *batch: int) -> torch.Tensor:
        """Draw points of the domain."""
        return self.draw((*batch, *self.shape))

    def make_changed(self, noise: float | None = None) -> Transform:
        """Make the transform and add noise to its parameters."""
        transform = self.make()
        size = self.noise if noise is None else noise
        with torch.no_grad():
            for parameter in transform.parameters():
                parameter.add_(size * torch.randn_like(parameter))
        return transform
