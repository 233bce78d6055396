# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The network of NADE, in which all conditionals share the weights of one hidden layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import linear

from ..nn import as_order, as_size
from .autoregressive_distribution import AutoregressiveDistribution
from .drawing import Drawing
from .outputs import Output
from .running_sums import by_variable, running_sums


class SharedWeights(AutoregressiveDistribution):
    r"""Conditionals of hidden units that share their weights.

    .. math:: a_d = c + \sum_{j < d} W_j x_j, \qquad h_d = \phi_d(a_d), \qquad
        \theta_d = b_d + V_d h_d

    The sums :math:`a_d` are running ones, so that all conditionals together take :math:`O(DH)`.
    A subclass says what :math:`\phi_d` is (:meth:`activate`).

    Args:
        num_variables: number of variables :math:`D`.
        num_hidden: number of hidden units :math:`H`.
        output: the family of one variable.
        order: indices of the variables from the first to the last; by default that of the indices.
        context_dim: number of dimensions of a context, which shifts :math:`c` and all :math:`b_d`.
        validate_args: whether ``log_prob`` checks its argument.

    Raises:
        ValueError: if a size is not a positive whole number, or the order is not a permutation.
    """

    def __init__(
        self,
        num_variables: int,
        num_hidden: int,
        output: Output,
        *,
        order: Sequence[int] | None = None,
        context_dim: int = 0,
        validate_args: bool | None = None,
    ) -> None:
        size, units = as_size(num_variables, "num_variables"), as_size(num_hidden, "num_hidden")
        super().__init__((size,), output, context_dim=context_dim, validate_args=validate_args)
        num = output.num_parameters
        self.in_weight = nn.Parameter(torch.empty(size, output.num_inputs, units))
        self.in_bias = nn.Parameter(torch.zeros(units))
        self.out_weight = nn.Parameter(torch.empty(size, units, num))
        self.out_bias = nn.Parameter(torch.empty(size, num))
        # The last conditional has D terms to add, and the outputs H.
        nn.init.uniform_(self.in_weight, -(size**-0.5), size**-0.5)
        nn.init.uniform_(self.out_weight, -(units**-0.5), units**-0.5)
        nn.init.uniform_(self.out_bias, -(units**-0.5), units**-0.5)
        self.in_context: nn.Linear | None = None
        self.out_context: nn.Linear | None = None
        if self.context_dim:
            self.in_context = nn.Linear(self.context_dim, units, bias=False)
            self.out_context = nn.Linear(self.context_dim, size * num, bias=False)
        self.order_indices: torch.Tensor
        self.register_buffer("order_indices", torch.tensor(as_order(order, size)))

    def activate(self, sums: torch.Tensor, variables: torch.Tensor) -> torch.Tensor:
        r"""The hidden units :math:`h_d` of some variables.

        Args:
            sums: :math:`a_d`, of shape ``(..., n, H)``; of one variable also ``(N, H)``.
            variables: the numbers of the variables, of shape ``(n,)``.
        """
        return sums.sigmoid()

    @property
    def orders(self) -> torch.Tensor:
        """The one order, of shape ``(1, D)``."""
        return self.order_indices.unsqueeze(0)

    @property
    def num_orders(self) -> int:
        """One."""
        return 1

    def conditionals(
        self, x: torch.Tensor, context: torch.Tensor | None = None, component: int = 0
    ) -> torch.Tensor:
        """Parameters ``(*batch, D, P)`` from values ``(*batch, D)``, in :math:`O(DH)`."""
        order = self.order_indices
        in_bias, out_bias = self._biases(context)
        in_weight, out_weight = (
            w.index_select(0, order) for w in (self.in_weight, self.out_weight)
        )
        blocks = running_sums(x.index_select(-1, order), in_weight, in_bias, self.output)
        pieces, place = [], 0
        for sums in blocks:
            end = place + sums.shape[-2]
            hidden = self.activate(sums, order[place:end])
            pieces.append(by_variable(hidden, out_weight[place:end]))
            place = end
        return torch.cat(pieces, -2).index_select(-2, order.argsort()) + out_bias

    def generate(
        self,
        drawing: Drawing,
        batch_shape: torch.Size,
        context: torch.Tensor | None = None,
        component: int = 0,
    ) -> torch.Tensor:
        """Make the variables one by one in :math:`O(DH)`: the sums are running ones."""
        num, order = batch_shape.numel(), self.order_indices
        in_bias, out_bias = self._biases(context)
        units = in_bias.shape[-1]
        sums = in_bias.expand((*batch_shape, units)).reshape(num, units)
        biases = out_bias.expand((*batch_shape, *out_bias.shape[-2:]))
        shifts = biases.reshape((num, *out_bias.shape[-2:])).index_select(1, order).unbind(1)
        in_weights, out_weights = (
            w.index_select(0, order).unbind() for w in (self.in_weight, self.out_weight)
        )
        values = []
        for place, variable in enumerate(order.split(1)):
            hidden = self.activate(sums, variable)
            parameters = torch.addmm(shifts[place], hidden, out_weights[place])
            values.append(drawing(place, parameters))
            sums = torch.addmm(sums, self.output.encode(values[-1], sums), in_weights[place])
        made = torch.stack(values, -1).index_select(-1, order.argsort())
        return made.reshape((*batch_shape, len(values)))

    def _biases(self, context: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return c ``(..., H)`` and b ``(..., D, P)`` given a context."""
        if self.in_context is None or self.out_context is None:
            return self.in_bias, self.out_bias
        assert context is not None
        in_bias = linear(context, self.in_context.weight, self.in_bias)
        out_bias = linear(context, self.out_context.weight, self.out_bias.flatten())
        return in_bias, out_bias.unflatten(-1, self.out_bias.shape)
