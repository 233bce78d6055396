# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Arguments of a model that can be replaced by others of the same kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)


class Arguments:
    """Positional and keyword arguments, with copies of the tensors and arrays among them.

    A graph that has read the copies sees what is put in their place later; the user's own tensors
    are never written to.

    Args:
        args: positional arguments, any nest of tuples, lists and dictionaries.
        kwargs: keyword arguments.

    Example:
        >>> import torch
        >>> x = torch.zeros(2)
        >>> arguments = Arguments((x, 3), {})
        >>> arguments.fits((torch.ones(2), 3), {}), arguments.fits((torch.ones(2), 4), {})
        (True, False)
        >>> arguments.replace((torch.ones(2), 3), {})
        >>> arguments.args[0].tolist(), x.tolist()
        ([1.0, 1.0], [0.0, 0.0])
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        leaves, self._spec = tree_flatten((tuple(args), dict(kwargs)))
        self._leaves = [_copy(leaf) for leaf in leaves]
        self.args, self.kwargs = tree_unflatten(self._leaves, self._spec)

    def fits(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether others differ from these in the values of tensors only."""
        leaves, spec = tree_flatten((tuple(args), dict(kwargs)))
        return spec == self._spec and all(map(_fits, self._leaves, leaves))

    def replace(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Take the values of others that fit over, in place."""
        leaves, _ = tree_flatten((tuple(args), dict(kwargs)))
        for mine, given in zip(self._leaves, leaves, strict=True):
            if _is_copied(mine):
                mine.copy_(given.detach())


def _is_copied(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided


def _copy(leaf: Any) -> Any:
    if _is_copied(leaf):
        return leaf.detach().clone()
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def _fits(mine: Any, given: Any) -> bool:
    if _is_copied(mine) and _is_copied(given):
        kinds = [(t.shape, t.dtype, t.device) for t in (mine, given)]
        return kinds[0] == kinds[1]
    if isinstance(mine, np.ndarray) and isinstance(given, np.ndarray):
        # Frozen at the recording, unlike a tensor.
        return mine.dtype == given.dtype and np.array_equal(mine, given)
    if mine is given:
        return True
    return type(mine) is type(given) and isinstance(mine, _PLAIN) and bool(mine == given)
