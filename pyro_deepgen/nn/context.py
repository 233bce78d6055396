# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Joining a context to the input of a dense layer."""

from __future__ import annotations

import torch
from torch import nn


def join_context(
    features: torch.Tensor, context: torch.Tensor | None, context_dim: int
) -> torch.Tensor:
    """Concatenate features and a context on the last dimension.

    Args:
        features: features of shape ``(*batch, D)``.
        context: a context of shape ``(*batch, context_dim)``, whose batch shape broadcasts with
            that of the features, or ``None`` where ``context_dim`` is 0.
        context_dim: number of dimensions of the context that the network was made for.

    Returns:
        A tensor of shape ``(*batch, D + context_dim)``.

    Raises:
        ValueError: if the context has another number of dimensions.

    Example:
        >>> import torch
        >>> join_context(torch.zeros(5, 4), torch.ones(3), 3).shape
        torch.Size([5, 7])
    """
    given = 0 if context is None or context.dim() == 0 else context.shape[-1]
    if given != context_dim:
        raise ValueError(
            f"expected a context with {context_dim} dimensions, got {given}; the network was made "
            f"with context_dim={context_dim}"
        )
    if context is None:
        return features
    batch = torch.broadcast_shapes(features.shape[:-1], context.shape[:-1])
    return torch.cat(
        [features.expand((*batch, features.shape[-1])), context.expand((*batch, given))], dim=-1
    )


def linear_with_context(
    linear: nn.Linear, features: torch.Tensor, context: torch.Tensor | None, context_dim: int
) -> torch.Tensor:
    """Apply a linear layer to features joined with a context, without joining them.

    The products with the features and with the context are added, each computed once for its own
    batch shape: with one context for each of ten classes and a batch of ``B`` features, ``B + 10``
    products and not ``10 B``.

    Args:
        linear: a layer of ``D + context_dim`` inputs.
        features: features of shape ``(*batch, D)``.
        context: as for :func:`join_context`.
        context_dim: number of dimensions of the context that the network was made for.

    Returns:
        A tensor of shape ``(*batch, linear.out_features)``, equal to
        ``linear(join_context(features, context, context_dim))``.

    Raises:
        ValueError: if the context has another number of dimensions.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layer, x, y = nn.Linear(7, 2), torch.randn(5, 4), torch.randn(10, 1, 3)
        >>> joined = layer(join_context(x, y, 3))
        >>> torch.allclose(linear_with_context(layer, x, y, 3), joined, atol=1e-6)
        True
    """
    if context is None or context.dim() == 0 or context.shape[-1] != context_dim:
        joined: torch.Tensor = linear(join_context(features, context, context_dim))
        return joined
    of_features, of_context = linear.weight.split([features.shape[-1], context_dim], dim=1)
    return nn.functional.linear(features, of_features, linear.bias) + nn.functional.linear(
        context, of_context
    )
