# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The supports of mixtures, to which PyTorch registers no bijection."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.distributions import biject_to, constraints, transform_to
from torch.distributions.constraints import MixtureSameFamilyConstraint
from torch.distributions.transforms import Transform


def bijection(support: Any) -> Transform:
    """The bijection to what all components of a mixture share as their support.

    Args:
        support: of a ``MixtureSameFamily``.

    Raises:
        NotImplementedError: for components with supports of their own.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> two = dist.Categorical(torch.ones(2))
        >>> law = dist.MixtureSameFamily(two, dist.Gamma(torch.tensor([1.0, 9.0]), 1.0))
        >>> float(bijection(law.support)(torch.tensor(0.0)))  # exp
        1.0
    """
    shared: Transform = biject_to(_of_one(support.base_constraint, -1))
    return shared


biject_to.register(MixtureSameFamilyConstraint, bijection)
transform_to.register(MixtureSameFamilyConstraint, bijection)  # Pyro's starts ask for it


def is_mixture(support: Any) -> bool:
    """Whether a support is that of a mixture, or of several."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return isinstance(support, MixtureSameFamilyConstraint)


def _of_one(support: Any, dim: int) -> Any:
    """The support of one component, where its bounds are those of all along a batch dimension."""
    if isinstance(support, constraints.independent):
        count = support.reinterpreted_batch_ndims
        return constraints.independent(_of_one(support.base_constraint, dim - count), count)
    shared = copy.copy(support)
    for name, bound in vars(support).items():
        if isinstance(bound, torch.Tensor) and bound.dim() >= -dim:
            first = bound.select(dim, 0)
            if bool((bound != first.unsqueeze(dim)).any()):
                raise NotImplementedError(f"components have supports of their own: {support}")
            setattr(shared, name, first)
    return shared
