# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Energies whose densities are closed forms, or few enough states to enumerate."""

import pyro.distributions as dist
import torch
from torch import nn


class GaussianEnergy(nn.Module):
    """``x^T L x / 2 - b^T x`` with a symmetric ``L``: a normal of precision ``L``."""

    def __init__(self, precision: torch.Tensor, linear: torch.Tensor) -> None:
        super().__init__()
        self.precision, self.linear = nn.Parameter(precision), nn.Parameter(linear)

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        matrix = 0.5 * (self.precision + self.precision.mT)
        return 0.5 * ((x @ matrix) * x).sum(-1) - x @ self.linear


class PairEnergy(nn.Module):
    """Binary units with biases and couplings, each pair counted once."""

    support = dist.constraints.independent(dist.constraints.boolean, 1)

    def __init__(self, size: int, scale: float = 1.0) -> None:
        super().__init__()
        self.event_shape = torch.Size((size,))
        self.bias = nn.Parameter(scale * torch.randn(size))
        self.weight = nn.Parameter(scale * torch.randn(size, size))

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return -x @ self.bias - ((x @ self.weight.triu(1)) * x).sum(-1)

    def states(self) -> torch.Tensor:
        size = len(self.bias)
        bits = torch.arange(size, device=self.bias.device)
        index = torch.arange(2**size, device=self.bias.device)[:, None]
        return ((index >> bits) & 1).to(self.bias.dtype)

    def probs(self) -> torch.Tensor:
        return (-self.energy(self.states())).softmax(0)

    def log_partition(self) -> torch.Tensor:
        return (-self.energy(self.states())).logsumexp(0)


def random_precision(size: int) -> torch.Tensor:
    """A symmetric matrix with eigenvalues of 1/2 and more."""
    root = torch.randn(size, size)
    return root @ root.mT / size + 0.5 * torch.eye(size)


def gradients(loss: torch.Tensor, module: nn.Module) -> torch.Tensor:
    """The gradient of a loss by all parameters of a module, as one vector."""
    found = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
    return torch.cat([g.flatten() for g in found])


def is_mean(draws: torch.Tensor, expected: torch.Tensor, num_errors: float = 4.0) -> bool:
    """Say whether the mean of draws ``(N, ...)`` is what is expected, within standard errors."""
    error = draws.std(0) / len(draws) ** 0.5
    return bool(((draws.mean(0) - expected).abs() <= num_errors * error + 1e-12).all())


def minimise(loss: nn.Module, x: torch.Tensor, num_steps: int = 200) -> None:
    """Go to the minimum of a loss without noise."""
    optimizer = torch.optim.LBFGS(
        loss.parameters(),
        max_iter=num_steps,
        tolerance_grad=1e-10,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(x) / len(x)
        value.backward()
        return value

    optimizer.step(closure)
