# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The tensors and modules inside an object of Pyro's, held by a module."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from inspect import getattr_static
from typing import Any
from weakref import ReferenceType

import torch
from torch import nn
from torch.distributions import Distribution, Transform
from torch.distributions.utils import lazy_property


def _copy_tree(node: Any, leaf: Callable[[Any, str], Any], path: str, memo: dict[int, Any]) -> Any:
    """Copy a tree of distributions and transforms, with ``leaf(item, path)`` for its leaves.

    Leaves are tensors, modules and slots; ``memo`` keeps shared nodes shared and stops at cycles
    (a transform and its inverse name each other).
    """
    if node is None or isinstance(node, bool | int | float | str | torch.Size):
        return node
    if id(node) in memo:
        return memo[id(node)]
    if isinstance(node, list | tuple):
        return type(node)(
            _copy_tree(item, leaf, f"{path}__{i}", memo) for i, item in enumerate(node)
        )
    if isinstance(node, dict):
        return {k: _copy_tree(item, leaf, f"{path}__{k}", memo) for k, item in node.items()}
    if isinstance(node, torch.Tensor | nn.Module | _Slot):
        memo[id(node)] = leaf(node, path)
        return memo[id(node)]
    if not _has_parts(node):
        return node
    memo[id(node)] = copy = object.__new__(type(node))
    remembered = _remembered(node)
    for name, item in vars(node).items():
        if name in remembered:
            continue
        if name == "_cached_x_y":
            item = (None, None)  # a remembered pair belongs to the old tensors
        elif isinstance(item, ReferenceType):
            item = None  # older releases of torch refer weakly to the inverse of a transform
        copy.__dict__[name] = _copy_tree(item, leaf, f"{path}__{name}".removeprefix("__"), memo)
    return copy


def _has_parts(node: Any) -> bool:
    """Whether to look for tensors inside: distributions, transforms and Pyro's parts of them."""
    return isinstance(node, Distribution | Transform) or (
        type(node).__module__.startswith(("pyro.", "torch.distributions."))
        and hasattr(node, "__dict__")
    )


def _remembered(node: Any) -> list[str]:
    """Names of values that a distribution computed from its arguments when it was asked for them.

    ``Bernoulli(probs).logits`` is computed once and kept beside ``probs``; a copy of it would no
    longer agree once ``probs`` is trained or loaded. The argument itself came first.
    """
    kind: Any = type(node)
    return [name for name in vars(node) if _is_lazy(kind, name)][1:]


@cache
def _is_lazy(kind: type, name: str) -> bool:
    return isinstance(getattr_static(kind, name, None), lazy_property)


class _Slot:
    """The place of a tensor or module that a ``BufferedDistribution`` holds under a name."""

    def __init__(self, name: str) -> None:
        self.name = name


class HoldsParts(nn.Module):
    """A module that holds what is inside a distribution, or another object of Pyro's.

    Tensors become buffers, or stay parameters; modules become sub-modules; the rest is kept as a
    skeleton with slots in their places, from which the object is put together again for each use.
    """

    def _hold(self, thing: object) -> None:
        """Take the parts of ``thing``."""
        self.__dict__["_skeleton"] = _copy_tree(thing, self._register, "", {})

    def _put_together(self) -> Any:
        """Make the object on the tensors and modules that are held now."""
        if self._modules:
            self._forget()
        skeleton = self.__dict__["_skeleton"]
        return _copy_tree(skeleton, lambda slot, _: getattr(self, slot.name), "", {})

    def _register(self, item: torch.Tensor | nn.Module, name: str) -> _Slot:
        name = name or "held"  # the thing itself is a tensor or a module
        if hasattr(type(self), name):
            name += "_"
        if isinstance(item, nn.Module):
            self.add_module(name, item)
        elif isinstance(item, nn.Parameter):
            self.register_parameter(name, item)
        elif item.requires_grad:
            raise ValueError(
                "expected the tensors of a distribution to be constants or nn.Parameters, but "
                f"{name.replace('__', '.')} requires a gradient and is not an nn.Parameter (Pyro's "
                "constructors of mixtures, categoricals and multivariate normals compute new "
                "tensors from the parameters that they get), so no optimiser would find it. To "
                "train it, write a subclass of DistributionModule that holds the nn.Parameter and "
                "makes the distribution anew in each call of log_prob and sample; to keep it "
                "fixed, detach() it"
            )
        else:
            if 0 in item.stride():
                item = item.contiguous()  # one number for many places cannot be loaded in place
            self.register_buffer(name, item)
        return _Slot(name)

    def _forget(self) -> None:
        """Drop what transforms remember: stale after an optimiser's step, and not copyable."""
        for module in self.modules():
            if isinstance(module, Transform):
                for name, item in vars(module).items():
                    if name.startswith("_cache") and isinstance(item, torch.Tensor):
                        module.__dict__[name] = None
                module.__dict__["_cached_x_y"] = (None, None)

    def __getstate__(self) -> dict[str, Any]:
        self._forget()
        return self.__dict__.copy()
