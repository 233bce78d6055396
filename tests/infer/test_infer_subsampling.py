# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Minibatches give the loss and the gradient of all data."""

from itertools import combinations
from math import comb
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO

from pyro_deepgen.infer import ImportanceWeightedELBO, MeanFieldELBO
from tests.infer.toys import FixedDraws, deviation

SIZE, BATCH, PARTICLES = 5, 2, 4


class Minibatches:
    """Data in a subsampled plate, a model and a guide with a parameter each."""

    def __init__(self) -> None:
        self.x = torch.randn(SIZE) * 2
        self.noise = torch.randn(PARTICLES, SIZE)
        self.theta = pyro.param("theta", torch.tensor(0.7)).unconstrained()
        self.phi = pyro.param("phi", torch.tensor(0.3)).unconstrained()

    def model(self, index: torch.Tensor) -> None:
        with pyro.plate("data", SIZE, subsample=index):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(pyro.param("theta") * z, 1.0), obs=self.x[index])

    def guide(self, index: torch.Tensor) -> None:
        with pyro.plate("data", SIZE, subsample=index):
            pyro.sample("z", dist.Normal(pyro.param("phi") * self.x[index], 0.8))

    def loss(self, objective: Any, index: torch.Tensor) -> torch.Tensor:
        """Loss and gradients with noise that belongs to each datum, not to each batch."""

        def fixed(index: torch.Tensor) -> None:
            with FixedDraws(noise=lambda _: self.noise[: objective.num_particles, index]):
                self.guide(index)

        self.theta.grad = self.phi.grad = None
        loss = objective.loss_and_grads(self.model, fixed, index)
        assert self.theta.grad is not None and self.phi.grad is not None
        return torch.stack([torch.as_tensor(loss), self.theta.grad, self.phi.grad])


OBJECTIVES = [
    *(
        ImportanceWeightedELBO(PARTICLES, g, max_plate_nesting=1)
        for g in ("iwae", "stl", "dreg", "vimco")
    ),
    ImportanceWeightedELBO(1, "stl"),
    MeanFieldELBO(PARTICLES, max_plate_nesting=1),
    MeanFieldELBO(PARTICLES, "stl", max_plate_nesting=1),
    MeanFieldELBO(1, "stl"),
]


def full_and_mean(objective: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What all data give, and the mean of what all subsets give."""
    data = Minibatches()
    batches = [data.loss(objective, torch.tensor(i)) for i in combinations(range(SIZE), BATCH)]
    assert len(batches) == comb(SIZE, BATCH)
    return data.loss(objective, torch.arange(SIZE)), torch.stack(batches).mean(0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_mean_over_all_minibatches_is_the_full_batch(objective: Any) -> None:
    full, mean = full_and_mean(objective)
    assert torch.allclose(full, mean, rtol=0.0, atol=1e-10)
    assert float(full.abs().min()) > 1e-3


def test_pyros_renyi_bound_of_a_minibatch_is_another_one() -> None:
    # alpha = 0 is the importance-weighted bound; here the scale is inside its logarithm.
    renyi = RenyiELBO(0, PARTICLES, max_plate_nesting=1, vectorize_particles=True)
    full, mean = full_and_mean(renyi)
    assert float((full - mean).abs().min()) > 0.1


@pytest.mark.parametrize("objective", [ImportanceWeightedELBO(3, "dreg"), MeanFieldELBO(1, "stl")])
def test_random_minibatches(objective: Any) -> None:
    # Under the posterior a datum gives its evidence, so that only the choice of data is random.
    x = torch.randn(SIZE) * 2

    def model() -> None:
        with pyro.plate("data", SIZE, subsample_size=BATCH) as index:
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])

    def guide() -> None:
        with pyro.plate("data", SIZE, subsample_size=BATCH) as index:
            pyro.sample("z", dist.Normal(x[index] / 2, 0.5**0.5))

    found = torch.stack([objective.loss(model, guide) for _ in range(300)])
    exact = -dist.Normal(torch.zeros(()), 2**0.5).log_prob(x).sum()
    assert float(found.std()) > 0.1
    assert deviation(found, exact) < 4
    assert deviation(found, exact * BATCH / SIZE) > 10  # the scale is there
