# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Masked and inverse autoregressive flows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from .affine_equation import Affine
from .autoregressive_layers import OrderName, autoregressive_layers
from .composed import Composed
from .equation import Equation
from .rational_quadratic import RationalQuadratic


def maf(
    num_dims: int,
    *,
    num_layers: int = 5,
    hidden_dims: Sequence[int] = (128, 128),
    context_dim: int = 0,
    order: OrderName = "alternating",
    equation: Callable[[], Equation] = Affine,
    skip: bool = False,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> Composed:
    r"""Make a masked autoregressive flow, whose density is one pass of every network.

    .. math:: y_i = e^{s_i(y_{<i})} x_i + t_i(y_{<i})

    Args:
        num_dims: number of dimensions :math:`D`.
        num_layers: number of autoregressive layers.
        hidden_dims: number of units of every hidden layer of the networks.
        context_dim: number of dimensions of the context, 0 for none.
        order: ``"alternating"`` (every second layer in the reverse order) or ``"random"``.
        equation: makes the equation of a layer, affine by default.
        skip: whether the inputs of the networks also enter their last layers directly.
        activation: makes the nonlinearity of the networks.

    Returns:
        A :class:`Composed`.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0), or
            ``order`` is unknown.

    References:
        Papamakarios, Pavlakou and Murray, Masked autoregressive flow for density estimation, 2017,
        arXiv:1705.07057.

    Example:
        >>> import torch
        >>> flow, x = maf(5), torch.randn(7, 5)
        >>> y, log_det = flow.forward_and_log_det(x)
        >>> torch.allclose(flow.inv(y), x, atol=1e-5)
        True
        >>> torch.allclose(flow.inverse_and_log_det(y)[1], -log_det, atol=1e-5)
        True
    """
    return Composed(
        autoregressive_layers(
            num_dims,
            equation,
            parameters_from="data",
            num_layers=num_layers,
            hidden_dims=hidden_dims,
            context_dim=context_dim,
            order=order,
            skip=skip,
            activation=activation,
        )
    )


def iaf(
    num_dims: int,
    *,
    num_layers: int = 5,
    hidden_dims: Sequence[int] = (128, 128),
    context_dim: int = 0,
    order: OrderName = "alternating",
    equation: Callable[[], Equation] = Affine,
    skip: bool = False,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> Composed:
    r"""Make an inverse autoregressive flow, from which a draw is one pass of every network.

    .. math:: y_i = e^{s_i(x_{<i})} x_i + t_i(x_{<i})

    Arguments, what is returned and what is raised are as for :func:`maf`.

    References:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, Improving variational inference
        with inverse autoregressive flow, 2016, arXiv:1606.04934.

    Example:
        >>> import torch
        >>> flow, x = iaf(5), torch.randn(7, 5)
        >>> y, log_det = flow.forward_and_log_det(x)
        >>> torch.allclose(flow.inv(y), x, atol=1e-5)
        True
        >>> torch.allclose(flow.inverse_and_log_det(y)[1], -log_det, atol=1e-5)
        True
    """
    return Composed(
        autoregressive_layers(
            num_dims,
            equation,
            parameters_from="base",
            num_layers=num_layers,
            hidden_dims=hidden_dims,
            context_dim=context_dim,
            order=order,
            skip=skip,
            activation=activation,
        )
    )


def spline_autoregressive(
    num_dims: int,
    *,
    num_layers: int = 5,
    hidden_dims: Sequence[int] = (128, 128),
    num_bins: int = 8,
    bound: float = 5.0,
    context_dim: int = 0,
    order: OrderName = "alternating",
    skip: bool = False,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> Composed:
    r"""Make an autoregressive neural spline flow, whose density is one pass of every network.

    .. math:: y_i = g(x_i; \theta_i(y_{<i})), \qquad g \text{ a rational-quadratic spline}

    It is :func:`maf` with another equation: ``num_bins`` and ``bound`` are those of
    :class:`RationalQuadratic`, and all else is as there.

    References:
        Durkan, Bekasov, Murray and Papamakarios, Neural spline flows, 2019, arXiv:1906.04032.

    Example:
        >>> import torch
        >>> flow, y = spline_autoregressive(5), 3 * torch.randn(7, 5)
        >>> torch.allclose(flow(flow.inv(y)), y, atol=1e-4)
        True
    """
    return maf(
        num_dims,
        num_layers=num_layers,
        hidden_dims=hidden_dims,
        context_dim=context_dim,
        order=order,
        equation=lambda: RationalQuadratic(num_bins, bound=bound),
        skip=skip,
        activation=activation,
    )
