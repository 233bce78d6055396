# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The NADE that infers what is missing in several steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import linear

from ..nn import as_size
from .order_agnostic import OrderAgnostic
from .outputs import BinaryOutput


class NADEk(OrderAgnostic):
    r"""A NADE of binary variables that infers the missing ones by a recursion of :math:`k` steps.

    .. math::
        h^{(t)} &= \phi\big(c + W v^{(t-1)}\big) \\
        v^{(t)} &= m \odot x + (1 - m) \odot \sigma\big(b + V h^{(t)}\big), \qquad t = 1, \dots, k

    from :math:`v^{(0)}`, which has learned probabilities where variables are missing. The last
    :math:`v^{(k)}_i` is the probability of a missing :math:`x_i = 1`. With :math:`V = W^T` and
    :math:`\phi = \sigma` the steps are those of the mean field of a restricted Boltzmann machine.

    See :class:`OrderAgnostic` for what ``log_prob`` is in training. In evaluation mode each
    conditional has a mask of its own, and nothing to share with the next: :math:`O(k D^2 H)`, for a
    draw too.

    Args:
        num_variables: number of variables :math:`D`.
        num_hidden: number of hidden units :math:`H`.
        num_steps: number of steps :math:`k`.
        order: indices of the variables from the first to the last; by default that of the indices.
        context_dim: number of dimensions of a context, which shifts :math:`c` and :math:`b`.
        validate_args: whether ``log_prob`` checks its argument.

    Raises:
        ValueError: if a size is not a positive whole number, or the order is not a permutation.

    References:
        Raiko, Li, Cho and Bengio, Iterative neural autoregressive distribution estimator (NADE-k),
        2014, arXiv:1406.1485.

    Example:
        >>> import torch
        >>> nade = NADEk(5, 8, num_steps=3, order=[4, 2, 0, 1, 3]).eval()
        >>> torch.allclose(nade.log_prob(nade.enumerate_support()).exp().sum(), torch.tensor(1.0))
        True
    """

    def __init__(
        self,
        num_variables: int,
        num_hidden: int,
        num_steps: int = 5,
        *,
        order: Sequence[int] | None = None,
        context_dim: int = 0,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(
            num_variables,
            BinaryOutput(),
            order=order,
            context_dim=context_dim,
            validate_args=validate_args,
        )
        size, units = self.event_shape.numel(), as_size(num_hidden, "num_hidden")
        self.num_steps = as_size(num_steps, "num_steps")
        self.start = nn.Parameter(torch.zeros(size))  # the logits of v^(0)
        self.hidden = nn.Linear(size + self.context_dim, units)
        self.out = nn.Linear(units + self.context_dim, size)

    def predict(
        self, x: torch.Tensor, known: torch.Tensor, context: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits ``(*batch, D, 1)`` of all variables, after the last step."""
        x = x.to(self.start.dtype)
        in_weight, in_bias = _with_context(self.hidden, context, self.context_dim)
        out_weight, out_bias = _with_context(self.out, context, self.context_dim)
        logits = self.start.expand(torch.broadcast_shapes(x.shape, known.shape))
        for _ in range(self.num_steps):
            state = torch.where(known, x, logits.sigmoid())
            hidden = (linear(state, in_weight) + in_bias).sigmoid()
            logits = linear(hidden, out_weight) + out_bias
        return logits.unsqueeze(-1)


def _with_context(
    layer: nn.Linear, context: torch.Tensor | None, context_dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight of what is no context, and the bias with what the context adds."""
    if context is None or not context_dim:
        return layer.weight, layer.bias
    own = layer.in_features - context_dim
    weight, of_context = layer.weight.split([own, context_dim], dim=1)
    return weight, linear(context, of_context, layer.bias)
