# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The log-density of a model, plate by plate, also at a temperature."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from . import plate_terms as of_models
from .base import Independent
from .model_target import ModelTarget
from .path import GeometricPath, weighted
from .state import State, Values
from .target import Target
from .tempered_target import TemperedTarget, for_values


def free_dims(target: Target, name: str, state: State) -> tuple[int, ...]:
    """Plates of a discrete site whose elements are independent of each other given all else.

    On the way from a base to a target these are the plates that both have.

    Args:
        target: any; there are none where it is no model's.
        name: the site.
        state: a valid one, of any number of chains.

    Returns:
        Negative batch dimensions in rising order.
    """
    if not isinstance(target, TemperedTarget):
        return of_models.free_dims(target, name, state)
    if not isinstance(target.path, GeometricPath):
        return ()
    actual = target.actual({site: state[site] for site in target.sites})
    dims = of_models.free_dims(target.path.target, name, actual)
    base = target.path.base
    if base is None or not dims:
        return dims
    if isinstance(base, Independent):
        event_dim = len(base.distributions[name].event_shape)
        return dims if event_dim == target.sites[name].support.event_dim else ()
    of_base = of_models.free_dims(base, name, actual)
    return tuple(dim for dim in dims if dim in of_base)


def plate_terms(target: Target, name: str, values: Values, dims: Sequence[int]) -> torch.Tensor:
    """The log-density of every chain, apart for each element of some plates.

    Args:
        target: one in which ``free_dims`` has found plates.
        name: the site whose plates they are.
        values: values ``(C, *shape)`` of all sites, as a kernel sees them.
        dims: these plates.

    Returns:
        ``(C, *sizes)``, but for what does not depend on the site.
    """
    if isinstance(target, ModelTarget):
        return of_models.plate_terms(target, values, dims)
    assert isinstance(target, TemperedTarget) and isinstance(target.path, GeometricPath)
    actual = target.actual({site: values[site] for site in target.sites})
    end, base = target.path.target, target.path.base
    assert isinstance(end, ModelTarget)
    terms = of_models.plate_terms(end, actual, dims)
    beta = for_values(actual[name], target.beta)
    beta = beta.reshape(-1, *[1] * (terms.dim() - 1))
    terms = weighted(beta, terms)
    if isinstance(base, Independent):
        of_base = base.distributions[name].log_prob(actual[name])
        others = [dim for dim in range(1 - of_base.dim(), 0) if dim not in dims]
        terms = terms + weighted(1 - beta, of_base.sum(others) if others else of_base)
    elif isinstance(base, ModelTarget):
        terms = terms + weighted(1 - beta, of_models.plate_terms(base, actual, dims))
    return terms
