# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A linear model with its exact posterior, and guides for it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from pyro_deepgen.infer import AutoFlow
from pyro_deepgen.nn import MLP
from pyro_deepgen.transforms import Composed, Planar, cholesky_affine

DATA = torch.tensor([1.5, -0.5, 2.0])
DESIGN = torch.tensor([[1.0, 0.5], [1.0, -1.0], [1.0, 2.0]])
NOISE = 0.5


def regression(x: torch.Tensor = DATA) -> None:
    """A linear model whose two coefficients are correlated in the posterior."""
    design = DESIGN.to(x)
    first = pyro.sample("first", dist.Normal(x.new_zeros(()), 1.0))
    second = pyro.sample("second", dist.Normal(x.new_zeros(()), 2.0))
    with pyro.plate("data", 3):
        mean = first * design[:, 0] + second * design[:, 1]
        pyro.sample("x", dist.Normal(mean, NOISE), obs=x)


def prior_covariance(x: torch.Tensor) -> torch.Tensor:
    return x.new_tensor([1.0, 4.0]).diag()


def evidence(x: torch.Tensor = DATA) -> torch.Tensor:
    design = DESIGN.to(x)
    covariance = design @ prior_covariance(x) @ design.T + NOISE**2 * torch.eye(3).to(x)
    return dist.MultivariateNormal(torch.zeros(3).to(x), covariance).log_prob(x)  # type: ignore[no-any-return]


def posterior(x: torch.Tensor = DATA) -> Any:
    design = DESIGN.to(x)
    precision = prior_covariance(x).inverse() + design.T @ design / NOISE**2
    mean = torch.linalg.solve(precision, design.T @ x / NOISE**2)
    return dist.MultivariateNormal(mean, precision_matrix=precision)


def data() -> torch.Tensor:
    return DATA.to(torch.zeros(()))


class NotInvertedInGraphs(Planar):
    """A planar flow, whose inverse is a search, that may not be in the graph of a guide's step."""

    def inverse_and_log_det(self, y: Any, context: Any = None) -> Any:
        assert get_proxy_mode() is None
        return super().inverse_and_log_det(y, context)


def affine_and_planar(size: int, **context: Any) -> Composed:
    return Composed([cholesky_affine(size, **context), NotInvertedInGraphs(size)])


def train(step: Callable[[], Any], num: int) -> None:
    for _ in range(num):
        step()


def contextual() -> AutoFlow:
    network = MLP(3, (8,), 4, activation=nn.Tanh)
    factory = partial(affine_and_planar, context_dim=4, hidden_dims=(8,))
    return AutoFlow(regression, factory, context=network)
