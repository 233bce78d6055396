# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The affine equation."""

from __future__ import annotations

import torch

from .equation import Equation, each_parameter


class Affine(Equation):
    r"""A scale and a shift of every variable, the scale within bounds.

    .. math:: y_i = e^{s_i} x_i + t_i, \qquad s_i = a_i / \sqrt{1 + a_i^2 / b^2}, \qquad
        \log |\partial y_i / \partial x_i| = s_i

    The parameters of a variable are :math:`t_i` and :math:`a_i`, in this order; 0 and 0 are the
    identity, near which :math:`s_i \approx a_i`. The bound keeps one wild output of a network from
    an overflow: no layer scales by more than :math:`e^b` or less than :math:`e^{-b}`. The paper
    takes :math:`\tanh` for it; this function is as smooth and needs half of the time.

    Args:
        bound: the largest :math:`|s_i|`, :math:`b`.

    Raises:
        ValueError: if ``bound`` is not positive.

    References:
        Dinh, Sohl-Dickstein and Bengio, Density estimation using Real NVP, 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> x, theta = torch.randn(5, 3), 100 * torch.randn(5, 3, 2)
        >>> affine = Affine(bound=2.0)
        >>> y, log_slope = affine.forward_and_log_slope(x, theta)
        >>> bool((log_slope.abs() <= 2).all())
        True
        >>> torch.allclose(affine.inverse_and_log_slope(y, theta)[0], x, atol=1e-3)
        True
    """

    num_parameters = 2

    def __init__(self, bound: float = 5.0) -> None:
        super().__init__()
        if not bound > 0:
            raise ValueError(f"expected a positive bound on the log-scale, got {bound}")
        self.bound = float(bound)

    def _shift_and_log_scale(self, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shift, raw = each_parameter(parameters)
        one = torch.ones((), dtype=raw.dtype, device=raw.device)
        return shift, raw * torch.rsqrt(torch.addcmul(one, raw, raw, value=self.bound**-2))

    def forward_and_log_slope(
        self, x: torch.Tensor, parameters: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale, then shift."""
        shift, log_scale = self._shift_and_log_scale(parameters)
        y = torch.addcmul(shift, x, log_scale.exp())
        return y, log_scale.expand_as(y)

    def inverse_and_log_slope(
        self, y: torch.Tensor, parameters: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Shift back, then scale back."""
        shift, log_scale = self._shift_and_log_scale(parameters)
        log_slope = -log_scale
        x = (y - shift) * log_slope.exp()
        return x, log_slope.expand_as(x)

    def extra_repr(self) -> str:
        """Name the bound in the printed form."""
        return f"bound={self.bound}"
