# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Masked dense networks, whose outputs for a variable see the variables before it only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

from .degrees import as_degrees, as_order, masks_of, require_same_counts, spread_degrees
from .sizes import as_size, as_sizes
from .slices import Blocks, SlicedPass, Step, starts_of


class MaskedLinear(nn.Module):
    r"""A dense layer in which a unit sees the inputs of its own degree and below.

    .. math:: y_i = b_i + \sum_{j : m_j \leq m_i} w_{ij} x_j + \sum_k v_{ik} c_k

    The entries that the mask hides are no part of the map, and get no gradient. Weights and
    biases start uniform within the inverse square root of the number of inputs that a unit sees.

    Args:
        in_degrees: degree of every input.
        out_degrees: degree of every unit.
        context_dim: number of dimensions of a context :math:`c` that every unit sees.
        scale: factor of the starting weights.

    Example:
        >>> import torch
        >>> layer, x = MaskedLinear([1, 2, 2], [1, 1, 2]), torch.randn(5, 3)
        >>> changed = x.clone()
        >>> changed[:, 1:] += 1.0
        >>> [bool((layer(x) == layer(changed))[:, i].all()) for i in range(3)]
        [True, True, False]
    """

    def __init__(
        self,
        in_degrees: Sequence[int],
        out_degrees: Sequence[int],
        *,
        context_dim: int = 0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.context_dim, self.scale = context_dim, scale
        size_in, size_out = len(in_degrees), len(out_degrees)
        self.mask: torch.Tensor
        self.weight: torch.Tensor
        weight = torch.empty(size_out, size_in)
        if min(in_degrees) <= max(out_degrees):
            self.weight = nn.Parameter(weight)
        else:  # nothing to learn, and no gradient
            self.register_buffer("weight", weight)
        self.register_buffer("mask", torch.empty_like(weight), persistent=False)
        self.set_degrees(in_degrees, out_degrees)
        self.bias = nn.Parameter(torch.empty(size_out))
        self.context_weight: nn.Parameter | None = None
        if context_dim:
            self.context_weight = nn.Parameter(torch.empty(size_out, context_dim))
        self.reset_parameters()

    def set_degrees(self, in_degrees: Sequence[int], out_degrees: Sequence[int]) -> None:
        """Let the inputs and units have the same degrees in another order."""
        self.mask.copy_(torch.tensor(out_degrees)[:, None] >= torch.tensor(in_degrees))

    def reset_parameters(self) -> None:
        """Draw starting values."""
        num_seen = self.mask.sum(-1, keepdim=True) + self.context_dim
        bound = self.scale / num_seen.clamp(min=1).sqrt()
        with torch.no_grad():
            self.weight.uniform_(-1, 1).mul_(bound)
            # Of few variables all units would bend at 0 without it.
            self.bias.uniform_(-1, 1).mul_(bound.squeeze(-1))
            if self.context_weight is not None:
                self.context_weight.uniform_(-1, 1).mul_(bound)

    def forward(
        self,
        x: torch.Tensor,
        context: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map inputs ``(*batch, in)`` and contexts ``(*batch, context_dim)``, which broadcast.

        A ``mask`` takes the place of the layer's own.
        """
        y = linear(x, self.weight * (self.mask if mask is None else mask), self.bias)
        if self.context_dim == 0:
            return y
        assert context is not None
        assert self.context_weight is not None
        return y + linear(context, self.context_weight)

    def extra_repr(self) -> str:
        """Name the sizes in the printed form."""
        sizes = f"{self.weight.shape[1]}, {self.weight.shape[0]}"
        return f"{sizes}, context_dim={self.context_dim}" if self.context_dim else sizes


class MaskedMLP(nn.Module):
    r"""A network whose parameters for a variable depend on the variables before it: MADE.

    .. math:: \theta_i = n_i(x_{<i}, c), \qquad i = 1, \dots, D

    Every hidden unit has a degree :math:`m` and sees the first :math:`m` variables, through the
    units of its own degree and below. Only masks know the order of the variables: nothing is moved
    in a pass. Called on all variables, the network gives all parameters in one pass. Where a
    variable is known only once its parameters are, :meth:`generate` does the work of that one pass
    in :math:`D` slices.

    Args:
        num_variables: number of variables :math:`D`.
        hidden_dims: number of units of every hidden layer; may be empty (a linear map).
        num_parameters: number of parameters of every variable.
        order: indices of the variables from the first to the last; by default that of the indices.
        context_dim: number of dimensions of a context that all units see.
        degrees: degrees of the units of every hidden layer, from 0 to :math:`D - 1`; by default
            spread evenly (:func:`spread_degrees`). A layer with fewer units than there are degrees
            leaves some dependencies out. Given ones are kept in the ``state_dict``.
        skip: whether the inputs also enter the last layer directly.
        activation: makes the nonlinearity that follows each hidden layer. It acts on every unit by
            itself, whatever the dimension of the units.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0), the order
            is not a permutation, the degrees do not fit, or an input has the wrong shape.

    References:
        Germain, Gregor, Murray and Larochelle, MADE: masked autoencoder for distribution
        estimation, 2015, arXiv:1502.03509.

    Example:
        >>> import torch
        >>> net, x = MaskedMLP(3, (16, 16), 2, order=[2, 0, 1]), torch.randn(3)
        >>> jacobian = torch.autograd.functional.jacobian(net, x)
        >>> (jacobian != 0).any(1).int()
        tensor([[0, 0, 1],
                [1, 0, 1],
                [0, 0, 0]], dtype=torch.int32)
    """

    def __init__(
        self,
        num_variables: int,
        hidden_dims: Sequence[int],
        num_parameters: int,
        *,
        order: Sequence[int] | None = None,
        context_dim: int = 0,
        degrees: Sequence[Sequence[int]] | None = None,
        skip: bool = False,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        size = self.num_variables = as_size(num_variables, "num_variables")
        self.num_parameters = as_size(num_parameters, "num_parameters")
        self.context_dim = as_size(context_dim, "context_dim") if context_dim else 0
        sizes = as_sizes(hidden_dims, "hidden_dims")
        if degrees is None:
            hidden = [spread_degrees(h, size, from_none=context_dim > 0) for h in sizes]
        else:
            hidden = [as_degrees(layer, size) for layer in degrees]
            if tuple(map(len, hidden)) != sizes:
                raise ValueError(
                    f"expected degrees for hidden layers of {sizes} units, got as many as "
                    f"{tuple(map(len, hidden))}"
                )
        indices = as_order(order, size)
        self.order: torch.Tensor  # in the state_dict: the weights mean nothing in another order
        self.register_buffer("order", torch.tensor(indices))
        self._num_hidden = len(hidden)
        for i, layer in enumerate(hidden):
            given = degrees is not None
            self.register_buffer(f"degrees_{i}", torch.tensor(layer), persistent=given)
        ends = [each.tolist() for each in self.degrees()]
        context_dims = [self.context_dim] + [0] * len(hidden)
        # The last layer starts small: equations are near the identity at parameters near 0.
        scales = [1.0] * len(hidden) + [0.1]
        self.layers = nn.ModuleList(
            MaskedLinear(ends[i], ends[i + 1], context_dim=context_dims[i], scale=scales[i])
            for i in range(len(hidden) + 1)
        )
        self.activations = nn.ModuleList(activation() for _ in hidden)
        self.skip: MaskedLinear | None = None
        if skip:
            self.skip = MaskedLinear(ends[0], ends[-1], context_dim=self.context_dim, scale=0.1)
        self.starts = [starts_of(end, size) for end in ends[1:]]
        self.blocks = nn.ModuleList(
            Blocks(ends[i], ends[i + 1], size, own=i > 0) for i in range(len(self.layers))
        )
        self.skip_blocks = Blocks(ends[0], ends[-1], size, own=False) if skip else None

    def degrees(self) -> list[torch.Tensor]:
        """The degrees of the inputs, of the units of each layer, and of the outputs."""
        places = self.order.argsort()
        hidden = [self.get_buffer(f"degrees_{i}") for i in range(self._num_hidden)]
        return [places + 1, *hidden, places.repeat(self.num_parameters)]

    def forward(
        self,
        x: torch.Tensor,
        context: torch.Tensor | None = None,
        degrees: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return all parameters, ``(*batch, D, P)``.

        Args:
            x: variables of shape ``(*batch, D)``, as they are numbered.
            context: contexts of shape ``(*batch, context_dim)``; batch shapes broadcast.
            degrees: as of :meth:`degrees`, to use the weights under other masks.
        """
        if x.dim() == 0 or x.shape[-1] != self.num_variables:
            raise ValueError(
                f"expected {self.num_variables} variables on the last dimension, got shape "
                f"{tuple(x.shape)}"
            )
        self._check_context(context)
        first, *rest = self.layers
        masks = masks_of(degrees, len(self.layers))
        output: torch.Tensor = first(x, context, masks[0])
        for activation, layer, mask in zip(self.activations, rest, masks[1:-1], strict=True):
            output = layer(activation(output), None, mask)
        if self.skip is not None:
            output = output + self.skip(x, context, masks[-1])
        # Each parameter of all variables is contiguous, as an equation takes them.
        return output.reshape((*output.shape[:-1], self.num_parameters, self.num_variables)).mT

    def generate(
        self, step: Step, batch_shape: Sequence[int] = (), context: torch.Tensor | None = None
    ) -> torch.Tensor:
        r"""Make the variables one by one, each from its parameters.

        Every hidden unit is computed once, so the products are those of one pass. Gradients flow
        through ``step`` and the network.

        Args:
            step: gives the values of a variable, of shape ``(N,)``, from its place in the order,
                counted from 0, and its parameters of shape ``(N, P)``, where :math:`N` is the
                number of points in a batch.
            batch_shape: the batch shape.
            context: contexts of shape ``(*batch, context_dim)``, whose batch shape broadcasts to
                ``batch_shape``.

        Returns:
            The variables, of shape ``(*batch_shape, D)``, as they are numbered.
        """
        self._check_context(context)
        num = prod(batch_shape)
        products, sums = [], []
        for i, (layer, blocks) in enumerate(zip(self.layers, self.blocks, strict=True)):
            products.append((i, i, blocks(layer.weight)))
            sums.append(_biases(layer, blocks, batch_shape, num, context))
        if self.skip is not None and self.skip_blocks is not None:
            products.insert(0, (0, len(self.layers) - 1, self.skip_blocks(self.skip.weight)))
            sums[-1] = sums[-1] + _biases(self.skip, self.skip_blocks, batch_shape, num, context)
        ordered = SlicedPass(self.starts, products, list(self.activations), step)(sums)
        numbered = ordered.index_select(0, self.order.argsort())
        return numbered.mT.reshape((*batch_shape, self.num_variables))

    def _load_from_state_dict(self, *args: Any) -> None:
        """Let the masks follow the order and the degrees that are loaded."""
        before = [each.tolist() for each in self.degrees()]
        super()._load_from_state_dict(*args)
        as_order(self.order.tolist(), self.num_variables)
        ends = [each.tolist() for each in self.degrees()]
        require_same_counts(before, ends)
        parts = [*zip(self.layers, self.blocks, ends[:-1], ends[1:], strict=True)]
        if self.skip is not None and self.skip_blocks is not None:
            parts.append((self.skip, self.skip_blocks, ends[0], ends[-1]))
        for layer, blocks, inputs, outputs in parts:
            assert isinstance(layer, MaskedLinear)
            assert isinstance(blocks, Blocks)
            layer.set_degrees(inputs, outputs)
            blocks.set_degrees(inputs, outputs)

    def _check_context(self, context: torch.Tensor | None) -> None:
        given = 0 if context is None else context.shape[-1] if context.dim() else None
        if given != self.context_dim:
            raise ValueError(
                f"expected a context with {self.context_dim} dimensions, got "
                f"{'none' if context is None else tuple(context.shape)}; the network was made with "
                f"context_dim={self.context_dim}"
            )


def _biases(
    layer: nn.Module,
    blocks: nn.Module,
    batch_shape: Sequence[int],
    num: int,
    context: torch.Tensor | None,
) -> torch.Tensor:
    """Return what units are before any input comes in, `(units, N)`, in the order of degrees."""
    assert isinstance(layer, MaskedLinear)
    assert isinstance(blocks, Blocks)
    bias = layer.bias.index_select(0, blocks.rows)
    if layer.context_weight is None:
        return bias.unsqueeze(-1).expand(-1, num)
    assert context is not None
    biases = linear(context, layer.context_weight.index_select(0, blocks.rows), bias)
    biases = biases.expand((*batch_shape, biases.shape[-1])).reshape(num, biases.shape[-1])
    return biases.mT.contiguous()
