# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The scale of a posterior, apart from its form."""

from __future__ import annotations

import torch
from pyro.distributions.torch_transform import TransformModule
from torch import nn
from torch.distributions import constraints


class LocationScale(TransformModule):
    r"""An elementwise affine map :math:`f(x) = \mu + e^s x` that keeps no tensor between calls.

    Args:
        loc: starting value of :math:`\mu`, of shape ``(D,)``.
        scale: starting value of every :math:`e^s`.

    Example:
        >>> import torch
        >>> scale = LocationScale(torch.ones(3), 0.5)
        >>> y, log_det = scale.forward_and_log_det(torch.full((3,), 2.0))
        >>> y.tolist(), torch.allclose(log_det.exp(), torch.tensor(0.125))
        ([2.0, 2.0, 2.0], True)
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True
    context_dim = 0

    def __init__(self, loc: torch.Tensor, scale: float) -> None:
        super().__init__(cache_size=0)  # type: ignore[no-untyped-call]
        self.loc = nn.Parameter(loc.clone())
        self.log_scale = nn.Parameter(torch.full_like(loc, scale).log())

    def forward_and_log_det(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and shift ``(*batch, D)`` points."""
        y = self.loc + self.log_scale.exp() * x
        return y, self.log_scale.sum().expand(x.shape[:-1])

    def inverse_and_log_det(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shift and scale back."""
        x = (y - self.loc) * (-self.log_scale).exp()
        return x, -self.log_scale.sum().expand(y.shape[:-1])

    def _call(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_and_log_det(x)[0]

    def _inverse(self, y: torch.Tensor) -> torch.Tensor:
        return self.inverse_and_log_det(y)[0]

    def log_abs_det_jacobian(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the log-determinant, of shape ``batch``."""
        return self.log_scale.sum().expand(x.shape[:-1])

    __repr__ = nn.Module.__repr__

    def __hash__(self) -> int:
        return id(self)
