# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Sums of hidden units before each variable, all from one running sum."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .outputs import Output

BLOCK = 32
"""Variables whose sums are in memory at once: all of them would leave the processor's caches."""


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
    batch = torch.broadcast_shapes(x.shape[:-1], start.shape[:-1])
    total = start.unsqueeze(-2).expand((*batch, 1, start.shape[-1]))
    for low in range(0, x.shape[-1], BLOCK):
        inputs, weights = (
            output.encode(x[..., low : low + BLOCK], weight),
            weight[low : low + BLOCK],
        )
        if output.num_inputs == 1:
            steps = inputs * weights.squeeze(-2)
        else:
            steps = torch.einsum("...de,deh->...dh", inputs, weights)
        if shift is not None:
            steps = steps + shift[low : low + BLOCK]
        sums = torch.cat([total, steps.expand((*batch, *steps.shape[-2:]))], -2).cumsum(-2)
        total = sums[..., -1:, :]
        yield sums[..., :-1, :]
