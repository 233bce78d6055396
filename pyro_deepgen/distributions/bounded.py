# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Scoring points that may lie outside a support."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import constraints, transform_to

_EVERYWHERE = (type(constraints.real), type(constraints.real_vector))


def log_prob_anywhere(distribution: Any, x: torch.Tensor) -> torch.Tensor:
    r"""Log-density of points, :math:`-\infty` outside the support instead of an error.

    The inverse of a flow leads out of a bounded base where the flow has no mass.

    Args:
        distribution: a distribution.
        x: points of shape ``(*sample, *batch, *event)``.

    Returns:
        The log-densities, of shape ``(*sample, *batch)``.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> log_prob_anywhere(dist.Uniform(0.0, 2.0), torch.tensor([1.0, 3.0])).exp().tolist()
        [0.5, 0.0]
    """
    support = distribution.support
    inner = support
    while isinstance(inner, constraints.independent):
        inner = inner.base_constraint
    log_prob: torch.Tensor
    if isinstance(inner, _EVERYWHERE):
        log_prob = distribution.log_prob(x)
        return log_prob
    inside = support.check(x)
    event_dim = len(distribution.event_shape)
    kept = inside.reshape(inside.shape + (1,) * event_dim)
    zeros = torch.zeros_like(x)
    # Mapped zeros stand for what lies outside: in the support, and without a gradient.
    log_prob = distribution.log_prob(torch.where(kept, x, transform_to(support)(zeros)))
    return log_prob.masked_fill(~inside, -torch.inf)
