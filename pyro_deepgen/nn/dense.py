# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Fully connected networks between tensors of any shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import nn

from .context import linear_with_context
from .sizes import as_shape, as_sizes


class MLP(nn.Module):
    """A multi-layer perceptron from a tensor of any shape, with an optional context, to another.

    It takes any batch shape, and inputs and contexts whose batch shapes broadcast.

    Args:
        in_shape: shape of one input, or its number of dimensions.
        hidden_dims: number of units of every hidden layer; may be empty (a linear map).
        out_shape: shape of one output, or its number of dimensions.
        context_dim: number of dimensions of the context, which joins the flattened input.
        activation: makes the nonlinearity that follows each hidden layer.

    Raises:
        ValueError: if a size is not a positive whole number, or if an input or context has the
            wrong shape.

    Example:
        >>> import torch
        >>> net = MLP((1, 8, 8), (32,), 4, context_dim=3)
        >>> net(torch.zeros(5, 1, 8, 8), torch.zeros(5, 3)).shape
        torch.Size([5, 4])
    """

    broadcasts = True  # apply_batched need not flatten

    def __init__(
        self,
        in_shape: int | Sequence[int],
        hidden_dims: Sequence[int],
        out_shape: int | Sequence[int],
        *,
        context_dim: int = 0,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.in_shape, self.out_shape = as_shape(in_shape), as_shape(out_shape)
        self.context_dim = context_dim
        sizes = [prod(self.in_shape) + context_dim, *as_sizes(hidden_dims, "hidden_dims")]
        layers: list[nn.Module] = []
        for size_in, size_out in pairwise(sizes):
            layers += [nn.Linear(size_in, size_out), activation()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], prod(self.out_shape)))

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """Map inputs ``(*batch, *in_shape)`` and contexts ``(*batch, context_dim)``."""
        event_dim = len(self.in_shape)
        if x.shape[x.dim() - event_dim :] != self.in_shape:
            raise ValueError(
                f"expected an input whose last dimensions are {self.in_shape}, got shape "
                f"{tuple(x.shape)}"
            )
        flat = x.reshape((*x.shape[: x.dim() - event_dim], prod(self.in_shape)))
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        output = linear_with_context(first, flat, context, self.context_dim)
        for position, layer in enumerate(self.layers):
            if position:  # a slice would be a new module at every call
                output = layer(output)
        return output.reshape(output.shape[:-1] + self.out_shape)
