# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Invertible mixtures of the channels of an image."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributions import constraints

from ..nn import as_size
from .transform import Transform


class InvertibleConv1x1(Transform):
    r"""A learned, invertible mixture of the channels, the same at every pixel.

    .. math:: x_{\cdot i j} = W y_{\cdot i j}, \qquad W = P L (U + \mathrm{diag}(\sigma e^s)),
        \qquad \log |\det \partial x / \partial y| = H W \sum_c s_c

    with a fixed permutation :math:`P`, a lower triangular :math:`L` with ones on its diagonal, an
    upper triangular :math:`U` with zeros there, and fixed signs :math:`\sigma`. So the matrix
    cannot become singular, the log-determinant needs no more than the sum of :math:`s`, and the
    inverse of :math:`W` is two triangular solves. As in the paper :math:`W` maps data to the base;
    at first it is a random orthogonal matrix.

    Args:
        num_channels: number of channels, :math:`C`.

    Raises:
        ValueError: if ``num_channels`` is not a positive whole number; in a pass, if an image has
            another number of channels.

    References:
        Kingma and Dhariwal, Glow: Generative flow with invertible 1x1 convolutions, 2018,
        arXiv:1807.03039.

    Example:
        >>> import torch
        >>> mix, y = InvertibleConv1x1(3), torch.randn(5, 3, 4, 4)
        >>> x = mix.inv(y)
        >>> torch.allclose(x.norm(dim=1), y.norm(dim=1), atol=1e-5)
        True
        >>> torch.allclose(mix(x), y, atol=1e-5)
        True
    """

    domain = codomain = constraints.independent(constraints.real, 3)

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = as_size(num_channels, "num_channels")
        orthogonal, _ = torch.linalg.qr(torch.randn(self.num_channels, self.num_channels))
        permutation, lower, upper = torch.linalg.lu(orthogonal)
        diagonal = upper.diagonal()
        self.order: torch.Tensor
        self.signs: torch.Tensor
        # P as indices: row i of P A is row order[i] of A.
        self.register_buffer("order", permutation.argmax(1))
        self.register_buffer("signs", diagonal.sign())
        # Entries on the other side of the diagonals are never read.
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(diagonal.abs().log())

    def _upper(self) -> torch.Tensor:
        return self.upper.triu(1) + torch.diag_embed(self.signs * self.log_diagonal.exp())

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Multiply by the inverse of the matrix."""
        self.check_domain(x, context)
        self._check_channels(x)
        lower, upper = self.lower, self._upper()  # its ones and zeros are taken for granted
        identity = torch.eye(self.num_channels, dtype=lower.dtype, device=lower.device)
        inverse = torch.linalg.solve_triangular(lower, identity, upper=False, unitriangular=True)
        inverse = torch.linalg.solve_triangular(upper, inverse, upper=True)
        inverse = inverse.index_select(1, self.order)
        return _at_every_pixel(inverse, x), -self._log_det(x)

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Multiply by the matrix."""
        self.check_codomain(y, context)
        self._check_channels(y)
        upper = self._upper()
        matrix = torch.addmm(upper, self.lower.tril(-1), upper)  # the ones of L's diagonal first
        return _at_every_pixel(matrix.index_select(0, self.order), y), self._log_det(y)

    def _log_det(self, images: torch.Tensor) -> torch.Tensor:
        *batch, _, height, width = images.shape
        return (height * width * self.log_diagonal.sum()).expand(batch)

    def _check_channels(self, images: torch.Tensor) -> None:
        if images.shape[-3] != self.num_channels:
            raise ValueError(
                f"expected images with {self.num_channels} channels, got shape "
                f"{tuple(images.shape)}; make the transform for that number of channels"
            )

    def extra_repr(self) -> str:
        """Name the number of channels in the printed form."""
        return f"{self.num_channels}"


def _at_every_pixel(matrix: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Multiply the channels of ``(*batch, C, H, W)`` images by a ``(C, C)`` matrix."""
    *batch, channels, height, width = images.shape
    pixels = images.reshape((torch.Size(batch).numel(), channels, height * width))
    # The gradient of a matrix that broadcasts in `@` takes several times as long.
    return torch.bmm(matrix.expand(len(pixels), -1, -1), pixels).reshape(images.shape)
