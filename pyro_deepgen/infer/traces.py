# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Traces of a model and a guide, matched and checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample

PARTICLES = "_num_particles"
"""Name of the plate of particles."""

Site = dict[str, Any]


class Program(Protocol):
    """A model or a guide: anything callable that contains Pyro statements."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it."""
        ...


def run_guide(guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Trace:
    """Run a guide and record its sites."""
    return poutine.trace(guide).get_trace(*args, **kwargs)


def run_model(
    model: Program, latents: Trace, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Trace:
    """Run a model with the latent values of a guide's trace and record its sites."""
    return poutine.trace(poutine.replay(model, trace=latents)).get_trace(*args, **kwargs)


def sites_of(trace: Trace) -> dict[str, Site]:
    """The sites that carry a log-probability: no parameters, subsamples or deterministic sites."""
    nodes = cast(dict[str, Any], trace.nodes)
    return {
        name: site
        for name, site in nodes.items()
        if site["type"] == "sample"
        and not site_is_subsample(site)
        and not site["infer"].get("_deterministic")
    }


def check_match(model_trace: Trace, guide_trace: Trace) -> None:
    """Refuse traces that do not match: missing or extra latent sites, undeclared dimensions.

    Raises:
        ValueError: naming the sites.
    """
    model_sites, guide_sites = sites_of(model_trace), sites_of(guide_trace)
    latent = {name for name, site in model_sites.items() if not site["is_observed"]}
    guided = {
        name
        for name, site in guide_sites.items()
        if not site["is_observed"] and not site["infer"].get("is_auxiliary")
    }
    if missing := latent - guided:
        raise ValueError(
            f"the model's sites {sorted(missing)} are neither observed nor sampled by the guide: "
            "sample them in the guide, observe them, or enumerate them with TraceEnum_ELBO"
        )
    if extra := guided - latent:
        raise ValueError(
            f"the guide's sites {sorted(extra)} are not latent sites of the model: rename them, or "
            "mark them with infer={'is_auxiliary': True}"
        )
    for name, site in (*model_sites.items(), *guide_sites.items()):
        declared = {frame.dim for frame in site["cond_indep_stack"]}
        batch = site["fn"].batch_shape
        if undeclared := [d for d in range(-len(batch), 0) if batch[d] > 1 and d not in declared]:
            raise ValueError(
                f"site {name!r} has batch_shape {tuple(batch)}, but its dimensions {undeclared} "
                "belong to no plate: use .to_event(...) for dimensions of one datum, or declare a "
                "plate"
            )


Score = Callable[[str, Site], torch.Tensor]
"""A function that gives the log-probability of a site."""


def log_prob(name: str, site: Site) -> torch.Tensor:
    """Log-probability of a site's value, neither scaled nor masked.

    Raises:
        ValueError: if the distribution cannot score the value, naming the site.
    """
    try:
        value: torch.Tensor = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    except (ValueError, KeyError, NotImplementedError) as error:
        # The latter two come from transforms without an inverse.
        raise ValueError(f"cannot score the value at site {name!r}: {error}") from error
    return value


def is_reparametrized(site: Site) -> bool:
    """Whether gradients flow through the value of a site to its distribution's parameters.

    An observed value was not drawn, so nothing is missing there; a factor says it for itself.
    """
    if is_datum(site):
        return True
    return bool(getattr(site["fn"], "has_rsample", False))


def is_datum(site: Site) -> bool:
    """Whether a site is observed and no factor."""
    return bool(site["is_observed"]) and not isinstance(site["fn"], Unit)


def map_latents(trace: Trace, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Trace:
    """Copy a trace with the values of its sample sites changed."""
    changed = trace.copy()
    for name, site in sites_of(trace).items():
        node = site.copy()
        node["value"] = change(name, site["value"])
        cast(dict[str, Site], changed.nodes)[name] = node
    return changed
