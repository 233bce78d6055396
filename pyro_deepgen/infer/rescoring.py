# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Scoring a guide's draws with the guide's parameters stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace

from .stop_parameters import StopParameters, check_stopped, map_tensors
from .traces import (
    Program,
    Score,
    Site,
    is_datum,
    is_reparametrized,
    log_prob,
    map_latents,
    run_guide,
    run_model,
    sites_of,
)

GradientHook = Callable[[torch.Tensor, int], torch.Tensor]


def rescore(
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    hook: GradientHook | None = None,
) -> tuple[Trace, Trace, Score]:
    r"""Draw from the guide, then score model and guide so that gradients flow through draws only.

    The guide runs twice: once to draw, and once, with its parameters and arguments stopped, to
    score the draws. The gradient of the scores with respect to the guide's parameters is then the
    pathwise part, :math:`\frac{\partial \log w}{\partial z} \frac{\partial z}{\partial \phi}`,
    also where one latent's parameters depend on another latent.

    Args:
        model: the model.
        guide: the guide; all its latent sites must be reparametrised.
        args: positional arguments of both.
        kwargs: keyword arguments of both.
        hook: changes the gradient that arrives at a site's draws, given the gradient and the
            site's number of event dimensions, before it goes on to the guide's parameters.

    Returns:
        The traces of model and guide, and the function that must score the guide's sites (a
        distribution may own parameters, which its ``log_prob`` uses).

    Raises:
        ValueError: if a site of the guide is observed or not reparametrised, or if the guide uses
            dropout; when scoring, if a parameter cannot be stopped.
    """
    drawn = run_guide(guide, args, kwargs)
    require_reparametrized(drawn)
    if observed := sorted(name for name, site in sites_of(drawn).items() if is_datum(site)):
        raise ValueError(
            f"the guide observes {observed}, whose density would get no gradient from this "
            'estimator; move them into the model, or use gradient="iwae" (or Trace_ELBO)'
        )

    event_dims = {name: site["fn"].event_dim for name, site in sites_of(drawn).items()}
    copies: list[torch.Tensor] = []

    def boundary(name: str, value: torch.Tensor) -> torch.Tensor:
        if not value.requires_grad:
            return value
        copy = value.clone()  # also keeps transforms from remembering how the value was made
        if hook is not None:
            copy.register_hook(lambda grad: hook(grad, event_dims[name]))
        copies.append(copy)
        return copy

    latents = map_latents(drawn, boundary)
    # Arguments may have been computed from parameters: what holds for those holds for these.
    inputs = map_tensors((args, kwargs), lambda t: t.detach() if t.requires_grad else t)
    with StopParameters():
        guide_trace = run_guide(poutine.replay(guide, trace=latents), *inputs)

    def score(name: str, site: Site) -> torch.Tensor:
        with StopParameters():
            value = log_prob(name, site)
        check_stopped(value, copies)
        return value

    return run_model(model, latents, args, kwargs), guide_trace, score


def require_reparametrized(guide_trace: Trace) -> None:
    """Refuse a guide with a site whose draws carry no gradient.

    Raises:
        ValueError: naming the site and its distribution.
    """
    for name, site in sites_of(guide_trace).items():
        if not is_reparametrized(site):
            raise ValueError(
                f"the guide's site {name!r} ({type(site['fn']).__name__}) is not reparametrised, "
                "so this estimator would give it no gradient; use "
                'ImportanceWeightedELBO(k, gradient="vimco") with k > 1, or enumerate the site '
                "with TraceEnum_ELBO"
            )
