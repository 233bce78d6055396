# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Distributions of a latent vector given a network's output."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin

from .conditional import Conditional


class DiagonalNormalPosterior(Conditional):
    r"""A normal distribution with a diagonal covariance.

    :math:`z_i \sim N(\mu_i, e^{2 s_i})`: the network's output is :math:`\mu` and then :math:`s`,
    the logarithms of the standard deviations, so an output of 0 is a standard normal.

    Example:
        >>> import torch
        >>> DiagonalNormalPosterior().condition(torch.zeros(6)).event_shape
        torch.Size([3])
    """

    def params_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """Twice the number of latent dimensions."""
        (dim,) = event_shape
        return (2 * dim,)

    def condition(self, context: torch.Tensor) -> TorchDistributionMixin:
        """Means and log standard deviations ``(*batch, 2 d)`` to a diagonal normal."""
        if context.dim() == 0 or context.shape[-1] % 2:
            raise ValueError(
                "DiagonalNormalPosterior expected a mean and a log standard deviation for each "
                f"latent dimension, an even last dimension, got shape {tuple(context.shape)}"
            )
        loc, log_scale = context.chunk(2, dim=-1)
        normal: TorchDistributionMixin = dist.Normal(loc, log_scale.exp()).to_event(1)
        return normal


class CholeskyNormalPosterior(Conditional):
    r"""A normal distribution with a full covariance :math:`L L^\top`.

    The network's output is :math:`\mu`, then the lower triangle of :math:`L` row by row, whose
    diagonal is exponentiated: :math:`d + d(d+1)/2` numbers. An output of 0 is a standard normal.

    Example:
        >>> import torch
        >>> d = CholeskyNormalPosterior().condition(torch.randn(4, 9))
        >>> d.event_shape, bool((d.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all())
        (torch.Size([3]), True)
    """

    def params_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """``d + d (d + 1) / 2`` for ``d`` latent dimensions."""
        (dim,) = event_shape
        return (dim + dim * (dim + 1) // 2,)

    def condition(self, context: torch.Tensor) -> TorchDistributionMixin:
        """Means and triangles ``(*batch, d + d (d + 1) / 2)`` to a multivariate normal."""
        width = context.shape[-1] if context.dim() else 0
        dim = (isqrt(9 + 8 * width) - 3) // 2
        if dim < 1 or self.params_shape((dim,)) != (width,):
            raise ValueError(
                "CholeskyNormalPosterior expected d + d (d + 1) / 2 numbers in the last dimension "
                f"(2, 5, 9, ... for 1, 2, 3, ... latents), got shape {tuple(context.shape)}"
            )
        rows, columns = torch.tril_indices(dim, dim, device=context.device)
        lower = context.new_zeros((*context.shape[:-1], dim, dim))
        lower[..., rows, columns] = context[..., dim:]
        diagonal = lower.diagonal(dim1=-2, dim2=-1)
        scale_tril = lower.tril(-1) + torch.diag_embed(diagonal.exp())
        return dist.MultivariateNormal(context[..., :dim], scale_tril=scale_tril)
