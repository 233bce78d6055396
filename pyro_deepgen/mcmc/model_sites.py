# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What sites a Pyro model has."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine.util import site_is_subsample
from pyro.util import check_site_shape
from torch.distributions import biject_to
from torch.distributions.transforms import identity_transform

from .finite_support import finite_values, is_enumerable
from .target import Site

# Deeper than any plates are nested: what is left of them counts as enumerated.
_DEEP = 99


@dataclass(frozen=True)
class ModelSites:
    """The unknowns of a model.

    Args:
        sites: what chains hold, by name.
        enumerated: the discrete sites that are summed out, with their values
            ``(K, *event_shape)``.
        nesting: how many of the rightmost batch dimensions are plates.
        device: where the values are.
    """

    sites: dict[str, Site]
    enumerated: dict[str, torch.Tensor]
    nesting: int
    device: torch.device

    def agree(self, other: ModelSites) -> bool:
        """Whether a chain of one can go on as a chain of the other."""
        return (
            not self.differing(other)
            and (self.nesting, self.device) == (other.nesting, other.device)
            and self.enumerated.keys() == other.enumerated.keys()
            and all(torch.equal(v, other.enumerated[n]) for n, v in self.enumerated.items())
        )

    def differing(self, other: ModelSites) -> list[str]:
        """Names of sites that one has only, or that have other shapes or supports."""
        names = [*self.sites, *(name for name in other.sites if name not in self.sites)]
        return [
            name
            for name in names
            if name not in self.sites
            or name not in other.sites
            or not _same(self.sites[name], other.sites[name], self.device)
        ]


def find_sites(trace: Any, keep: Collection[str] | None) -> ModelSites:
    """Find the unknowns of a model in a trace of it.

    Args:
        trace: of one run, without enumeration.
        keep: names of the discrete sites that a kernel moves; ``None`` means all.

    Raises:
        ValueError: for a subsampled plate, for a site whose support has no transform, for a
            discrete site that can neither be summed out nor is kept, for a dimension that is no
            plate beside sites that are summed out, and if there is no site.
    """
    sites: dict[str, Site] = {}
    enumerated: dict[str, torch.Tensor] = {}
    nesting, devices = 0, []
    for name, node in trace.nodes.items():
        if node["type"] != "sample":
            continue
        if site_is_subsample(node):
            _refuse_subsampling(name, node["fn"])
            continue
        plates = {frame.dim for frame in node["cond_indep_stack"] if frame.vectorized}
        nesting = max(nesting, *(-dim for dim in plates), 0)
        if node["is_observed"]:
            continue
        devices.append(node["value"].device)
        support = _support(name, node["fn"])
        if not support.is_discrete:
            sites[name] = _continuous(name, node, support, plates)
            continue
        value, values = node["value"], finite_values(node["fn"], node["value"])
        if keep is None or name in keep:
            count = _num_plates(node, plates)
            sites[name] = Site(value.shape, identity_transform, support, value.dtype, count, values)
        elif values is not None and is_enumerable(node["fn"]):
            enumerated[name] = values
        else:
            raise ValueError(_cannot_sum_out(name, node))
    if not devices:
        raise ValueError("the model has no latent site: nothing to sample")
    if enumerated:
        _check_plates(trace)
    return ModelSites(sites, enumerated, nesting, devices[0])


def _check_plates(trace: Any) -> None:
    """Where sites are summed out, every batch dimension must be a plate."""
    trace.compute_log_prob()
    for node in trace.nodes.values():
        if node["type"] == "sample" and not site_is_subsample(node):
            check_site_shape(node, max_plate_nesting=_DEEP)


def _support(name: str, distribution: Any) -> Any:
    try:
        return distribution.support
    except NotImplementedError as error:
        raise ValueError(
            f"the distribution of the site {name!r}, {type(distribution).__name__}, has no support"
        ) from error


def _continuous(name: str, node: Any, support: Any, plates: set[int]) -> Site:
    make: Callable[[Any], Any] = biject_to
    try:
        transform = make(support).inv
        value = transform(node["value"])
    except NotImplementedError as error:
        raise ValueError(
            f"the site {name!r} has the support {support}, to which no bijection from "
            "unconstrained values is registered: rewrite the site with poutine.reparam, or "
            "register one with torch.distributions.biject_to"
        ) from error
    return Site(value.shape, transform, support, value.dtype, _num_plates(node, plates))


def _num_plates(node: Any, plates: set[int]) -> int:
    batch = node["fn"].batch_shape
    count = 0
    for place, size in enumerate(batch):
        if place - len(batch) not in plates and size != 1:
            break
        count += 1
    return count


def _refuse_subsampling(name: str, subsample: Any) -> None:
    if subsample.subsample_size is not None and subsample.subsample_size < subsample.size:
        raise ValueError(
            f"the plate {name!r} draws {subsample.subsample_size} of {subsample.size} at each run: "
            "a chain needs the density of all data, so leave subsample_size out"
        )


def _cannot_sum_out(name: str, node: Any) -> str:
    distribution = node["fn"]
    finite = finite_values(distribution, node["value"]) is not None
    way = (
        f"let DiscreteGibbs move it: Gibbs([(DiscreteGibbs(model), [{name!r}]), ...])"
        if finite
        else "it has no finite list of values: let a kernel of your own, whose suits() accepts it, "
        f"move it: Gibbs([(kernel, [{name!r}]), ...])"
    )
    return (
        f"the discrete site {name!r} ({type(distribution).__name__}, support "
        f"{distribution.support}) cannot be summed out; {way}"
    )


def _same(one: Site, other: Site, device: torch.device) -> bool:
    if (one.shape, one.dtype, one.plate_dims) != (other.shape, other.dtype, other.plate_dims):
        return False
    if one.is_discrete or other.is_discrete:
        if one.is_discrete != other.is_discrete or (one.values is None) != (other.values is None):
            return False
        if one.values is None or other.values is None:
            return True
        return one.values.shape == other.values.shape and torch.equal(one.values, other.values)
    # Two supports are the same if their transforms are, and those are told apart at two points.
    for point in (-0.5, 1.0):
        at = torch.full(one.shape, point, dtype=one.dtype, device=device)
        a, b = one.transform.inv(at), other.transform.inv(at)
        if a.shape != b.shape or not torch.allclose(a, b, equal_nan=True):
            return False
    return True
