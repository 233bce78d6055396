# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Any Pyro distribution as a module, so that its tensors move and are saved."""

from __future__ import annotations

from collections.abc import Callable
from inspect import getattr_static
from typing import Any
from weakref import ReferenceType

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn
from torch.distributions import Distribution, Transform
from torch.distributions.utils import lazy_property

from .module import DistributionModule


def _copy_tree(node: Any, leaf: Callable[[Any, str], Any], path: str, memo: dict[int, Any]) -> Any:
    """Copy a tree of distributions and transforms, with ``leaf(item, path)`` for its leaves.

    Leaves are tensors, modules and slots; ``memo`` keeps shared nodes shared and stops at cycles
    (a transform and its inverse name each other).
    """
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
    lazy = [n for n in vars(node) if isinstance(getattr_static(type(node), n, None), lazy_property)]
    return lazy[1:]


class _Slot:
    """The place of a tensor or module that a ``BufferedDistribution`` holds under a name."""

    def __init__(self, name: str) -> None:
        self.name = name


class BufferedDistribution(DistributionModule):
    """A Pyro distribution whose tensor arguments are the buffers of a module.

    ``.to(device)``, ``.double()`` and ``state_dict`` then reach a prior such as
    ``Normal(zeros, ones)``, which as a plain attribute would stay where it was made. Tensors are
    found in nested distributions too (``Independent``, mixtures, transformed distributions);
    an ``nn.Parameter`` among them stays a parameter and a ``TransformModule`` a sub-module. What
    Pyro's transforms remember of their last call is dropped before each use, since it does not
    follow a change of the parameters; so scoring a draw runs the inverse.

    Args:
        distribution: the distribution to hold.

    Raises:
        ValueError: if a tensor argument requires a gradient without being an ``nn.Parameter``,
            since no optimiser would find it; if ``distribution`` is a module already.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> prior = BufferedDistribution(dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
        >>> prior.double().sample().dtype
        torch.float64
        >>> sorted(prior.state_dict())
        ['base_dist__loc', 'base_dist__scale']
    """

    def __init__(self, distribution: TorchDistributionMixin) -> None:
        if isinstance(distribution, nn.Module):
            raise ValueError(
                f"expected a distribution that is not a module, got {type(distribution).__name__}, "
                "whose tensors move and are saved already: use it as it is"
            )
        super().__init__(distribution.event_shape, distribution.batch_shape)
        self.__dict__["_skeleton"] = _copy_tree(distribution, self._register, "", {})

    def _register(self, item: torch.Tensor | nn.Module, name: str) -> _Slot:
        if hasattr(type(self), name):
            name += "_"
        if isinstance(item, nn.Module):
            self.add_module(name, item)
        elif isinstance(item, nn.Parameter):
            self.register_parameter(name, item)
        elif item.requires_grad:
            raise ValueError(
                f"expected the tensors of a distribution to be constants or nn.Parameters, but "
                f"{name.replace('__', '.')} requires a gradient and is not an nn.Parameter, so no "
                "optimiser would find it; wrap it in nn.Parameter, or detach() it"
            )
        else:
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

    @property
    def distribution(self) -> TorchDistributionMixin:
        """The plain distribution on the tensors that the module holds now."""
        self._forget()
        plain: TorchDistributionMixin = _copy_tree(
            self.__dict__["_skeleton"], lambda slot, _: getattr(self, slot.name), "", {}
        )
        if plain.batch_shape == self.batch_shape:
            return plain
        expanded: TorchDistributionMixin = plain.expand(self.batch_shape)
        return expanded

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether draws carry gradients."""
        return bool(self.distribution.has_rsample)

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        """Whether the support can be enumerated."""
        return bool(self.distribution.has_enumerate_support)

    @property
    def support(self) -> Any:
        """The constraint that draws satisfy."""
        return self.distribution.support

    @property
    def mean(self) -> torch.Tensor:
        """The mean, of shape ``batch_shape + event_shape``."""
        mean: torch.Tensor = self.distribution.mean
        return mean

    @property
    def variance(self) -> torch.Tensor:
        """The variance of every coordinate, of shape ``batch_shape + event_shape``."""
        variance: torch.Tensor = self.distribution.variance
        return variance

    def sample(self, sample_shape: Any = torch.Size()) -> torch.Tensor:  # noqa: B008
        """Draw without gradients, of shape ``sample_shape + batch_shape + event_shape``."""
        draws: torch.Tensor = self.distribution.sample(sample_shape)
        return draws

    def rsample(self, sample_shape: Any = torch.Size()) -> torch.Tensor:  # noqa: B008
        """Draw with gradients to the parameters, where the distribution can."""
        draws: torch.Tensor = self.distribution.rsample(sample_shape)
        return draws

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Log-density of ``value``, of shape ``sample_shape + batch_shape``."""
        log_prob: torch.Tensor = self.distribution.log_prob(value)
        return log_prob

    def enumerate_support(self, expand: bool = True) -> torch.Tensor:
        """All values of a discrete distribution, stacked on the left."""
        values: torch.Tensor = self.distribution.enumerate_support(expand)
        return values
