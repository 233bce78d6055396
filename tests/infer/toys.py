# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Small models whose evidence, posterior and bounds are known, and ways to compare with them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import nn

from pyro_deepgen.infer import ImportanceWeightedELBO, MeanFieldELBO, Objective

K = 3
"""Number of particles of :func:`agree`."""


def deviation(samples: torch.Tensor, exact: torch.Tensor | float) -> float:
    """Distance of the samples' mean from the exact value, in standard errors."""
    error = samples.std(0) / math.sqrt(samples.shape[0])
    return float(((samples.mean(0) - exact).abs() / error).max())


def losses(objective: Any, model: Any, guide: Any, *args: Any, num: int) -> torch.Tensor:
    """``num`` independent values of an objective."""
    return torch.stack(
        [torch.as_tensor(objective.loss(model, guide, *args)) for _ in range(num)]
    ).double()


class LinearGaussian(nn.Module):
    """The model ``z ~ N(0, I)``, ``x | z ~ N(W z + b, s^2 I)``, of which all is known."""

    def __init__(self, data_dim: int = 4, latent_dim: int = 2, scale: float = 0.7) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(data_dim, latent_dim))
        self.bias = nn.Parameter(torch.randn(data_dim))
        self.scale = scale

    def forward(self, x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            zeros = x.new_zeros(self.weight.shape[1])
            z = pyro.sample("z", dist.Normal(zeros, 1.0).to_event(1))
            mean = z @ self.weight.T + self.bias
            pyro.sample("x", dist.Normal(mean, self.scale).to_event(1), obs=x)

    @torch.no_grad()
    def evidence(self, x: torch.Tensor) -> torch.Tensor:
        """``log p(x)`` for each datum."""
        noise = self.scale**2 * torch.eye(len(self.bias))
        return dist.MultivariateNormal(self.bias, self.weight @ self.weight.T + noise).log_prob(x)

    @torch.no_grad()
    def posterior(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``A``, ``c`` and the covariance of ``p(z | x) = N(A x + c, S)``."""
        w = self.weight
        covariance = torch.linalg.inv(torch.eye(w.shape[1]) + w.T @ w / self.scale**2)
        a = covariance @ w.T / self.scale**2
        return a, -a @ self.bias, covariance

    @torch.no_grad()
    def elbo(self, x: torch.Tensor, mean: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
        """The evidence lower bound of each datum under ``q(z | x) = N(mean, covariance)``."""
        w, dim = self.weight, self.weight.shape[1]
        fit = dist.Normal(mean @ w.T + self.bias, self.scale).to_event(1).log_prob(x)
        spread = torch.trace(w @ covariance @ w.T) / (2 * self.scale**2)
        divergence = 0.5 * (
            torch.trace(covariance) + mean.square().sum(-1) - dim - torch.logdet(covariance)
        )
        return fit - spread - divergence


class GaussianGuide(nn.Module):
    """The guide ``q(z | x) = N(A x + c, L L^T)``, full or diagonal."""

    def __init__(
        self, a: torch.Tensor, c: torch.Tensor, covariance: torch.Tensor, full: bool = True
    ) -> None:
        super().__init__()
        self.a, self.c = nn.Parameter(a.clone()), nn.Parameter(c.clone())
        self.tril = nn.Parameter(torch.linalg.cholesky(covariance))
        self.full = full

    @classmethod
    def exact(cls, model: LinearGaussian) -> "GaussianGuide":
        return cls(*model.posterior())

    @classmethod
    def off(cls, model: LinearGaussian, full: bool = True, by: float = 0.3) -> "GaussianGuide":
        """A guide beside the posterior, and wider."""
        a, c, covariance = model.posterior()
        spread = (1 + by) * (covariance if full else torch.diag(covariance.diagonal()))
        return cls(a + by / 4, c - by, spread, full)

    def moments(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            return x @ self.a.T + self.c, self.tril @ self.tril.T

    def forward(self, x: torch.Tensor) -> None:
        mean = x @ self.a.T + self.c
        with pyro.plate("data", len(x), dim=-1):
            if self.full:
                q: Any = dist.MultivariateNormal(mean, scale_tril=self.tril)
            else:
                q = dist.Normal(mean, self.tril.diagonal()).to_event(1)
            pyro.sample("z", q)


class FixedDraws(Messenger):
    """Latent sites take given values, or ``location + scale * noise`` of given noise."""

    def __init__(
        self,
        values: dict[str, torch.Tensor] | None = None,
        noise: Callable[[str], torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.values, self.noise = values or {}, noise

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"] or type(msg["fn"]).__name__ == "_Subsample":
            return
        if self.noise is not None:
            base = getattr(msg["fn"], "base_dist", msg["fn"])
            msg["value"] = base.loc + base.scale * self.noise(msg["name"])
        else:
            msg["value"] = self.values[msg["name"]]
        # A plate does not expand the distribution of a value that is there already.
        event_dim = msg["fn"].event_dim
        msg["fn"] = msg["fn"].expand(msg["value"].shape[: msg["value"].dim() - event_dim])
        msg["done"] = True


def per_copy_gradients(
    objective: Objective,
    model: Callable[[dict[str, torch.Tensor]], None],
    guide: Callable[[dict[str, torch.Tensor]], None],
    point: dict[str, float],
    num: int,
) -> dict[str, torch.Tensor]:
    """``num`` independent estimates of the bound's gradient at a point, one for each datum.

    Model and guide get ``num`` copies of the parameters, one for each datum of their plate, so that
    one backward pass gives as many independent estimates.
    """
    copies = {n: torch.full((num,), v, requires_grad=True) for n, v in point.items()}
    objective.differentiable_loss(model, guide, copies).backward()
    return {n: -c.grad for n, c in copies.items() if c.grad is not None}


def quadrature(
    bound: Callable[[dict[str, torch.Tensor], torch.Tensor], torch.Tensor],
    point: dict[str, float],
    num_noises: int,
    order: int,
) -> dict[str, float]:
    """Gradient of ``E bound(parameters, noise)`` over standard normal noise, by quadrature.

    ``bound`` gets the noise as ``(num_noises, order ** num_noises)``.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    grid = torch.cartesian_prod(*[torch.tensor(nodes)] * num_noises).reshape(-1, num_noises)
    mass = torch.cartesian_prod(*[torch.tensor(weights)] * num_noises).reshape(-1, num_noises)
    probability = (mass / math.sqrt(2 * math.pi)).prod(-1)
    params = {n: torch.tensor(v, requires_grad=True) for n, v in point.items()}
    value = (bound(params, grid.T) * probability).sum()
    names = list(params)
    grads = torch.autograd.grad(value, [params[n] for n in names], allow_unused=True)
    return {n: float(g) for n, g in zip(names, grads, strict=True) if g is not None}


def normal(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> torch.Tensor:
    return dist.Normal(torch.as_tensor(loc), torch.as_tensor(scale)).log_prob(x)


def iwae(log_weight: torch.Tensor) -> torch.Tensor:
    return log_weight.logsumexp(0) - math.log(len(log_weight))


def agree(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    draws: dict[str, torch.Tensor],
    log_weight: torch.Tensor,
    nesting: int,
    scale: float = 1.0,
    **options: Any,
) -> None:
    """All estimators give the bound of these log-weights for these draws."""

    def fixed() -> None:
        with FixedDraws(draws):
            guide()

    bound = iwae(log_weight)
    for gradient in ("iwae", "stl", "dreg", "vimco"):
        objective = ImportanceWeightedELBO(K, gradient, max_plate_nesting=nesting, **options)
        loss = objective.differentiable_loss(model, fixed)
        assert torch.allclose(loss, -scale * bound.sum(), rtol=0, atol=1e-9), gradient
        assert torch.allclose(objective.log_weights(model, fixed), log_weight, atol=1e-9)
    mean_field = MeanFieldELBO(K, "stl", max_plate_nesting=nesting)
    assert torch.allclose(
        mean_field.differentiable_loss(model, fixed), -scale * log_weight.mean(0).sum()
    )
