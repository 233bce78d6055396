# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Elementwise maps whose parameters come from a network."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn


class Equation(nn.Module, ABC):
    r"""A monotone map :math:`y_i = g(x_i; \theta_i)` of every variable by itself.

    Whether the parameters :math:`\theta` come from a coupling network or from an autoregressive
    one, the equation does not know. A subclass sets ``num_parameters`` and implements both
    directions. All-zero parameters should give a map near the identity, since networks start with
    outputs near zero.

    Example:
        >>> import torch
        >>> class Shift(Equation):
        ...     num_parameters = 1
        ...     def forward_and_log_slope(self, x, parameters):
        ...         return x + parameters[..., 0], torch.zeros_like(x)
        ...     def inverse_and_log_slope(self, y, parameters):
        ...         return y - parameters[..., 0], torch.zeros_like(y)
        >>> shift, x, theta = Shift(), torch.randn(5, 3), torch.randn(5, 3, 1)
        >>> y, log_slope = shift.forward_and_log_slope(x, theta)
        >>> torch.allclose(shift.inverse_and_log_slope(y, theta)[0], x, atol=1e-6)
        True
    """

    num_parameters: int

    @abstractmethod
    def forward_and_log_slope(
        self, x: torch.Tensor, parameters: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Return :math:`y` and :math:`\log |\partial y_i / \partial x_i|`.

        Args:
            x: variables of shape ``(*batch, D)``.
            parameters: parameters of shape ``(*batch, D, num_parameters)``; batch shapes broadcast.

        Returns:
            Two tensors of shape ``(*batch, D)``.
        """

    @abstractmethod
    def inverse_and_log_slope(
        self, y: torch.Tensor, parameters: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Return :math:`x` and :math:`\log |\partial x_i / \partial y_i|`.

        Args:
            y: variables of shape ``(*batch, D)``.
            parameters: parameters of shape ``(*batch, D, num_parameters)``; batch shapes broadcast.

        Returns:
            Two tensors of shape ``(*batch, D)``.
        """


def each_parameter(parameters: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Take the parameters of all variables apart: the first of each, the second of each, ...

    Their gradients are joined in the order in which the network's output stands in memory, so that
    the network gets its gradient without another copy.

    Args:
        parameters: parameters of shape ``(*batch, D, num_parameters)``.

    Returns:
        As many tensors of shape ``(*batch, D)`` as a variable has parameters.

    Example:
        >>> import torch
        >>> shift, scale = each_parameter(torch.randn(2, 5, 3).movedim(0, -1))
        >>> shift.shape, shift.is_contiguous()
        (torch.Size([5, 3]), True)
    """
    strides = parameters.stride()
    dim = sum(stride > strides[-1] for stride in strides[:-1])
    return parameters.movedim(-1, dim).unbind(dim)
