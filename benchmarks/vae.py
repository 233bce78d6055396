# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A Bernoulli VAE with one hidden layer a network, trained by the evidence lower bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from .contestants import Work, contestants
from .harness import Case


def network(size_in: int, hidden: int, size_out: int) -> nn.Sequential:
    """A hidden layer between two sizes."""
    return nn.Sequential(nn.Linear(size_in, hidden), nn.ReLU(), nn.Linear(hidden, size_out))


class Loss(nn.Module):
    """The negative bound, by hand."""

    def __init__(self, data_dim: int, hidden: int, latent_dim: int) -> None:
        super().__init__()
        self.encoder = network(data_dim, hidden, 2 * latent_dim)
        self.decoder = network(latent_dim, hidden, data_dim)

    def forward(self, x: torch.Tensor, noise: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
        """Sum over the data ``(B, D)``; one draw ``(B, d)`` of the latents."""
        loc, log_scale = self.encoder(x).chunk(2, -1)
        eps = torch.randn_like(loc) if noise is None else noise[0]
        z = loc + log_scale.exp() * eps
        nll = binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        return nll + 0.5 * (z**2 - eps**2).sum() - log_scale.sum()


class Model(PyroModule):
    """The model, in Pyro."""

    def __init__(self, data_dim: int, hidden: int, latent_dim: int) -> None:
        super().__init__()
        self.decoder = network(latent_dim, hidden, data_dim)
        self.latent_dim = latent_dim

    def forward(self, x: torch.Tensor) -> None:
        """Latents and data."""
        with pyro.plate("data", x.shape[0]):
            zeros = x.new_zeros(x.shape[0], self.latent_dim)
            z = pyro.sample("z", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)


class Guide(PyroModule):
    """The guide, in Pyro."""

    def __init__(self, data_dim: int, hidden: int, latent_dim: int) -> None:
        super().__init__()
        self.encoder = network(data_dim, hidden, 2 * latent_dim)

    def forward(self, x: torch.Tensor) -> None:
        """Latents given the data."""
        with pyro.plate("data", x.shape[0]):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def in_numpyro(data_dim: int, hidden: int, latent_dim: int) -> tuple[Any, Any, Any, list[str]]:
    """Model, guide, ELBO and the names of the parameters."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as npdist
    from numpyro.infer import Trace_ELBO

    from .with_numpyro import dense

    def model(x: Any) -> None:
        with numpyro.plate("data", x.shape[0]):
            normal = npdist.Normal(jnp.zeros((x.shape[0], latent_dim)), 1.0)
            z = numpyro.sample("z", normal.to_event(1))
            logits = dense("decoder", z, (latent_dim, hidden, data_dim), jax.nn.relu)
            numpyro.sample("x", npdist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x: Any) -> None:
        with numpyro.plate("data", x.shape[0]):
            output = dense("encoder", x, (data_dim, hidden, 2 * latent_dim), jax.nn.relu)
            loc, log_scale = jnp.split(output, 2, -1)
            numpyro.sample("z", npdist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    layers = [f"{net}.{i}" for net in ("encoder", "decoder") for i in range(2)]
    names = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    return model, guide, Trace_ELBO(), names


def case(
    name: str, sizes: tuple[int, int, int], *, batch: int = 128, steps: int, device: str = "cpu"
) -> Case:
    """A case with data, hidden and latent dimensions ``sizes``."""
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(batch, sizes[0], generator=generator) < 0.3).float()
    work = Work(
        data=[x],
        noise_shapes=((batch, sizes[2]),),
        by_hand=lambda: Loss(*sizes),
        in_pyro=lambda: (Model(*sizes), Guide(*sizes)),
        in_numpyro=lambda: in_numpyro(*sizes),
        our_elbo=Trace_ELBO,
        pyro_elbo=Trace_ELBO,
    )
    title = f"VAE {'-'.join(map(str, sizes))}, batch {batch}"
    title += " on a GPU" if device == "cuda" else ""
    return Case(name, title, steps, work.noise_shapes, contestants(work, device))
