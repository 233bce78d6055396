# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Pyro without looking at the values of tensors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import pyro
import torch
from pyro.infer.util import Dice
from torch.distributions import Distribution
from torch.overrides import TorchFunctionMode


class _MaskedByWhere(TorchFunctionMode):
    """Inside Pyro's ``Dice``: excluded terms become 0 instead of being left out."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.Tensor.masked_select:
            value, mask = args
            return torch.where(mask, value, torch.zeros_like(value))
        if func is torch.Tensor.all:
            return False
        return func(*args, **(kwargs or {}))


class _UncheckedOneHot(TorchFunctionMode):
    """One-hot vectors without PyTorch's look at the smallest and the largest class."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.nn.functional.one_hot:
            return _one_hot(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _one_hot(tensor: torch.Tensor, num_classes: int = -1) -> torch.Tensor:
    if num_classes < 0:
        return torch.nn.functional.one_hot(tensor)
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).long()


@contextmanager
def device_only() -> Iterator[None]:
    """Keep Pyro from looking at the values of tensors: no validation, ``.item()`` or NaN checks.

    Example:
        >>> import pyro
        >>> with device_only():
        ...     pyro.infer.util.is_validation_enabled()
        False
    """
    compute: Any = Dice.compute_expectation

    def compute_expectation(self: Any, costs: Any) -> Any:
        with _MaskedByWhere():
            return compute(self, costs)

    with ExitStack() as stack:
        stack.enter_context(pyro.validation_enabled(False))
        for name, module in list(sys.modules.items()):
            if not name.startswith("pyro.infer"):
                continue
            for called, instead in (("torch_item", _detached), ("warn_if_nan", _unchanged)):
                if hasattr(module, called):
                    stack.enter_context(mock.patch.object(module, called, instead))
        # A distribution that was made before still validates.
        stack.enter_context(mock.patch.object(Distribution, "_validate_sample", _unchanged))
        stack.enter_context(_UncheckedOneHot())
        for module in (torch.distributions.transforms, torch.distributions.utils):
            stack.enter_context(mock.patch.object(module, "tril_matrix_to_vec", _tril_to_vec))
            stack.enter_context(mock.patch.object(module, "vec_to_tril_matrix", _vec_to_tril))
        stack.enter_context(mock.patch.object(Dice, "compute_expectation", compute_expectation))
        yield


# PyTorch goes between triangles and vectors by masks, which give shapes that depend on values.
def _tril_to_vec(mat: torch.Tensor, diag: int = 0) -> torch.Tensor:
    height, width = mat.shape[-2:]
    rows, columns = torch.tril_indices(height, width, diag, device=mat.device)
    return mat[..., rows, columns]


def _vec_to_tril(vec: torch.Tensor, diag: int = 0) -> torch.Tensor:
    size = 1
    while sum(max(0, min(size, row + 1 + diag)) for row in range(size)) < vec.shape[-1]:
        size += 1
    rows, columns = torch.tril_indices(size, size, diag, device=vec.device)
    mat = vec.new_zeros((*vec.shape[:-1], size, size))
    mat[..., rows, columns] = vec
    return mat


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value


def _unchanged(value: Any, *args: Any, **kwargs: Any) -> Any:
    return value
