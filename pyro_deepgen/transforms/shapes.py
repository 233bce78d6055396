# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What transforms ask of the shapes that they get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .transform import Transform


def check_event(
    transform: Transform,
    side: str,
    shape: Sequence[int],
    event_dim: int,
    event_shape: tuple[int, ...] | None,
) -> None:
    """Raise ``ValueError`` unless a shape ends in an event shape, or is long enough for any."""
    if event_shape is None:
        if len(shape) < event_dim:
            raise ValueError(
                f"{type(transform).__name__} expected in its {side} a tensor with at least "
                f"{event_dim} dimensions, got shape {tuple(shape)}"
            )
    elif tuple(shape[len(shape) - len(event_shape) :]) != event_shape:
        raise ValueError(
            f"{type(transform).__name__} expected in its {side} a tensor whose last dimensions are "
            f"{event_shape}, got shape {tuple(shape)}; reshape it, or make the transform for that "
            "shape"
        )


def check_context(transform: Transform, context: torch.Tensor | None) -> None:
    """Raise ``ValueError`` unless a context is given where needed, with the right dimensions."""
    expected = transform.context_dim
    if context is None:
        if expected:
            raise ValueError(
                f"{type(transform).__name__} depends on a context with {expected} dimensions and "
                "got none: call condition(context) first and use what it returns"
            )
    elif expected == 0:
        raise ValueError(
            f"{type(transform).__name__} expected no context, got one of shape "
            f"{tuple(context.shape)}; make it with context_dim to depend on one"
        )
    elif context.dim() == 0 or context.shape[-1] != expected:
        raise ValueError(
            f"{type(transform).__name__} expected a context whose last dimension is {expected}, "
            f"got shape {tuple(context.shape)}; its context_dim is {expected}"
        )


def exchange(
    transform: Transform,
    shape: Sequence[int],
    old: tuple[int, ...] | None,
    new: tuple[int, ...] | None,
) -> torch.Size:
    """Replace one event shape at the end of a shape by another."""
    if old is None or new is None:
        return torch.Size(shape)
    cut = len(shape) - len(old)
    if cut < 0 or tuple(shape[cut:]) != old:
        raise ValueError(
            f"{type(transform).__name__} expected a shape that ends in {old}, got {tuple(shape)}"
        )
    return torch.Size((*shape[:cut], *new))
