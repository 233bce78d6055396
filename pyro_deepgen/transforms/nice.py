# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""NICE."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from .additive import Additive
from .composed import Composed
from .coupling_layers import MaskName, coupling_layers
from .scaling import DiagonalScaling


def nice(
    num_dims: int,
    *,
    num_layers: int = 4,
    hidden_dims: Sequence[int] = (128, 128),
    context_dim: int = 0,
    mask: MaskName = "halves",
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> Composed:
    r"""Make a NICE flow: additive coupling layers, which keep volumes, and a diagonal scaling.

    .. math:: y = e^{s} \odot f_K(\dots f_1(x)), \qquad f_k(x) = (x_A, x_B + t_k(x_A))

    The layers exchange the roles of the two parts. The scaling, next to the data, is the only one
    that changes volumes; it tells the directions that the data vary in from the others.

    Args:
        num_dims: number of dimensions :math:`D`, at least 2.
        num_layers: number of coupling layers :math:`K`; with fewer than 3, some variables are not
            a function of all others.
        hidden_dims: number of units of every hidden layer of the networks :math:`t_k`.
        context_dim: number of dimensions of the context, 0 for none.
        mask: ``"halves"`` (the first and the last variables) or ``"alternating"`` (the even and
            the odd ones).
        activation: makes the nonlinearity of the networks.

    Returns:
        A :class:`Composed`.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0),
            ``num_dims`` is 1 or ``mask`` is unknown.

    References:
        Dinh, Krueger and Bengio, NICE: Non-linear independent components estimation, 2014,
        arXiv:1410.8516.

    Example:
        >>> import torch
        >>> flow, x = nice(5), torch.randn(7, 5)
        >>> y, log_det = flow.forward_and_log_det(x)
        >>> bool((log_det == 0).all()), torch.allclose(flow.inv(y), x, atol=1e-5)
        (True, True)
    """
    layers = coupling_layers(
        num_dims,
        Additive,
        num_layers=num_layers,
        hidden_dims=hidden_dims,
        context_dim=context_dim,
        mask=mask,
        activation=activation,
    )
    return Composed([*layers, DiagonalScaling(num_dims)])
