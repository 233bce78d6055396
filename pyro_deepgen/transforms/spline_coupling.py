# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Coupling flows of rational-quadratic splines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from .composed import Composed
from .coupling_layers import MaskName, coupling_layers
from .rational_quadratic import RationalQuadratic


def spline_coupling(
    num_dims: int,
    *,
    num_layers: int = 4,
    hidden_dims: Sequence[int] = (128, 128),
    context_dim: int = 0,
    num_bins: int = 8,
    bound: float = 5.0,
    mask: MaskName = "halves",
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> Composed:
    r"""Make a neural spline flow: coupling layers of monotone rational-quadratic splines.

    .. math:: f_k(x) = (x_A, g(x_B; \theta_k(x_A)))

    The layers exchange the roles of the two parts. Outside the cube :math:`[-B, B]^D` a spline is
    the identity, so standardise the data, or choose :math:`B` so that the cube holds them.

    Args:
        num_dims: number of dimensions :math:`D`, at least 2.
        num_layers: number of coupling layers.
        hidden_dims: number of units of every hidden layer of the networks.
        context_dim: number of dimensions of the context, 0 for none.
        num_bins: number of bins of a spline.
        bound: the bound :math:`B`; see :class:`RationalQuadratic`.
        mask: ``"halves"`` (the first and the last variables) or ``"alternating"`` (the even and
            the odd ones).
        activation: makes the nonlinearity of the networks.

    Returns:
        A :class:`Composed`.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0),
            ``num_dims`` is 1, ``bound`` is not positive or ``mask`` is unknown.

    References:
        Durkan, Bekasov, Murray and Papamakarios, Neural spline flows, 2019, arXiv:1906.04032.

    Example:
        >>> import torch
        >>> flow, x = spline_coupling(5), torch.randn(7, 5)
        >>> y, log_det = flow.forward_and_log_det(x)
        >>> torch.allclose(flow.inv(y), x, atol=1e-4)
        True
        >>> torch.equal(flow(x + 6), x + 6)
        False
        >>> torch.equal(flow(x.clamp(0) + 6), x.clamp(0) + 6)
        True
    """
    return Composed(
        coupling_layers(
            num_dims,
            lambda: RationalQuadratic(num_bins, bound=bound),
            num_layers=num_layers,
            hidden_dims=hidden_dims,
            context_dim=context_dim,
            mask=mask,
            activation=activation,
        )
    )
