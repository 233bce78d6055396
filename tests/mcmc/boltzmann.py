# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Two Boltzmann machines that are small enough to enumerate."""

from __future__ import annotations

import itertools

import pyro.distributions as dist
import torch
from torch.distributions import constraints

from pyro_deepgen.mcmc.state import Values


def all_states(num_units: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=num_units)))


class Machine:
    """Binary units that are all connected.

    .. math:: E(x) = -x^T W x / 2 - b^T x
    """

    support = constraints.independent(constraints.boolean, 1)

    def __init__(self, num_units: int, scale: float) -> None:
        weight = scale * torch.randn(num_units, num_units)
        self.weight = (weight + weight.T).tril(-1)
        self.bias = torch.randn(num_units)
        self.event_shape = torch.Size([num_units])

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return -((x @ self.weight) * x).sum(-1) - x @ self.bias

    def log_z(self) -> torch.Tensor:
        return (-self.energy(all_states(len(self.bias)))).logsumexp(0)

    def draw(self, num_draws: int) -> torch.Tensor:
        states = all_states(len(self.bias))
        weights = (-self.energy(states)).softmax(0)
        return states[torch.multinomial(weights, num_draws, replacement=True)]


class RestrictedMachine:
    """Visible and hidden units, of which the hidden ones are summed out of the energy.

    .. math:: E_beta(v) = -b^T v - sum_j softplus(beta (v^T W + c)_j)

    whose path begins with independent visible units; block Gibbs draws all hidden units given the
    visible ones, and these given the hidden ones.
    """

    support = constraints.independent(constraints.boolean, 1)

    def __init__(self, num_visible: int, num_hidden: int, scale: float) -> None:
        self.weight = scale * torch.randn(num_visible, num_hidden)
        self.visible_bias, self.hidden_bias = torch.randn(num_visible), torch.randn(num_hidden)
        self.beta = torch.ones(())
        self.event_shape = torch.Size([num_visible])
        self.blocks = {"x": (num_visible,)}

    def _field(self, x: torch.Tensor) -> torch.Tensor:
        beta = self.beta[..., None]
        return beta * (x @ self.weight + self.hidden_bias)

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return -x @ self.visible_bias - torch.nn.functional.softplus(self._field(x)).sum(-1)

    def bridge(self, beta: torch.Tensor) -> RestrictedMachine:
        bridged = RestrictedMachine.__new__(RestrictedMachine)
        bridged.__dict__.update(self.__dict__, beta=beta)
        return bridged

    def sample_block(self, block: str, values: Values) -> torch.Tensor:
        hidden = torch.bernoulli(torch.sigmoid(self._field(values["x"])))
        field = self.beta[..., None] * (hidden @ self.weight.T) + self.visible_bias
        return torch.bernoulli(torch.sigmoid(field))

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        assert self.beta == 0, "only the start of the path is normalised"
        return self._base().log_prob(x)

    def sample(self, shape: tuple[int, ...] = ()) -> torch.Tensor:
        assert self.beta == 0, "only the start of the path can be drawn"
        return self._base().sample(torch.Size(shape))

    def _base(self) -> dist.TorchDistribution:
        return dist.Bernoulli(logits=self.visible_bias).to_event(1)

    def log_z(self) -> torch.Tensor:
        return (-self.energy(all_states(len(self.visible_bias)))).logsumexp(0)

    def draw(self, num_draws: int) -> torch.Tensor:
        states = all_states(len(self.visible_bias))
        weights = (-self.energy(states)).softmax(0)
        return states[torch.multinomial(weights, num_draws, replacement=True)]
