# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Models of many shapes, whose potentials Pyro knows."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.reparam import LocScaleReparam
from pyro.nn import PyroModule, PyroSample
from torch import nn


def data(size: int = 6) -> torch.Tensor:
    return torch.linspace(-1.0, 2.5, size)


def schools(y: torch.Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, 1.5), obs=y)


def shapes(y: torch.Tensor) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
    chol = pyro.sample("chol", dist.LKJCholesky(3, 1.5))
    low = pyro.sample("low", dist.Uniform(torch.tensor([-1.0, 0.0]), 2.0).to_event(1))
    with pyro.plate("columns", 2, dim=-1), pyro.plate("rows", 3, dim=-2):
        cell = pyro.sample("cell", dist.Beta(2.0, 3.0))
        pair = pyro.sample("pair", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0).expand([2]).to_event(1))
    pyro.factor("bonus", -(weights * cell.mean()).square().sum() - pair.square().sum())
    mean = chol[-1].sum() + low.sum()
    with pyro.plate("data", len(y)), poutine.scale(scale=0.5):
        pyro.sample("y", dist.StudentT(4.0, mean, scale.sum()), obs=y)


def masked(y: torch.Tensor) -> None:
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(y)), poutine.mask(mask=y > 0):
        pyro.sample("y", dist.Exponential(rate), obs=y.abs())


def reparametrised(y: torch.Tensor) -> None:
    poutine.reparam(schools, config={"theta": LocScaleReparam(0.0)})(y)


def with_param(y: torch.Tensor) -> None:
    sd = pyro.param("sd", torch.tensor(0.7), constraint=dist.constraints.positive)
    loc = pyro.sample("loc", dist.Laplace(0.0, 2.0))
    pyro.sample("y", dist.Normal(loc, sd).expand([len(y)]).to_event(1), obs=y)


class Regression(PyroModule):  # type: ignore[misc]
    """A linear model whose weights are latent, and whose offset is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = PyroModule[nn.Linear](1, 2)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([2, 1]).to_event(2))
        self.out = nn.Linear(2, 1)
        self.register_buffer("offset", torch.tensor(0.3))

    def forward(self, y: torch.Tensor) -> None:
        mean = self.out(self.linear(y[:, None]).tanh()).squeeze(-1) + self.offset
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def mixture(y: torch.Tensor) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("components", 3):
        loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", dist.Normal(loc[z], 0.8), obs=y)


def chain(y: torch.Tensor) -> None:
    with pyro.plate("states", 3):
        rows = pyro.sample("rows", dist.Dirichlet(torch.ones(3)))
        loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
    z: Any = torch.tensor(0)
    for t in pyro.markov(range(len(y))):
        z = pyro.sample(f"z_{t}", dist.Categorical(rows[z]))
        pyro.sample(f"y_{t}", dist.Normal(loc[z], 1.0), obs=y[t])


def chain_of_order_two(y: torch.Tensor) -> None:
    p = pyro.sample("p", dist.Beta(torch.ones(2, 2), 2.0).to_event(2))
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    before: Any = torch.tensor(0.0)
    last: Any = torch.tensor(1.0)
    for t in pyro.markov(range(len(y)), history=2):
        rows = p[before.long(), last.long()]
        before, last = last, pyro.sample(f"z_{t}", dist.Bernoulli(rows))
        pyro.sample(f"y_{t}", dist.Normal(loc[last.long()], 1.0), obs=y[t])


def nested(y: torch.Tensor) -> None:
    p = pyro.sample("p", dist.Beta(1.0, 1.0))
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
    with pyro.plate("groups", 2, dim=-2):
        group = pyro.sample("group", dist.Bernoulli(p))
        with pyro.plate("data", len(y), dim=-1):
            kind = pyro.sample("kind", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
            mean = loc[group.long(), kind]
            pyro.sample("y", dist.Normal(mean, 1.0), obs=torch.stack([y, -y]))


def several(y: torch.Tensor) -> None:
    q = pyro.sample("q", dist.Beta(2.0, 2.0))
    a = pyro.sample("a", dist.Bernoulli(q))
    b = pyro.sample("b", dist.Binomial(3, 0.5 * q + 0.2 * a))
    with pyro.plate("data", len(y)):
        hot = pyro.sample("hot", dist.OneHotCategorical(torch.tensor([0.5, 0.2, 0.3])))
        mean = (hot * torch.tensor([-1.0, 0.0, 1.0])).sum(-1) + a + b * q
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def impossible_states(y: torch.Tensor) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    logits = torch.stack([slope, 2 * slope, torch.tensor(-torch.inf)])
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Categorical(logits=logits - logits.logsumexp(-1)))
        pyro.sample("y", dist.Normal(slope * z, 1.0), obs=y)


MODELS: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        schools,
        shapes,
        masked,
        reparametrised,
        with_param,
        mixture,
        chain,
        chain_of_order_two,
        nested,
        several,
        impossible_states,
    )
}
