# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The parameters of a transform, free or computed from a context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import nn

from ..nn import MLP, as_size


class ContextParameters(nn.Module):
    r"""Some tensors, which are ``nn.Parameter``\ s or the outputs of a network of the context.

    Args:
        initial: names and starting values. With a context these are the biases of the network's
            last layer, whose weights start small: at first all contexts give nearly the same.
        context_dim: number of dimensions of the context; 0 for free parameters.
        hidden_dims: number of units of every hidden layer of the network.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0).

    Example:
        >>> import torch
        >>> values = ContextParameters({"loc": torch.zeros(2), "matrix": torch.eye(2)}, 3, (8,))
        >>> loc, matrix = values(torch.randn(5, 3))
        >>> loc.shape, matrix.shape
        (torch.Size([5, 2]), torch.Size([5, 2, 2]))
    """

    def __init__(
        self,
        initial: Mapping[str, torch.Tensor],
        context_dim: int = 0,
        hidden_dims: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        self.shapes = {name: tuple(value.shape) for name, value in initial.items()}
        self.network: MLP | None = None
        if context_dim == 0:
            for name, value in initial.items():
                self.register_parameter(name, nn.Parameter(value.clone()))
            return
        flat = torch.cat([value.reshape(-1) for value in initial.values()])
        self.network = MLP(as_size(context_dim, "context_dim"), hidden_dims, len(flat))
        last = self.network.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.copy_(flat)

    def forward(self, context: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Return the tensors, each of shape ``(*batch, *shape)`` for contexts of shape ``batch``.

        Args:
            context: contexts of shape ``(*batch, context_dim)``, or ``None`` without a network.
        """
        if self.network is None:
            return tuple(getattr(self, name) for name in self.shapes)
        pieces = self.network(context).split([prod(s) for s in self.shapes.values()], dim=-1)
        return tuple(
            piece.reshape((*piece.shape[:-1], *shape))
            for piece, shape in zip(pieces, self.shapes.values(), strict=True)
        )
