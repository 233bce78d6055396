# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Models and guides in Pyro's many styles, with arguments for them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import (
    AutoNormal,
    AutoNormalizingFlow,
)
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn


def binary(*shape: int) -> torch.Tensor:
    return torch.bernoulli(torch.full(shape, 0.4))


class LegacyVAE:
    """The style of Pyro's first tutorials: bound methods that register modules by name."""

    def __init__(self) -> None:
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(2, 4)

    def model(self, x: torch.Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: torch.Tensor) -> None:
        pyro.module("encoder", self.encoder)
        loc, scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


def legacy() -> Any:
    made = LegacyVAE()
    return made.model, made.guide, Trace_ELBO(), (binary(5, 4),)


def with_params() -> Any:
    def model(x: torch.Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(0.7), constraint=constraints.positive)
        w = pyro.sample("w", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal((w * torch.arange(3.0)).sum(), scale), obs=x)

    def guide(x: torch.Tensor) -> None:
        w = pyro.param("alpha", torch.ones(3) * 2, constraint=constraints.greater_than(0.1))
        pyro.sample("w", dist.Dirichlet(w))

    return model, guide, Trace_ELBO(), (torch.randn(7),)


class Regression(PyroModule):
    """A regression whose prior's scale is learned; rows may be subsampled."""

    def __init__(self, dim: int, subsample_size: int | None = None) -> None:
        super().__init__()
        self.dim, self.subsample_size = dim, subsample_size
        self.prior_scale = PyroParam(torch.tensor(1.5), constraints.positive)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> None:
        w = pyro.sample("w", dist.Normal(x.new_zeros(self.dim), self.prior_scale).to_event(1))
        b = pyro.sample("b", dist.Normal(x.new_zeros(()), 1.0))
        s = pyro.sample("s", dist.Gamma(2.0, 2.0 * x.new_ones(())))
        with pyro.plate("data", len(x), self.subsample_size) as rows:
            pyro.sample("y", dist.Normal(x[rows] @ w + b, s), obs=y[rows])


def flow_guide(model: Any) -> Any:
    return AutoNormalizingFlow(model, partial(dist.transforms.iterated, 2, affine))


def affine(dim: int) -> Any:
    return dist.transforms.affine_autoregressive(dim, hidden_dims=[6])


def regression(guide: Callable[[Any], Any], subsample_size: int | None = None) -> Any:
    x = torch.randn(12, 3)
    model = Regression(3, subsample_size)
    return model, guide(model), Trace_ELBO(), (x, x @ torch.ones(3))


class GuideModule(PyroModule):
    """A guide by hand with constrained parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(3))
        self.scale = PyroParam(torch.full((3,), 0.3), constraints.positive)
        self.rate = PyroParam(torch.tensor([2.0, 2.0]), constraints.positive)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> None:
        pyro.sample("w", dist.Normal(self.loc, self.scale).to_event(1))
        pyro.sample("b", dist.Normal(self.loc[0], self.scale[0]))
        pyro.sample("s", dist.Gamma(self.rate[0], self.rate[1]))


class BayesianNet(PyroModule):
    """A network whose weights are sample sites."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = PyroModule[nn.Linear](2, 4), PyroModule[nn.Linear](4, 1)
        self.one.weight = PyroSample(dist.Normal(0.0, 1.0).expand([4, 2]).to_event(2))
        self.two.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 4]).to_event(2))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> None:
        mean = self.two(torch.tanh(self.one(x))).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, 0.5), obs=y)


def bayesian_net() -> Any:
    model = BayesianNet()
    return model, AutoNormal(model), Trace_ELBO(), (torch.randn(6, 2), torch.randn(6))


class NestedPlates(PyroModule):
    """Groups within groups, with mask and scale."""

    def forward(self, y: torch.Tensor, mask: torch.Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 1.0))
        columns = pyro.plate("columns", y.shape[1], dim=-1)
        with pyro.plate("rows", y.shape[0], dim=-2):
            row = pyro.sample("row", dist.Normal(mean, 1.0))
            with columns, poutine.mask(mask=mask), poutine.scale(scale=0.3):
                cell = pyro.sample("cell", dist.Normal(row, 1.0))
                pyro.sample("y", dist.Normal(cell, 0.5), obs=y)


def nested_plates(**options: Any) -> Any:
    model = NestedPlates()
    elbo = Trace_ELBO(max_plate_nesting=2, **options)
    return model, AutoNormal(model), elbo, (torch.randn(3, 4), torch.rand(3, 4) < 0.6)


class PartlyObserved(PyroModule):
    """Some data are missing, and are latent variables then."""

    def forward(self, y: torch.Tensor, seen: torch.Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, 0.5), obs=y, obs_mask=seen)


def partly_observed() -> Any:
    model = PartlyObserved()
    return model, AutoNormal(model), Trace_ELBO(), (torch.randn(6), torch.rand(6) < 0.5)


class Markov(PyroModule):
    """A deep Markov model with sequences of unequal length, in Pyro's way: a mask a time step."""

    def __init__(self) -> None:
        super().__init__()
        self.transition, self.emission = nn.Linear(2, 4), nn.Linear(2, 3)
        self.rnn, self.combine = nn.GRU(3, 5, batch_first=True), nn.Linear(7, 4)
        self.first = nn.Parameter(torch.randn(2))

    def model(self, x: torch.Tensor, lengths: torch.Tensor) -> None:
        pyro.module("markov", self)
        z = self.first.expand(len(x), 2)
        with pyro.plate("sequences", len(x)):
            for t in pyro.markov(range(x.shape[1])):
                with poutine.mask(mask=t < lengths):
                    loc, scale = self.transition(z).chunk(2, -1)
                    z = pyro.sample(f"z_{t}", dist.Normal(loc, scale.exp()).to_event(1))
                    emission = dist.Bernoulli(logits=self.emission(z)).to_event(1)
                    pyro.sample(f"x_{t}", emission, obs=x[:, t])

    def guide(self, x: torch.Tensor, lengths: torch.Tensor) -> None:
        pyro.module("markov", self)
        states, _ = self.rnn(x.flip(1))
        z = x.new_zeros(len(x), 2)
        with pyro.plate("sequences", len(x)):
            for t in pyro.markov(range(x.shape[1])):
                with poutine.mask(mask=t < lengths):
                    state = states[:, x.shape[1] - 1 - t]
                    loc, scale = self.combine(torch.cat([z, state], -1)).chunk(2, -1)
                    z = pyro.sample(f"z_{t}", dist.Normal(loc, scale.exp()).to_event(1))


def markov() -> Any:
    made = Markov()
    return made.model, made.guide, Trace_ELBO(), (binary(4, 3, 3), torch.tensor([3, 1, 2, 3]))


def mixture() -> Any:
    @config_enumerate
    def model(x: torch.Tensor) -> None:
        weights = pyro.param("weights", torch.tensor([0.3, 0.7]), constraint=constraints.simplex)
        locs = pyro.param("locs", torch.tensor([-1.0, 1.5]))
        scale = pyro.sample("scale", dist.LogNormal(torch.zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            component = pyro.sample("component", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(locs[component], scale), obs=x)

    guide = AutoNormal(poutine.block(model, expose=["scale"]))
    return model, guide, TraceEnum_ELBO(max_plate_nesting=1), (torch.randn(8),)


def hidden_markov() -> Any:
    """A chain enumerated in the model; the guide enumerates a switch in parallel."""

    @config_enumerate
    def model(x: torch.Tensor) -> None:
        rows = pyro.param("rows", torch.tensor([[0.8, 0.2], [0.3, 0.7]]))
        locs = pyro.param("locs", torch.tensor([-1.0, 1.0]))
        switch = pyro.sample("switch", dist.Bernoulli(torch.tensor(0.4)))
        state: Any = torch.tensor(0)
        for t in pyro.markov(range(len(x))):
            state = pyro.sample(f"state_{t}", dist.Categorical(logits=rows[state]))
            pyro.sample(f"x_{t}", dist.Normal(locs[state] + switch, 1.0), obs=x[t])

    @config_enumerate
    def guide(x: torch.Tensor) -> None:
        chance = pyro.param("chance", torch.tensor(0.6), constraint=constraints.unit_interval)
        pyro.sample("switch", dist.Bernoulli(chance))

    return model, guide, TraceEnum_ELBO(max_plate_nesting=0), (torch.randn(4),)


def score_function(elbo: Callable[[], Any] = Trace_ELBO) -> Any:
    def model(x: torch.Tensor) -> None:
        locs = pyro.param("locs", torch.tensor([-1.0, 1.0]))
        with pyro.plate("data", len(x)):
            side = pyro.sample("side", dist.Bernoulli(x.new_tensor(0.5)))
            pyro.sample("x", dist.Normal(locs[side.long()], 1.0), obs=x)

    def guide(x: torch.Tensor) -> None:
        slope = pyro.param("slope", torch.tensor(0.4))
        with pyro.plate("data", len(x)):
            pyro.sample("side", dist.Bernoulli(logits=slope * x))

    return model, guide, elbo(), (torch.randn(6),)
