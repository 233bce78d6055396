# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Gibbs sampling of what can draw its own blocks."""

import itertools
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import nn

from pyro_deepgen.mcmc.block_gibbs import BlockGibbs
from pyro_deepgen.mcmc.block_sampler import BlockTarget
from pyro_deepgen.mcmc.random_walk import RandomWalk
from pyro_deepgen.mcmc.state import Values


class Machine(nn.Module):
    """A restricted Boltzmann machine with binary units."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.5, -1.0], [0.5, 1.0], [-2.0, 0.3]]))
        self.blocks = {"h": (2,), "v": (3,)}

    def sample_block(self, block: str, values: Values) -> torch.Tensor:
        if block == "h":
            return torch.bernoulli(torch.sigmoid(values["v"] @ self.weight))
        return torch.bernoulli(torch.sigmoid(values["h"] @ self.weight.T))

    def energy(self, v: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return -(v @ self.weight * h).sum(-1)


@torch.no_grad()
def test_a_machine_comes_to_its_law_from_zeros() -> None:
    """By a chi-square test over the visible units' configurations, which fails once in 10,000."""
    machine = Machine()
    kernel = BlockGibbs(machine, compile="recorded")
    kernel.setup(0)
    state = kernel.init(kernel.target.start(4000))
    for _ in range(60):
        state, _ = kernel.step(state)
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    weights = (1 + (states @ machine.weight).exp()).prod(-1)
    code = torch.tensor([4.0, 2.0, 1.0])
    counts = (state["v"] @ code).long().bincount(minlength=8)
    expected = weights / weights.sum() * 4000
    assert (
        stats.chisquare(counts.numpy(), expected.numpy().astype(float), sum_check=False).pvalue
        > 1e-4
    )


@torch.no_grad()
def test_the_target_has_the_machine_s_energy() -> None:
    target = BlockTarget(Machine())
    values = {"h": torch.tensor([[1.0, 1.0]]), "v": torch.tensor([[1.0, 0.0, 1.0]])}
    assert target.potential(values).tolist() == pytest.approx([1.2])


def test_parameters_that_change_take_effect_in_the_graph() -> None:
    machine = Machine()
    kernel = BlockGibbs(machine, compile="recorded")
    kernel.setup(0)
    state = kernel.init(kernel.target.start(500))
    with torch.no_grad():
        kernel.step(state)
        machine.weight.fill_(100.0)
        for _ in range(3):
            state, _ = kernel.step(state)
    assert state["v"].mean() > 0.9
    assert len(kernel.graphs) == 1


def test_a_model_s_sites_are_given_in_its_own_terms() -> None:
    """A rate with a gamma prior has a gamma posterior, drawn by the sampler."""

    def model(x: torch.Tensor) -> None:
        rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0), 1.0))
        with pyro.plate("n", len(x)):
            pyro.sample("x", dist.Poisson(rate), obs=x)

    x = torch.tensor([3.0, 5.0, 2.0])

    class Posterior:
        blocks = ("rate",)

        def sample_block(self, block: str, values: Values) -> torch.Tensor:
            assert (values["rate"] > 0).all()
            return dist.Gamma(2 + x.sum(), 1.0 + len(x)).sample(values["rate"].shape)

    kernel = BlockGibbs(model, Posterior(), compile=False)
    kernel.setup(0, x)
    state, _ = kernel.step(kernel.init(kernel.target.start(4000)))
    rate = kernel.target.constrain(kernel.values(state))["rate"]
    assert stats.kstest(rate.numpy(), stats.gamma(12, scale=1 / 4).cdf).pvalue > 1e-4


class Half:
    """Draws one of two sites of a model."""

    blocks = ("a",)

    def sample_block(self, block: str, values: Values) -> torch.Tensor:
        return values["a"][:, None]


def two_sites() -> None:
    pyro.sample("a", dist.Normal(torch.tensor(0.0), 1.0))
    pyro.sample("b", dist.Normal(torch.tensor(0.0), 1.0))


class NoShapes:
    blocks = ("a", "b")

    def sample_block(self, block: str, values: Values) -> torch.Tensor:
        return values[block]


class NoEnergy:
    blocks = {"a": ()}

    def sample_block(self, block: str, values: Values) -> torch.Tensor:
        return values[block]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BlockGibbs(two_sites), "blocks and sample_block.* got function"),
        (lambda: BlockGibbs(NoShapes()), "NoShapes.blocks to be a dictionary"),
        (lambda: BlockGibbs(two_sites, Half(), sites=["b"]), "cannot move the site 'b'"),
        (
            lambda: BlockGibbs(two_sites, Half()),
            r"the shape \(3,\), chains first, and gave \(3, 1\)",
        ),
        (lambda: RandomWalk(BlockTarget(NoEnergy())), "NoEnergy has no energy"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    def step() -> None:
        kernel = make()
        kernel.compile = False
        kernel.setup(0)
        kernel.step(kernel.init(kernel.target.start(3)))

    with pytest.raises(ValueError, match=message):
        step()
