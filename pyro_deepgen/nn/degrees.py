# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Degrees of the units of an autoregressive network: how many variables each may see."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from operator import index

import torch

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
    """Read the degrees of a layer's units.

    Args:
        degrees: whole numbers from 0 to ``num_variables - 1``, in any order.
        num_variables: number of variables.

    Raises:
        ValueError: if there are none, or one is not such a number.

    Example:
        >>> as_degrees((2, 0, 1), 3)
        [2, 0, 1]
    """
    try:
        numbers = [index(degree) for degree in degrees]
    except TypeError:
        numbers = []
    if not numbers or min(numbers) < 0 or max(numbers) >= num_variables:
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


def masks_of(degrees: Sequence[torch.Tensor] | None, num_layers: int) -> list[torch.Tensor | None]:
    """Return the mask of each layer, and that from the inputs to the outputs.

    Args:
        degrees: degrees of the inputs, of the units of each hidden layer, and of the outputs;
            ``None`` for as many times ``None``.
        num_layers: number of layers, the last one included.

    Example:
        >>> import torch
        >>> masks_of([torch.tensor([1, 2]), torch.tensor([1, 2])], 1)[0]
        tensor([[ True, False],
                [ True,  True]])
    """
    if degrees is None:
        return [None] * (num_layers + 1)
    pairs = [*pairwise(degrees), (degrees[0], degrees[-1])]
    return [units.unsqueeze(-1) >= inputs for inputs, units in pairs]


def require_same_counts(before: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> None:
    """Refuse degrees that are not the same ones in another order.

    Args:
        before: degrees of every layer.
        after: those that have taken their place.

    Raises:
        ValueError: if one is there more or fewer times than before.

    Example:
        >>> require_same_counts([[1, 1, 2]], [[2, 1, 1]])
    """
    for layer, (old, new) in enumerate(zip(before, after, strict=True)):
        if sorted(old) != sorted(new):
            raise ValueError(
                f"expected for layer {layer} the degrees {sorted(old)} in any order, as the "
                f"network was made, got {sorted(new)}: make it with the degrees that are loaded"
            )
