# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Sizes and shapes as a user gives them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index


def as_size(size: int, name: str) -> int:
    """Read a positive whole number.

    Args:
        size: the number, of any type that counts.
        name: the argument's name in the error.

    Raises:
        ValueError: if it is not a positive whole number.

    Example:
        >>> as_size(8, "latent_dim")
        8
    """
    try:
        whole = index(size)
    except TypeError:
        whole = 0
    if whole < 1:
        raise ValueError(f"expected as {name} a positive whole number, got {size!r}")
    return whole


def as_sizes(sizes: Sequence[int], name: str) -> tuple[int, ...]:
    """Read a sequence of positive whole numbers, which may be empty.

    Args:
        sizes: the numbers.
        name: the argument's name in the error.

    Raises:
        ValueError: if it is not a sequence of positive whole numbers.

    Example:
        >>> as_sizes([200, 200], "hidden_dims")
        (200, 200)
    """
    try:
        return tuple(as_size(size, name) for size in sizes)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"expected as {name} a sequence of positive whole numbers, such as (200, 200) or "
            f"(200,), got {sizes!r}"
        ) from error


def as_shape(size: int | Sequence[int]) -> tuple[int, ...]:
    """Read ``8`` as ``(8,)`` and leave a shape as it is.

    Args:
        size: a number of dimensions, or a shape.

    Raises:
        ValueError: if a size is not a positive whole number.

    Example:
        >>> as_shape(8), as_shape((1, 8, 8))
        ((8,), (1, 8, 8))
    """
    try:
        return as_sizes(size if isinstance(size, Sequence) else (size,), "shape")
    except ValueError as error:
        raise ValueError(
            f"expected a positive size, or a shape of positive sizes, got {size!r}"
        ) from error
