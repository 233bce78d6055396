# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The additive equation."""

from __future__ import annotations

import torch

from .equation import Equation


class Additive(Equation):
    r"""A shift of every variable, which keeps volumes.

    .. math:: y_i = x_i + t_i, \qquad \log |\partial y_i / \partial x_i| = 0

    The one parameter of a variable is :math:`t_i`; 0 is the identity.

    References:
        Dinh, Krueger and Bengio, NICE: Non-linear independent components estimation, 2014,
        arXiv:1410.8516.

    Example:
        >>> import torch
        >>> x, t = torch.randn(5, 3), torch.randn(5, 3, 1)
        >>> y, log_slope = Additive().forward_and_log_slope(x, t)
        >>> torch.equal(y, x + t[..., 0]), bool((log_slope == 0).all())
        (True, True)
    """

    num_parameters = 1

    def forward_and_log_slope(
        self, x: torch.Tensor, parameters: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Shift there."""
        y = x + parameters[..., 0]
        return y, torch.zeros_like(y)

    def inverse_and_log_slope(
        self, y: torch.Tensor, parameters: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Shift back."""
        x = y - parameters[..., 0]
        return x, torch.zeros_like(x)
