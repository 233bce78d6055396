# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Calling a network on any number of batch dimensions."""

from __future__ import annotations

from collections.abc import Callable

import torch


def apply_batched(
    network: Callable[..., torch.Tensor],
    x: torch.Tensor,
    event_dim: int,
    *context: torch.Tensor,
) -> torch.Tensor:
    """Call a network with exactly one batch dimension and give the result its batch shape.

    Convolutions, batch normalisation and most networks that people write want one batch dimension;
    plates and particles make none, two or three. Every argument is expanded to the common batch
    shape and flattened; the result is unflattened. A network that takes any batch shape itself, and
    says so with an attribute ``broadcasts = True`` (:class:`MLP`), is called as it is, and does not
    compute the same thing twice for inputs that broadcast.

    Args:
        network: a function from ``(N, *event)``, and for each context ``(N, context_dim)``, to
            ``(N, *output)``.
        x: input of shape ``(*batch, *event)``.
        event_dim: number of event dimensions of ``x``.
        context: further inputs of shape ``(*batch, context_dim)``; their batch shapes broadcast
            with that of ``x``.

    Returns:
        The output, of shape ``(*batch, *output)``.

    Raises:
        ValueError: if the network does not keep the batch dimension, or if ``x`` has fewer than
            ``event_dim`` dimensions.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> convolution = nn.Conv2d(1, 4, 3, padding=1)
        >>> apply_batched(convolution, torch.zeros(2, 3, 1, 8, 8), 3).shape
        torch.Size([2, 3, 4, 8, 8])
        >>> apply_batched(convolution, torch.zeros(1, 8, 8), 3).shape
        torch.Size([4, 8, 8])
    """
    if x.dim() < event_dim:
        raise ValueError(
            f"expected an input with at least {event_dim} dimensions, got shape {tuple(x.shape)}"
        )
    if getattr(network, "broadcasts", False):
        return network(x, *context)
    event = x.shape[x.dim() - event_dim :]
    batch = torch.broadcast_shapes(x.shape[: x.dim() - event_dim], *(c.shape[:-1] for c in context))
    inputs = [x.expand(batch + event).reshape((batch.numel(), *event))]
    inputs += [c.expand((*batch, c.shape[-1])).reshape(batch.numel(), c.shape[-1]) for c in context]
    output = network(*inputs)
    if output.dim() == 0 or output.shape[0] != batch.numel():
        raise ValueError(
            f"expected {type(network).__name__} to keep the batch dimension of "
            f"{batch.numel()}, got an output of shape {tuple(output.shape)} for inputs of shapes "
            f"{[tuple(i.shape) for i in inputs]}"
        )
    return output.reshape(batch + output.shape[1:])
