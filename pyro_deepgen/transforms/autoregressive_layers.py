# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Stacks of autoregressive layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from ..nn import MaskedMLP, as_size
from .autoregressive import Autoregressive
from .equation import Equation

OrderName = Literal["alternating", "random"]


def autoregressive_layers(
    num_dims: int,
    equation: Callable[[], Equation],
    *,
    parameters_from: Literal["data", "base"] = "data",
    num_layers: int = 5,
    hidden_dims: Sequence[int] = (128, 128),
    context_dim: int = 0,
    order: OrderName = "alternating",
    skip: bool = False,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> list[Autoregressive]:
    r"""Make autoregressive layers whose variables come in different orders.

    Args:
        num_dims: number of dimensions :math:`D`.
        equation: makes the equation of a layer.
        parameters_from: ``"data"`` (masked autoregressive) or ``"base"`` (inverse autoregressive).
        num_layers: number of layers.
        hidden_dims: number of units of every hidden layer of the networks.
        context_dim: number of dimensions of the context, 0 for none.
        order: ``"alternating"`` (every second layer in the reverse order) or ``"random"``.
        skip: whether the inputs of the networks also enter their last layers directly.
        activation: makes the nonlinearity of the networks.

    Returns:
        The layers, from the base to the data.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0), or a name
            is unknown.

    Example:
        >>> from pyro_deepgen.transforms import Affine
        >>> layers = autoregressive_layers(3, Affine, num_layers=2, hidden_dims=(8,))
        >>> [layer.network.order.tolist() for layer in layers]
        [[0, 1, 2], [2, 1, 0]]
    """
    size = as_size(num_dims, "num_dims")
    if order not in ("alternating", "random"):
        raise ValueError(f"expected as order 'alternating' or 'random', got {order!r}")
    layers = []
    for i in range(as_size(num_layers, "num_layers")):
        upwards = list(range(size))
        of_variable = equation()
        network = MaskedMLP(
            size,
            hidden_dims,
            of_variable.num_parameters,
            order=torch.randperm(size).tolist() if order == "random" else upwards[:: (-1) ** i],
            context_dim=context_dim,
            skip=skip,
            activation=activation,
        )
        layers.append(Autoregressive(of_variable, network, parameters_from=parameters_from))
    return layers
