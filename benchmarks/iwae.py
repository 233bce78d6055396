# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The importance-weighted autoencoder with two stochastic layers of Burda et al. (2016)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import RenyiELBO
from pyro.nn import PyroModule
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pyro_deepgen.infer import ImportanceWeightedELBO

from .contestants import Work, contestants
from .harness import Case

DATA, LATENTS = 784, (100, 50)
# Widths of the networks: z1 given x, z2 given z1, z1 given z2, x given z1.
UP_1, UP_2 = (DATA, 200, 200, 2 * LATENTS[0]), (LATENTS[0], 100, 100, 2 * LATENTS[1])
DOWN_2, DOWN_1 = (LATENTS[1], 100, 100, 2 * LATENTS[0]), (LATENTS[0], 200, 200, DATA)


def network(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with tanh between them."""
    layers: list[nn.Module] = []
    for size_in, size_out in pairwise(sizes):
        layers += [nn.Linear(size_in, size_out), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class Loss(nn.Module):
    """The negative importance-weighted bound, by hand."""

    def __init__(self, particles: int) -> None:
        super().__init__()
        self.particles = particles
        self.up_1, self.up_2 = network(UP_1), network(UP_2)
        self.down_2, self.down_1 = network(DOWN_2), network(DOWN_1)

    def forward(self, x: torch.Tensor, noise: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
        """Sum over the data ``(B, D)``; ``(K, B, d)`` draws of each layer."""
        shape = (self.particles, x.shape[0])
        eps_1, eps_2 = noise or [x.new_empty(*shape, d).normal_() for d in LATENTS]
        loc, log_scale = self.up_1(x).chunk(2, -1)
        z1 = loc + log_scale.exp() * eps_1
        log_q = -(0.5 * eps_1**2 + log_scale).sum(-1)
        loc, log_scale = self.up_2(z1).chunk(2, -1)
        z2 = loc + log_scale.exp() * eps_2
        log_q = log_q - (0.5 * eps_2**2 + log_scale).sum(-1)
        loc, log_scale = self.down_2(z2).chunk(2, -1)
        log_p = -(0.5 * ((z1 - loc) / log_scale.exp()) ** 2 + log_scale).sum(-1)
        log_p = log_p - 0.5 * (z2**2).sum(-1)
        logits = self.down_1(z1)
        nll = binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
        log_weight = log_p - nll.sum(-1) - log_q
        return -(log_weight.logsumexp(0) - math.log(self.particles)).sum()


def normal(parameters: torch.Tensor) -> Any:
    """A diagonal normal from means and log standard deviations."""
    loc, log_scale = parameters.chunk(2, -1)
    return dist.Normal(loc, log_scale.exp()).to_event(1)


class Model(PyroModule):
    """The model, in Pyro."""

    def __init__(self) -> None:
        super().__init__()
        self.down_2, self.down_1 = network(DOWN_2), network(DOWN_1)

    def forward(self, x: torch.Tensor) -> None:
        """Latents from the top down, then data."""
        with pyro.plate("data", x.shape[0]):
            zeros = x.new_zeros(x.shape[0], LATENTS[1])
            z2 = pyro.sample("z2", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            z1 = pyro.sample("z1", normal(self.down_2(z2)))
            pyro.sample("x", dist.Bernoulli(logits=self.down_1(z1)).to_event(1), obs=x)


class Guide(PyroModule):
    """The guide, in Pyro."""

    def __init__(self) -> None:
        super().__init__()
        self.up_1, self.up_2 = network(UP_1), network(UP_2)

    def forward(self, x: torch.Tensor) -> None:
        """Latents from the data upwards."""
        with pyro.plate("data", x.shape[0]):
            z1 = pyro.sample("z1", normal(self.up_1(x)))
            pyro.sample("z2", normal(self.up_2(z1)))


def in_numpyro(particles: int) -> tuple[Any, Any, Any, list[str]]:
    """Model, guide, ELBO and the names of the parameters."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as npdist
    from numpyro.infer import RenyiELBO

    from .with_numpyro import dense

    def diagonal(output: Any) -> Any:
        loc, log_scale = jnp.split(output, 2, -1)
        return npdist.Normal(loc, jnp.exp(log_scale)).to_event(1)

    def model(x: Any) -> None:
        with numpyro.plate("data", x.shape[0]):
            top = npdist.Normal(jnp.zeros((x.shape[0], LATENTS[1])), 1.0).to_event(1)
            z2 = numpyro.sample("z2", top)
            z1 = numpyro.sample("z1", diagonal(dense("down_2", z2, DOWN_2, jnp.tanh)))
            logits = dense("down_1", z1, DOWN_1, jnp.tanh)
            numpyro.sample("x", npdist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x: Any) -> None:
        with numpyro.plate("data", x.shape[0]):
            z1 = numpyro.sample("z1", diagonal(dense("up_1", x, UP_1, jnp.tanh)))
            numpyro.sample("z2", diagonal(dense("up_2", z1, UP_2, jnp.tanh)))

    layers = [f"{net}.{i}" for net in ("up_1", "up_2", "down_2", "down_1") for i in range(3)]
    names = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    return model, guide, RenyiELBO(alpha=0.0, num_particles=particles), names


def case(name: str, *, particles: int = 50, batch: int = 20, steps: int) -> Case:
    """A case with so many particles."""
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(batch, DATA, generator=generator) < 0.3).float()
    work = Work(
        data=[x],
        noise_shapes=tuple((particles, batch, d) for d in LATENTS),
        by_hand=lambda: Loss(particles),
        in_pyro=lambda: (Model(), Guide()),
        in_numpyro=lambda: in_numpyro(particles),
        our_elbo=lambda: ImportanceWeightedELBO(particles, max_plate_nesting=1),
        pyro_elbo=lambda: RenyiELBO(
            alpha=0.0, num_particles=particles, vectorize_particles=True, max_plate_nesting=1
        ),
    )
    title = f"IWAE with 2 stochastic layers, {particles} particles, batch {batch}"
    return Case(name, title, steps, work.noise_shapes, contestants(work))
