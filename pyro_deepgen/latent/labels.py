# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Class labels that are known for some of the data."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import torch

_EXCLUDED = -1e4  # a logit whose probability is exactly 0 and whose logarithm is finite


def check_labels(y: torch.Tensor, batch: Sequence[int], num_classes: int) -> torch.Tensor:
    """Refuse labels that are not whole numbers of a batch's shape.

    Args:
        y: labels of shape ``batch``, -1 where unknown.
        batch: the shape of the batch.
        num_classes: number of classes.

    Raises:
        ValueError: if the type or shape is another, or (under validation) a label is out of range.

    Example:
        >>> check_labels(torch.tensor([0, 2, -1]), (3,), num_classes=3)
        tensor([ 0,  2, -1])
    """
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(
            f"expected y as whole numbers (torch.long) with -1 where unknown, got {y.dtype}"
        )
    if tuple(y.shape) != tuple(batch):
        raise ValueError(f"expected y of the batch's shape {tuple(batch)}, got {tuple(y.shape)}")
    if pyro.settings.get("validate_distributions_pyro") and bool(
        ((y < -1) | (y >= num_classes)).any()
    ):
        raise ValueError(
            f"expected y between -1 (unknown) and {num_classes - 1}, got values from "
            f"{int(y.min())} to {int(y.max())}"
        )
    return y


def one_hot_labels(y: torch.Tensor, num_classes: int, dtype: torch.dtype) -> torch.Tensor:
    """One-hot vectors; the first class where the label is unknown.

    Args:
        y: labels of shape ``batch``, -1 where unknown.
        num_classes: number of classes.
        dtype: dtype of the vectors.

    Returns:
        Vectors of shape ``(*batch, num_classes)``.

    Example:
        >>> one_hot_labels(torch.tensor(1), 3, torch.float32).tolist()
        [0.0, 1.0, 0.0]
    """
    classes = torch.arange(num_classes, device=y.device)
    return (y.clamp(min=0).unsqueeze(-1) == classes).to(dtype)


def known_or(y: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Logits with all mass on the label where it is known.

    Args:
        y: labels of shape ``batch``, -1 where unknown.
        logits: what holds where it is unknown, of a shape that broadcasts to
            ``(*batch, num_classes)``.

    Example:
        >>> known_or(torch.tensor([1, -1]), torch.zeros(2)).softmax(-1).tolist()
        [[0.0, 1.0], [0.5, 0.5]]
    """
    labels = one_hot_labels(y, logits.shape[-1], logits.dtype)
    return torch.where((y >= 0).unsqueeze(-1), (1 - labels) * _EXCLUDED, logits)


def class_probs_of(probs: torch.Tensor | Sequence[float] | None, num_classes: int) -> torch.Tensor:
    """Read prior class probabilities: equal ones for ``None``, and normalised.

    Args:
        probs: positive numbers, ``num_classes`` of them.
        num_classes: number of classes.

    Raises:
        ValueError: if they are not.

    Example:
        >>> class_probs_of([1, 3], 2).tolist()
        [0.25, 0.75]
    """
    try:
        given = torch.as_tensor([1.0] * num_classes if probs is None else probs).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"expected {num_classes} positive class_probs, got {probs!r}") from error
    if given.shape != (num_classes,) or not bool((given > 0).all()):
        raise ValueError(f"expected {num_classes} positive class_probs, got {given.tolist()}")
    return given / given.sum()
