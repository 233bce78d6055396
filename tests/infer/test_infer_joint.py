# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""One bound for all data together, under written and automatic guides."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal, init_to_value

from pyro_deepgen.infer import ImportanceWeightedELBO
from tests.infer.toys import K, agree, deviation, normal

Program = Callable[..., Any]
SQUARES = [1.0, 0.0, 1.0, 4.0]
INPUTS = [-1.0, 0.0, 1.0, 2.0]


def test_one_bound_for_all_data() -> None:
    inputs, squares = torch.tensor(INPUTS), torch.tensor(SQUARES)

    def model() -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", 4):
            pyro.sample("x", dist.Normal(w[..., 0] + w[..., 1] * inputs, 0.5), obs=squares)

    def guide() -> None:
        pyro.sample("w", dist.Normal(torch.zeros(2), 2.0).to_event(1))

    w = torch.randn(K, 1, 2)  # the particles lie to the left of the data's plate
    fit = normal(squares, w[..., 0] + w[..., 1] * inputs, 0.5).sum(-1)
    weight = (normal(w) - normal(w, 0.0, 2.0)).sum((-2, -1)) + fit
    agree(model, guide, {"w": w}, weight, 1, per_datum=False)


def regression() -> tuple[Program, float]:
    """Bayesian linear regression, and its evidence."""
    inputs = torch.stack([torch.ones(6), torch.linspace(-1.0, 1.0, 6)], -1)
    y = inputs @ torch.tensor([0.5, -1.0]) + 0.3 * torch.randn(6)

    def model() -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        b = pyro.sample("b", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", 6):
            mean = w[..., 0] * inputs[:, 0] + w[..., 1] * inputs[:, 1] + b
            pyro.sample("y", dist.Normal(mean, 0.5), obs=y)

    covariance = inputs @ inputs.T + 1.0 + 0.25 * torch.eye(6)
    return model, float(dist.MultivariateNormal(torch.zeros(6), covariance).log_prob(y))


def near_the_posterior() -> Any:
    return init_to_value(values={"w": torch.tensor([0.1, -0.8]), "b": torch.tensor(0.0)})


@pytest.mark.parametrize("auto", [AutoNormal, AutoDiagonalNormal])
def test_autoguides(auto: Any) -> None:
    model, evidence = regression()
    guide = auto(model, init_scale=0.8, init_loc_fn=near_the_posterior())
    guide()
    bound = ImportanceWeightedELBO(5000, per_datum=False)
    found = -torch.stack([bound.loss(model, guide) for _ in range(40)])
    assert deviation(found, evidence) < 4
    assert deviation(found + 0.2, evidence) > 4
    with pytest.raises(ValueError, match="per_datum=False"):
        ImportanceWeightedELBO(5).loss(model, guide)


@pytest.mark.parametrize("auto", [AutoNormal, AutoDiagonalNormal])
def test_gradients_of_autoguides(auto: Any) -> None:
    model, _ = regression()
    guide = auto(model, init_scale=0.8, init_loc_fn=near_the_posterior())
    guide()
    grads = {}
    for gradient in ("iwae", "dreg"):
        objective = ImportanceWeightedELBO(3, gradient, per_datum=False)
        rows = []
        for _ in range(200):
            guide.zero_grad()
            objective.loss_and_grads(model, guide)
            rows.append(torch.cat([p.grad.flatten() for p in guide.parameters()]))
        grads[gradient] = torch.stack(rows)
    assert deviation(grads["iwae"] - grads["dreg"], 0.0) < 4
    assert deviation(grads["iwae"] - 3 * grads["dreg"], 0.0) > 4  # the test can tell
