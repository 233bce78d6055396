# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Trading height and width of an image for channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.distributions import constraints
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from ..nn import as_size
from .shapes import check_event
from .transform import Transform


class Squeeze(Transform):
    r"""Turns every square of an image into one pixel with more channels.

    .. math:: y_{c f^2 + a f + b, \, i, \, j} = x_{c, \, f i + a, \, f j + b}, \qquad
        0 \le a, b < f

    The channels of a pixel are in the order of RealNVP: those that come from one channel stay
    together. It moves variables only, so that the log-determinant is 0.

    Args:
        factor: side of a square, :math:`f`, at least 2.

    Raises:
        ValueError: if ``factor`` is not a whole number above 1; in a pass, if the sides of the
            image (or for the inverse its channels) cannot be divided.

    References:
        Dinh, Sohl-Dickstein and Bengio, Density estimation using Real NVP, 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> squeeze, x = Squeeze(), torch.arange(8.0).reshape(1, 2, 4)
        >>> squeeze(x)[:, 0, 0].tolist()
        [0.0, 1.0, 4.0, 5.0]
        >>> torch.equal(squeeze.inv(squeeze(x)), x)
        True
    """

    domain = codomain = constraints.independent(constraints.real, 3)

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = as_size(factor, "factor")
        if self.factor == 1:
            raise ValueError("expected a factor above 1, got 1, which changes nothing")

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Move ``(*batch, C, H, W)`` to ``(*batch, C f^2, H / f, W / f)``."""
        self.check_domain(x, context)
        self.forward_shape(x.shape)
        return pixel_unshuffle(x, self.factor), x.new_zeros(x.shape[:-3])

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Move ``(*batch, C f^2, H / f, W / f)`` to ``(*batch, C, H, W)``."""
        self.check_codomain(y, context)
        self.inverse_shape(y.shape)
        return pixel_shuffle(y, self.factor), y.new_zeros(y.shape[:-3])

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape of the squeezed images."""
        check_event(self, "domain", shape, 3, None)
        *batch, channels, height, width = shape
        f = self.factor
        if height % f or width % f:
            raise ValueError(
                f"expected an image whose height and width are multiples of {f}, got {height} x "
                f"{width}; crop or pad it"
            )
        return torch.Size((*batch, channels * f * f, height // f, width // f))

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape of the images before they were squeezed."""
        check_event(self, "codomain", shape, 3, None)
        *batch, channels, height, width = shape
        f = self.factor
        if channels % (f * f):
            raise ValueError(
                f"expected an image whose number of channels is a multiple of {f * f}, got "
                f"{channels}"
            )
        return torch.Size((*batch, channels // (f * f), height * f, width * f))

    def extra_repr(self) -> str:
        """Name the factor in the printed form."""
        return f"factor={self.factor}"
