# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Sums of hidden units before each variable, all from one running sum."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.functional import linear

from .outputs import Output

BLOCK = 16
"""Largest number of variables whose sums are in memory at once."""
CACHED = 2**18
"""Largest number of sums at once on a processor: more of them would leave its caches."""


def running_sums(
    x: torch.Tensor,
    weight: torch.Tensor,
    start: torch.Tensor,
    output: Output,
    shift: torch.Tensor | None = None,
) -> Iterator[torch.Tensor]:
    r"""Yield :math:`a_d = c + \sum_{j < d} (W_j x_j + u_j)`, some variables at a time.

    Args:
        x: values in the order of the model, of shape ``(*batch, D)``.
        weight: :math:`W`, of shape ``(D, E, H)``, in that order.
        start: :math:`c`, of shape ``(*batch, H)``; batch shapes broadcast.
        output: the family of one variable, which says how values enter.
        shift: :math:`u`, of shape ``(D, H)``; none by default.

    Yields:
        Sums of shape ``(*batch, n, H)`` of the next ``n`` variables.

    Example:
        >>> import torch
        >>> from pyro_deepgen.autoregressive import BinaryOutput
        >>> x, weight, start = torch.ones(3), torch.ones(3, 1, 1), torch.zeros(1)
        >>> [sums.flatten().tolist() for sums in running_sums(x, weight, start, BinaryOutput())]
        [[0.0, 1.0, 2.0]]
    """
    total, dims = start, x.dim() - 1
    batch = torch.broadcast_shapes(x.shape[:-1], start.shape[:-1])
    block = BLOCK
    if x.device.type == "cpu":
        block = min(BLOCK, max(4, CACHED // max(1, batch.numel() * weight.shape[-1])))
    for low in range(0, x.shape[-1], block):
        inputs = output.encode(x[..., low : low + block], weight)
        weights = weight[low : low + block]
        num, width = len(weights), weight.shape[-1]
        before = weight.new_ones(num, num).tril(-1)
        # Products with a triangle of ones are quicker than a cumulative sum, above all backwards.
        # The variables come first in memory, as the products of the outputs want them.
        if output.num_inputs == 1:
            values = inputs.squeeze(-1)
            shown = before.bool().reshape(num, *[1] * dims, num)
            # Not a product with zeros, which are no match for an infinity.
            seen = torch.where(shown, values, torch.zeros_like(values))
            sums = linear(seen, weights.squeeze(-2).mT)
            steps = linear(values, weights.squeeze(-2).mT)
        else:
            each = torch.einsum("...de,deh->d...h", inputs, weights)
            sums = (before @ each.reshape(num, -1)).reshape(each.shape)
            steps = each.sum(0)
        if shift is not None:
            shifts = shift[low : low + block]
            sums = sums + (before @ shifts).reshape(num, *[1] * dims, width)
            steps = steps + shifts.sum(0)
        yield (total + sums).movedim(0, -2)
        total = total + steps


def by_variable(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    r"""Return :math:`V_d h_d` of some variables, each with a matrix of its own.

    Args:
        hidden: :math:`h_d`, of shape ``(*batch, n, H)``.
        weight: :math:`V_d`, of shape ``(n, H, P)``.

    Returns:
        Products of shape ``(*batch, n, P)``.

    Example:
        >>> import torch
        >>> hidden, weight = torch.randn(5, 3, 4), torch.randn(3, 4, 2)
        >>> both = [by_variable(hidden, weight), (hidden.unsqueeze(-2) @ weight).squeeze(-2)]
        >>> torch.allclose(*both, atol=1e-6)
        True
    """
    if weight.shape[-1] == 1:  # products of a matrix and a vector are slow in batches
        return (hidden * weight.squeeze(-1)).sum(-1, keepdim=True)
    return torch.einsum("...dh,dhp->...dp", hidden, weight)
