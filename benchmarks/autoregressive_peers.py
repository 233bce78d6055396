# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""MADEs of binary variables on the masked networks of Pyro and zuko.

Neither has the distribution, so it is written here around their networks: a Bernoulli variable a
logit, and draws by a pass of the network for each variable, as their flows draw.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from pyro_deepgen.autoregressive import MADE, AutoregressiveDistribution

from .flows_contestants import Flow, Parameter
from .harness import NotHereError


def pyro_made(ours: AutoregressiveDistribution) -> Flow:
    """On ``pyro.nn.AutoRegressiveNN``."""
    from pyro.nn import AutoRegressiveNN

    dims, hidden = _sizes(ours)
    network = AutoRegressiveNN(dims, hidden, [1], permutation=torch.arange(dims))
    return _made(network.to(_device(ours)), dims)


def zuko_made(ours: AutoregressiveDistribution) -> Flow:
    """On ``zuko.nn.MaskedMLP``."""
    try:
        from zuko.nn import MaskedMLP
    except ImportError as error:
        raise NotHereError("zuko is not installed") from error
    dims, hidden = _sizes(ours)
    # Row i: the variables that output i sees.
    before = torch.ones(dims, dims, dtype=torch.bool).tril(-1)
    return _made(MaskedMLP(before, hidden).to(_device(ours)), dims)


def _sizes(ours: AutoregressiveDistribution) -> tuple[int, list[int]]:
    assert isinstance(ours, MADE)
    degrees = ours.networks[0].degrees()  # type: ignore[operator,union-attr]
    return ours.event_shape[0], [len(layer) for layer in degrees[1:-1]]


def _device(ours: AutoregressiveDistribution) -> torch.device:
    return next(ours.parameters()).device


def _made(network: Any, dims: int) -> Flow:
    """A distribution of binary variables around a network from values to logits."""

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        return -binary_cross_entropy_with_logits(network(x), x, reduction="none").sum(-1)

    def sample(size: int) -> torch.Tensor:
        x = torch.zeros(size, dims, device=next(network.parameters()).device)
        for d in range(dims):
            x[:, d] = torch.bernoulli(network(x)[:, d].sigmoid())
        return x

    def draw(size: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = sample(size)
        return x, log_prob(x)

    parameters = [Parameter(p) for p in network.parameters()]
    return Flow(parameters, log_prob, sample, draw, compared="size")
