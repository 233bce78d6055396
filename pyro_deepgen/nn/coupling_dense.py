# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Dense networks that give several parameters for every variable of a vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import nn

from .activations import over_its_input
from .context import linear_with_context
from .sizes import as_size, as_sizes


class CouplingMLP(nn.Module):
    r"""A multi-layer perceptron from the variables kept to the parameters of those changed.

    The weights of the last layer start small and its biases at 0: so does the output, and the
    coupling layer starts near the identity. In memory each parameter of all variables is one piece,
    so that an equation computes with contiguous numbers.

    Args:
        num_kept: number of variables that it sees.
        hidden_dims: number of units of every hidden layer.
        num_changed: number of variables that it gives parameters for.
        num_parameters: number of parameters of a variable.
        context_dim: number of dimensions of the context.
        activation: makes the nonlinearity.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0); if an input
            or context has the wrong shape.

    Example:
        >>> import torch
        >>> net = CouplingMLP(3, (32,), 2, 23, context_dim=4)
        >>> theta = net(torch.randn(10, 1, 3), torch.randn(5, 4))
        >>> theta.shape, theta[..., 0].is_contiguous() or theta[..., 0].stride(-1) == 1
        (torch.Size([10, 5, 2, 23]), True)
        >>> bool((theta.abs() < 0.2).all())
        True
    """

    broadcasts = True

    def __init__(
        self,
        num_kept: int,
        hidden_dims: Sequence[int],
        num_changed: int,
        num_parameters: int,
        *,
        context_dim: int = 0,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.num_kept, self.context_dim = as_size(num_kept, "num_kept"), context_dim
        # Parameters before variables, see above.
        self.outputs = (
            as_size(num_parameters, "num_parameters"),
            as_size(num_changed, "num_changed"),
        )
        sizes = [self.num_kept + context_dim, *as_sizes(hidden_dims, "hidden_dims")]
        layers: list[nn.Module] = []
        for size_in, size_out in pairwise(sizes):
            layers += [nn.Linear(size_in, size_out), over_its_input(activation)]
        last = nn.Linear(sizes[-1], prod(self.outputs))
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()
        self.layers = nn.ModuleList([*layers, last])

    def forward(self, kept: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """Map ``(*batch, num_kept)`` to ``(*batch, num_changed, num_parameters)``."""
        if kept.dim() == 0 or kept.shape[-1] != self.num_kept:
            raise ValueError(
                f"expected an input whose last dimension is {self.num_kept}, got shape "
                f"{tuple(kept.shape)}"
            )
        first, *others = self.layers
        assert isinstance(first, nn.Linear)
        h: torch.Tensor
        if context is None and not self.context_dim:
            h = first(kept)
        else:
            h = linear_with_context(first, kept, context, self.context_dim)
        for layer in others:
            h = layer(h)
        theta: torch.Tensor = h.unflatten(-1, self.outputs).mT
        return theta
