# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The possible values of discrete distributions."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import constraints
from torch.distributions.constraints import MixtureSameFamilyConstraint


def finite_values(distribution: Any, like: torch.Tensor) -> torch.Tensor | None:
    """List the values that one element of a discrete distribution can have.

    Args:
        distribution: has ``support``; a distribution over several independent elements
            (``to_event``) is looked at element by element.
        like: a value, for the dtype and the device.

    Returns:
        ``(K, *element_shape)``; ``None`` where they are not finitely many, or not the same for all
        elements.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> pixels = dist.Bernoulli(torch.rand(28, 28)).to_event(2)
        >>> finite_values(pixels, pixels.sample()).tolist()
        [0.0, 1.0]
    """
    support = distribution.support
    while isinstance(support, constraints.independent | MixtureSameFamilyConstraint):
        support = support.base_constraint
    values = None
    if isinstance(support, type(constraints.boolean)):
        values = torch.arange(2)
    elif isinstance(support, constraints.integer_interval):
        lower, upper = (torch.as_tensor(b) for b in (support.lower_bound, support.upper_bound))
        if bool((lower == lower.flatten()[0]).all() & (upper == upper.flatten()[0]).all()):
            values = torch.arange(int(lower.flatten()[0]), int(upper.flatten()[0]) + 1)
    elif isinstance(support, type(constraints.one_hot)):
        values = torch.eye(distribution.event_shape[-1])
    elif getattr(distribution, "has_enumerate_support", False):
        try:
            values = distribution.enumerate_support(expand=False)
        except NotImplementedError:
            return None
        values = values.reshape(values.shape[:1] + distribution.event_shape)
    return None if values is None else values.to(like)


def is_enumerable(distribution: Any) -> bool:
    """Whether Pyro can sum a distribution's site out."""
    if not getattr(distribution, "has_enumerate_support", False):
        return False
    try:
        distribution.enumerate_support(expand=False)
    except NotImplementedError:
        return False
    return True
