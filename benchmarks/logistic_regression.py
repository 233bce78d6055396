# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Bayesian logistic regression with an automatic diagonal normal guide, on all data at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from .contestants import Work, contestants
from .harness import Case

INITIAL_SCALE = 0.1


class Loss(nn.Module):
    """The negative evidence lower bound, by hand; the intercept is the last latent variable."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(0.1 * torch.randn(dim + 1))
        raw = math.log(math.expm1(INITIAL_SCALE))
        self.raw_scale = nn.Parameter(torch.full((dim + 1,), raw))

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, noise: Sequence[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Sum over the data ``(N, D)`` and ``(N,)``."""
        eps = torch.randn_like(self.loc) if noise is None else noise[0]
        scale = softplus(self.raw_scale)
        w = self.loc + scale * eps
        nll = binary_cross_entropy_with_logits(x @ w[:-1] + w[-1], y, reduction="sum")
        return nll + 0.5 * (w**2 - eps**2).sum() - scale.log().sum()


def in_pyro() -> tuple[Any, Any]:
    """Model and guide."""

    def model(x: torch.Tensor, y: torch.Tensor) -> None:
        zeros = x.new_zeros(x.shape[1])
        w = pyro.sample("w", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
        b = pyro.sample("b", dist.Normal(x.new_zeros(()), x.new_ones(())))
        with pyro.plate("data", x.shape[0]):
            pyro.sample("y", dist.Bernoulli(logits=x @ w + b), obs=y)

    return model, AutoDiagonalNormal(model, init_scale=INITIAL_SCALE)


def in_numpyro() -> tuple[Any, Any, Any, list[str]]:
    """Model, guide, ELBO and the names of the parameters."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as npdist
    from numpyro.infer import Trace_ELBO
    from numpyro.infer.autoguide import AutoDiagonalNormal

    def model(x: Any, y: Any) -> None:
        w = numpyro.sample("w", npdist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
        b = numpyro.sample("b", npdist.Normal(0.0, 1.0))
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", npdist.Bernoulli(logits=x @ w + b), obs=y)

    guide = AutoDiagonalNormal(model, init_scale=INITIAL_SCALE)
    return model, guide, Trace_ELBO(), ["auto_loc", "auto_scale"]


def case(name: str, *, size: int = 10_000, dim: int = 50, steps: int) -> Case:
    """A case with ``size`` data of ``dim`` dimensions."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, dim, generator=generator)
    w = torch.randn(dim, generator=generator)
    y = (torch.rand(size, generator=generator) < torch.sigmoid(x @ w)).float()
    work = Work(
        data=[x, y],
        noise_shapes=((dim + 1,),),
        by_hand=lambda: Loss(dim),
        in_pyro=in_pyro,
        in_numpyro=in_numpyro,
        our_elbo=Trace_ELBO,
        pyro_elbo=Trace_ELBO,
    )
    title = f"Logistic regression, {size:,} x {dim}, AutoDiagonalNormal"
    return Case(name, title, steps, work.noise_shapes, contestants(work))
