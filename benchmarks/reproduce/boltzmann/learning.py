# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The loss by which a machine learns through Pyro."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro.infer import Trace_ELBO
from torch import nn


class Observed(nn.Module):
    """A Pyro program that observes data as draws of a distribution, which learns from them."""

    def __init__(self, distribution: nn.Module) -> None:
        super().__init__()
        self.distribution: Any = distribution

    def forward(self, x: torch.Tensor) -> None:
        """Observe data ``(B, *event_shape)``."""
        with pyro.plate("data", len(x)):
            pyro.sample("x", self.distribution, obs=x)


def no_guide(x: torch.Tensor) -> None:
    """Nothing is latent."""


def boltzmann_learning(machine: nn.Module) -> nn.Module:
    """The loss of Pyro's own ELBO with an empty guide, minus the log-probability of the data."""
    return Trace_ELBO()(Observed(machine), no_guide)
