# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The deep NADE of all orders, and its ensembles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import linear

from ..nn import as_sizes
from .drawing import Drawing
from .order_agnostic import OrderAgnostic
from .outputs import BinaryOutput, Output
from .running_sums import by_variable, running_sums


class OrderlessNADE(OrderAgnostic):
    r"""A deep NADE that serves every order of the variables.

    .. math::
        h^1 &= \phi\big(c^1 + W (x \odot m) + U m\big), \qquad
        h^l = \phi\big(c^l + W^l h^{l-1}\big) \\
        \theta &= b + V h^L

    where the mask :math:`m` tells which variables are known, and :math:`\theta_i` is used for those
    that are not. See :class:`OrderAgnostic` for what ``log_prob`` is in training. In evaluation
    mode it takes :math:`O(DH)` with one hidden layer, whose sums are running ones, and
    :math:`O(DH^2)` with more. A draw takes as much.

    ``ensemble(num_orders)`` is EoNADE: the mean of the densities of several orders.

    Args:
        num_variables: number of variables :math:`D`.
        hidden_dims: number of units of every hidden layer, at least one; or the number of units of
            one layer.
        output: the family of one variable, binary by default.
        order: indices of the variables from the first to the last; by default that of the indices.
        context_dim: number of dimensions of a context, which shifts the biases of the first and the
            last layer.
        activation: makes the nonlinearity :math:`\phi`.
        validate_args: whether ``log_prob`` checks its argument.

    Raises:
        ValueError: if a size is not a positive whole number, or the order is not a permutation.

    References:
        Uria, Murray and Larochelle, A deep and tractable density estimator, 2014, arXiv:1310.1757.

    Example:
        >>> import torch
        >>> nade = OrderlessNADE(5, (16, 16)).eval()
        >>> both = nade.ensemble(2)
        >>> torch.allclose(both.log_prob(both.enumerate_support()).exp().sum(), torch.tensor(1.0))
        True
    """

    def __init__(
        self,
        num_variables: int,
        hidden_dims: int | Sequence[int],
        output: Output | None = None,
        *,
        order: Sequence[int] | None = None,
        context_dim: int = 0,
        activation: Callable[[], nn.Module] = nn.ReLU,
        validate_args: bool | None = None,
    ) -> None:
        output = output or BinaryOutput()
        super().__init__(
            num_variables,
            output,
            order=order,
            context_dim=context_dim,
            validate_args=validate_args,
        )
        given = (hidden_dims,) if isinstance(hidden_dims, int) else hidden_dims
        sizes = as_sizes(given, "hidden_dims")
        if not sizes:
            raise ValueError("expected at least one hidden layer, got none")
        size, num = self.event_shape.numel(), output.num_parameters
        bound = size**-0.5
        self.in_weight = nn.Parameter(torch.empty(size, output.num_inputs, sizes[0]))
        self.mask_weight = nn.Parameter(torch.empty(size, sizes[0]))
        self.in_bias = nn.Parameter(torch.empty(sizes[0]))
        for parameter in (self.in_weight, self.mask_weight, self.in_bias):
            nn.init.uniform_(parameter, -bound, bound)
        self.activations = nn.ModuleList(activation() for _ in sizes)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.out = nn.Linear(sizes[-1], size * num)
        self.in_context: nn.Linear | None = None
        self.out_context: nn.Linear | None = None
        if self.context_dim:
            self.in_context = nn.Linear(self.context_dim, sizes[0], bias=False)
            self.out_context = nn.Linear(self.context_dim, size * num, bias=False)

    def predict(
        self, x: torch.Tensor, known: torch.Tensor, context: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Parameters ``(*batch, D, P)`` of all variables, in one pass."""
        seen = known.to(self.mask_weight.dtype)
        inputs = self.output.encode(torch.where(known, x, torch.zeros_like(x)), seen)
        inputs = (inputs * seen.unsqueeze(-1)).flatten(-2)
        sums = linear(inputs, self.in_weight.flatten(0, 1).mT) + linear(seen, self.mask_weight.mT)
        parameters = self.out(self._hidden(sums + self._in_bias(context)))
        if self.out_context is not None and context is not None:
            parameters = parameters + self.out_context(context)
        return self._by_variable(parameters)

    def conditionals(
        self, x: torch.Tensor, context: torch.Tensor | None = None, component: int = 0
    ) -> torch.Tensor:
        """Parameters ``(*batch, D, P)``, the first layer's sums being running ones."""
        order = self.order_indices[component]
        in_weight, mask_weight = (
            w.index_select(0, order) for w in (self.in_weight, self.mask_weight)
        )
        out_weight = self._by_variable(self.out.weight.mT).index_select(-2, order)
        out_weight = out_weight.movedim(-2, 0).contiguous()  # (D, H, P)
        values, start = x.index_select(-1, order), self._in_bias(context)
        pieces, place = [], 0
        for sums in running_sums(values, in_weight, start, self.output, mask_weight):
            end = place + sums.shape[-2]
            hidden = self._hidden(sums)
            pieces.append(by_variable(hidden, out_weight[place:end]))
            place = end
        parameters = torch.cat(pieces, -2)
        return parameters.index_select(-2, order.argsort()) + self._out_bias(context)

    def generate(
        self,
        drawing: Drawing,
        batch_shape: torch.Size,
        context: torch.Tensor | None = None,
        component: int = 0,
    ) -> torch.Tensor:
        """Make the variables one by one, each with the outputs of that variable alone."""
        num, order = batch_shape.numel(), self.order_indices[component]
        in_bias, out_bias = self._in_bias(context), self._out_bias(context)
        units = in_bias.shape[-1]
        sums = in_bias.expand((*batch_shape, units)).reshape(num, units)
        biases = out_bias.expand((*batch_shape, *out_bias.shape[-2:]))
        shifts = biases.reshape((num, *out_bias.shape[-2:])).index_select(1, order).unbind(1)
        in_weights, mask_weights = (
            w.index_select(0, order).unbind() for w in (self.in_weight, self.mask_weight)
        )
        out_weight = self._by_variable(self.out.weight.mT).index_select(-2, order)  # (H, D, P)
        out_weights = out_weight.unbind(-2)
        values = []
        for place in range(len(order)):
            hidden = self._hidden(sums)
            parameters = torch.addmm(shifts[place], hidden, out_weights[place])
            values.append(drawing(place, parameters))
            entering = self.output.encode(values[-1], sums)
            sums = torch.addmm(sums, entering, in_weights[place]) + mask_weights[place]
        made = torch.stack(values, -1).index_select(-1, order.argsort())
        return made.reshape((*batch_shape, len(values)))

    def _hidden(self, sums: torch.Tensor) -> torch.Tensor:
        """The last hidden layer from the sums of the first."""
        first, *rest = self.activations
        hidden: torch.Tensor = first(sums)
        for layer, activation in zip(self.layers, rest, strict=True):
            hidden = activation(layer(hidden))
        return hidden

    def _by_variable(self, flat: torch.Tensor) -> torch.Tensor:
        sizes = (self.event_shape.numel(), self.output.num_parameters)
        return flat.reshape((*flat.shape[:-1], *sizes))

    def _in_bias(self, context: torch.Tensor | None) -> torch.Tensor:
        if self.in_context is None or context is None:
            return self.in_bias
        return linear(context, self.in_context.weight, self.in_bias)

    def _out_bias(self, context: torch.Tensor | None) -> torch.Tensor:
        if self.out_context is None or context is None:
            return self._by_variable(self.out.bias)
        return self._by_variable(linear(context, self.out_context.weight, self.out.bias))
