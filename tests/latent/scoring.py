# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Scores of a pair at given latents, for the tests of this folder."""

from typing import Any

import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample

Latents = dict[str, torch.Tensor]


def latents_of(pair: Any, *args: Any) -> Latents:
    """Draw every latent from the guide."""
    trace = poutine.trace(pair.guide).get_trace(*args)
    return {
        name: site["value"].detach()
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    }


def log_prob(program: Any, latents: Latents, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Score a program with given latents: a sum over sites and data, with plate scales."""
    conditioned = poutine.condition(program, data=latents)
    total = poutine.trace(conditioned).get_trace(*args, **kwargs).log_prob_sum()
    assert isinstance(total, torch.Tensor)
    return total


def log_weight(pair: Any, latents: Latents, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Return log p(x, z) - log q(z | x)."""
    weight = log_prob(pair.model, latents, *args, **kwargs)
    return weight - log_prob(pair.guide, latents, *args, **kwargs)


def pick(tensors: Any, index: Any) -> Any:
    """Index every tensor of a tuple or dictionary."""
    if isinstance(tensors, dict):
        return {name: value[index] for name, value in tensors.items()}
    return tuple(value[index] for value in tensors)
