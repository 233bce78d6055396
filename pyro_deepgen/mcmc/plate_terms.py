# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The log-density of a model, plate by plate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pyro.ops.provenance import get_provenance, track_provenance

from .enumeration import MASKED
from .model_target import ModelTarget
from .one_of_many import one_of_many
from .state import State, Values
from .target import Target

# A pair of coupled elements goes unseen in one trial with a probability of 3/4.
TRIALS = 64


def plate_terms(target: ModelTarget, values: Values, dims: Sequence[int]) -> torch.Tensor:
    """The log-density of every chain, apart for each element of some plates.

    Args:
        target: a model's, in which no site is summed out.
        values: unconstrained values ``(C, *shape)`` of all sites.
        dims: the plates, as negative batch dimensions in rising order.

    Returns:
        ``(C, *sizes)``, the sum of all terms that have these plates, without the others.
    """
    constrained = target.constrain(values)
    with one_of_many():
        terms: torch.Tensor = torch.func.vmap(lambda one: _sum_terms(target, one, dims))(
            constrained
        )
    return terms


def free_dims(target: Target, name: str, state: State) -> tuple[int, ...]:
    """Plates of a discrete site whose elements are independent of each other given all else.

    These are the plates that every term has which depends on the site, and across which no term
    changes where the site's other elements do. The first is read off the operations of the model;
    the second is tried out with random values, as it follows from the meaning of a plate and only
    a model that violates it (by a sum over a plate inside of it) can have it otherwise.

    Args:
        target: any; there are none where it is no model's, or where sites are summed out.
        name: the site.
        state: a valid one, of any number of chains.

    Returns:
        Negative batch dimensions in rising order.
    """
    if not isinstance(target, ModelTarget):
        return ()
    values = {site: state[site] for site in target.sites}
    first = {site: value[0] for site, value in target.constrain(values).items()}
    tracked = {**first, name: track_provenance(first[name], frozenset({name}))}
    with one_of_many(), torch.no_grad():
        trace = target.trace(tracked)
        if any(node["infer"].get("_enumerate_dim") is not None for node in _nodes(trace)):
            return ()
        terms = {node["name"]: node["fn"].log_prob(node["value"]) for node in _nodes(trace)}
    num_batch = len(trace.nodes[name]["fn"].batch_shape)
    sizes = {i - num_batch: size for i, size in enumerate(target.sites[name].shape[:num_batch])}
    plates = [i - num_batch for i in range(target.sites[name].plate_dims)]
    reached = [term.shape for term in terms.values() if name in get_provenance(term)]
    return tuple(
        dim
        for dim in plates
        if sizes[dim] > 1
        and all(_has(shape, dim, sizes[dim]) for shape in reached)
        and not _is_coupled(target, name, values, dim, dim + num_batch)
    )


def _is_coupled(target: ModelTarget, name: str, values: Values, dim: int, place: int) -> bool:
    """Whether a term changes at an element along a plate where the site does not."""
    site = target.sites[name]
    assert site.values is not None
    # Draws of its own, lest a kernel's draws depend on how often it was bound.
    generator = torch.Generator(target.device).manual_seed(0)
    trials = {n: v[torch.arange(TRIALS, device=v.device) % len(v)] for n, v in values.items()}
    num_elements = len(site.shape) - site.values.dim() + 1
    shape = (TRIALS, *site.shape[:num_elements])

    def random_values() -> torch.Tensor:
        assert site.values is not None
        places = torch.randint(
            len(site.values), shape, generator=generator, device=site.values.device
        )
        return site.values[places]

    size = site.shape[place]
    changes = torch.rand(TRIALS, size, generator=generator, device=target.device) < 0.5
    along = [1] * len(site.shape)
    along[place] = size
    before = random_values()
    after = torch.where(changes.reshape(TRIALS, *along), random_values(), before)

    with one_of_many(), torch.no_grad():
        one, other = (
            torch.func.vmap(lambda values: _terms(target, values))(
                target.constrain({**trials, name: value})
            )
            for value in (before, after)
        )
    for term, same in zip(one.values(), other.values(), strict=True):
        differs = (term != same) & ~(term.isnan() & same.isnan())
        if _has(term.shape[1:], dim, size):
            at = changes.reshape(TRIALS, *[1] * (term.dim() + dim - 1), size, *[1] * (-dim - 1))
            differs = differs & ~at
        if differs.any():
            return True
    return False


def _sum_terms(target: ModelTarget, constrained: Values, dims: Sequence[int]) -> torch.Tensor:
    terms = _terms(target, constrained).values()
    shapes = [term.shape for term in terms if term.dim() >= -dims[0]]
    sizes = {dim: max(shape[dim] for shape in shapes) for dim in dims}
    total = torch.zeros(tuple(sizes.values()), device=target.device)
    for term in terms:
        if all(_has(term.shape, dim, size) for dim, size in sizes.items()):
            others = [dim for dim in range(-term.dim(), 0) if dim not in dims]
            total = total + (term.sum(others) if others else term)
    return total


def _terms(target: ModelTarget, constrained: Values) -> Values:
    trace = target.trace(constrained)
    for node in _nodes(trace):
        # As in the target's potential: what is not observed is drawn from the prior everywhere.
        if node["name"].endswith(MASKED):
            node["mask"] = None
    trace.compute_log_prob()
    return {node["name"]: node["log_prob"] for node in _nodes(trace)}


def _nodes(trace: Any) -> Iterator[Any]:
    return (node for node in trace.nodes.values() if node["type"] == "sample")


def _has(shape: Sequence[int], dim: int, size: int) -> bool:
    return len(shape) >= -dim and shape[dim] == size
