# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Degrees of the units of an autoregressive network: how many variables each may see."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

from .sizes import as_size


def spread_degrees(num_units: int, num_variables: int, *, from_none: bool = False) -> list[int]:
    r"""Spread the units of a hidden layer evenly over the degrees.

    A unit of degree :math:`m` sees the first :math:`m` variables, :math:`0 \leq m < D` (the last
    variable is seen by none). Degree 0, of units that see a context only, is left out unless
    ``from_none`` says otherwise or there is no other.

    Args:
        num_units: number of units of the layer.
        num_variables: number of variables :math:`D`.
        from_none: whether to include degree 0.

    Returns:
        The degrees, in increasing order.

    Raises:
        ValueError: if a size is not a positive whole number.

    Example:
        >>> spread_degrees(6, 4), spread_degrees(6, 4, from_none=True), spread_degrees(2, 4)
        ([1, 1, 2, 2, 3, 3], [0, 0, 1, 2, 2, 3], [1, 3])
    """
    units, variables = as_size(num_units, "num_units"), as_size(num_variables, "num_variables")
    least = 0 if from_none or variables == 1 else 1
    choices = variables - least
    if units >= choices:
        return [least + unit * choices // units for unit in range(units)]
    # Too few units for all degrees: the least and the largest are among them.
    return [least + unit * (choices - 1) // max(units - 1, 1) for unit in range(units)]


def as_degrees(degrees: Sequence[int], num_variables: int) -> list[int]:
    """Read the degrees of a layer's units, and sort them.

    Args:
        degrees: whole numbers from 0 to ``num_variables - 1``, in any order.
        num_variables: number of variables.

    Raises:
        ValueError: if there are none, or one is not such a number.

    Example:
        >>> as_degrees([2, 0, 1], 3)
        [0, 1, 2]
    """
    try:
        numbers = sorted(index(degree) for degree in degrees)
    except TypeError:
        numbers = []
    if not numbers or numbers[0] < 0 or numbers[-1] >= num_variables:
        raise ValueError(
            f"expected as degrees of a hidden layer whole numbers from 0 to {num_variables - 1}, "
            f"the numbers of variables that its units see, got {degrees!r}"
        )
    return numbers


def as_order(order: Sequence[int] | None, num_variables: int) -> list[int]:
    """Read an order of variables; ``None`` is that of their indices.

    Args:
        order: the indices of the variables, each once, from the first to the last.
        num_variables: number of variables.

    Raises:
        ValueError: if it is not a permutation of the indices.

    Example:
        >>> as_order(None, 3), as_order([2, 0, 1], 3)
        ([0, 1, 2], [2, 0, 1])
    """
    if order is None:
        return list(range(num_variables))
    try:
        numbers = [index(variable) for variable in order]
    except TypeError:
        numbers = []
    if sorted(numbers) != list(range(num_variables)):
        raise ValueError(
            f"expected as order each of the numbers from 0 to {num_variables - 1} once, got "
            f"{order!r}"
        )
    return numbers
