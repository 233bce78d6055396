# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Missing data drawn from their conditional distribution under a model/guide pair."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine import Trace
from torch import nn


def distribution_at(trace: Trace, name: str) -> TorchDistributionMixin:
    """The distribution of a sample site.

    Args:
        trace: trace of a model or guide.
        name: the site's name.
    """
    fn = trace.nodes[name]["fn"]
    assert isinstance(fn, TorchDistributionMixin)
    return fn


def _latent_sites(trace: Trace) -> list[str]:
    return [name for name in trace.stochastic_nodes if not _is_subsample(trace, name)]


def _is_subsample(trace: Trace, name: str) -> bool:
    return not isinstance(trace.nodes[name]["fn"], TorchDistributionMixin)


def _log_density(trace: Trace) -> torch.Tensor:
    """Sum of the sites' log-probabilities for each datum, without plate scales."""
    total = torch.zeros(())
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not _is_subsample(trace, name):
            total = total + distribution_at(trace, name).log_prob(site["value"])
    return total


def _check_independent(likelihood: TorchDistributionMixin) -> None:
    base = likelihood
    while isinstance(base, torch.distributions.Independent):
        base = base.base_dist
    if base.event_dim:
        raise ValueError(
            "imputation draws the missing variables from the likelihood one by one, so it needs a "
            f"likelihood that is independent over variables, got {type(base).__name__} with "
            f"event_shape {tuple(base.event_shape)}"
        )


@torch.no_grad()
def metropolis_within_gibbs(
    model: nn.Module,
    guide: nn.Module,
    x: torch.Tensor,
    mask: torch.Tensor,
    context: Sequence[torch.Tensor],
    num_steps: int,
) -> torch.Tensor:
    """Run the chain that :meth:`Pair.impute <pyro_deepgen.latent.Pair.impute>` describes.

    Args:
        model: module whose site ``"x"`` is the data; every site lies inside the data plates.
        guide: module that proposes the latents.
        x: data of shape ``(*batch, *data_shape)``.
        mask: booleans that broadcast to the shape of ``x``, true where it is observed.
        context: what else model and guide take.
        num_steps: length of the chain.

    Raises:
        ValueError: as for ``Pair.impute``.
    """
    if num_steps < 1:
        raise ValueError(f"expected num_steps of 1 or more, got {num_steps}")
    if mask.dtype != torch.bool:
        raise ValueError(
            f"expected a boolean mask, true where x is observed, got {mask.dtype}; "
            "make one with mask.bool()"
        )
    try:
        mask = mask.expand(x.shape)
    except RuntimeError as error:
        raise ValueError(
            f"expected a mask that broadcasts to the data's shape {tuple(x.shape)}, got "
            f"{tuple(mask.shape)}"
        ) from error
    # The encoder sees zeros once; then the missing values are draws of the model.
    state = torch.where(mask, x, torch.zeros_like(x))
    with poutine.block():
        current = poutine.trace(guide).get_trace(state, *context)
        for _ in range(num_steps + 1):
            likelihood = distribution_at(_run_model(model, current, None, context), "x")
            _check_independent(likelihood)
            state = torch.where(mask, x, likelihood.sample().to(x.dtype))
            proposed = poutine.trace(guide).get_trace(state, *context)
            kept = poutine.trace(poutine.replay(guide, current)).get_trace(state, *context)
            weight_new = _log_density(_run_model(model, proposed, state, context))
            weight_old = _log_density(_run_model(model, kept, state, context))
            log_ratio = weight_new - _log_density(proposed) - weight_old + _log_density(kept)
            accept = torch.rand_like(log_ratio).log() < log_ratio
            for name in _latent_sites(kept):
                old, new = kept.nodes[name]["value"], proposed.nodes[name]["value"]
                assert old is not None and new is not None
                event_dim = distribution_at(kept, name).event_dim
                choose = accept.reshape(accept.shape + (1,) * event_dim)
                kept.nodes[name]["value"] = torch.where(choose, new, old)
            current = kept
    return state


def _run_model(
    model: nn.Module, latents: Trace, x: torch.Tensor | None, context: Sequence[torch.Tensor]
) -> Trace:
    return poutine.trace(poutine.replay(model, latents)).get_trace(x, *context)
