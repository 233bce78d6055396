# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Scaling every variable by a factor of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.distributions import constraints

from ..nn import as_shape
from .transform import Transform


class DiagonalScaling(Transform):
    r"""A positive factor for every variable: the last layer of NICE.

    .. math:: y_i = e^{s_i} x_i, \qquad \log |\det \partial y / \partial x| = \sum_i s_i

    Args:
        event_shape: shape of the event, or its number of dimensions.

    Raises:
        ValueError: if a size is not a positive whole number.

    References:
        Dinh, Krueger and Bengio, NICE: Non-linear independent components estimation, 2014,
        arXiv:1410.8516.

    Example:
        >>> import torch
        >>> scaling = DiagonalScaling(3)
        >>> with torch.no_grad():
        ...     scaling.log_scale.copy_(torch.tensor([0.0, 1.0, 2.0]))[0].item()
        0.0
        >>> y, log_det = scaling.forward_and_log_det(torch.ones(3))
        >>> torch.allclose(y.log(), torch.tensor([0.0, 1.0, 2.0])), log_det.item()
        (True, 3.0)
    """

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        super().__init__()
        self.domain_shape = self.codomain_shape = shape = as_shape(event_shape)
        self.domain = self.codomain = constraints.independent(constraints.real, len(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Multiply."""
        self.check_domain(x, context)
        batch = x.shape[: x.dim() - self.log_scale.dim()]
        return x * self.log_scale.exp(), self.log_scale.sum().expand(batch)

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Divide."""
        self.check_codomain(y, context)
        batch = y.shape[: y.dim() - self.log_scale.dim()]
        return y * (-self.log_scale).exp(), -self.log_scale.sum().expand(batch)
