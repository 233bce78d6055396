# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A program with arguments of many kinds, and its values by the graph and without."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from pyro.optim import Adam
from torch import nn

from pyro_deepgen.infer import CompiledSVI


def compiled(program: Any, elbo: Any = None, **options: Any) -> CompiledSVI:
    options = {"backend": None, **options}
    optim = Adam({"lr": 1e-2})
    return CompiledSVI(program.model, program.guide, optim, elbo or Trace_ELBO(), **options)


def data(*shape: int) -> torch.Tensor:
    return torch.bernoulli(torch.full(shape, 0.3))


class Weighted(PyroModule):
    """A model that takes a number, a flag, a list and a dictionary beside its data."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(0.3))
        self.temperature = 1.0

    def model(self, x: torch.Tensor, *args: Any, **options: Any) -> None:
        weight, wide = options.get("weight", 1.0), options.get("wide", False)
        with pyro.plate("data", len(x)), poutine.scale(scale=weight):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 3.0 if wide else 1.0))
            pyro.sample("x", dist.Normal(z * self.temperature, weight), obs=x)

    def guide(self, x: torch.Tensor, *args: Any, **options: Any) -> None:
        pyro.module("weighted", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc * x, options.get("weight", 1.0)))


def eager(program: Any, seed: int, *args: Any, **kwargs: Any) -> float:
    torch.manual_seed(seed)
    return float(Trace_ELBO().loss(program.model, program.guide, *args, **kwargs))


def evaluated(svi: CompiledSVI, seed: int, *args: Any, **kwargs: Any) -> float:
    torch.manual_seed(seed)
    return float(svi.evaluate_loss(*args, **kwargs))
