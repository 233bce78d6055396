# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Tempered transitions between modes; their law is in test_invariance.py."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_deepgen.mcmc.hmc import HMC
from pyro_deepgen.mcmc.random_walk import RandomWalk
from pyro_deepgen.mcmc.tempered_transitions import TemperedTransitions
from tests.mcmc.test_parallel_tempering import agrees, fraction_on_the_left, two_modes

pytestmark = pytest.mark.usefixtures("float64")
LADDER = [1.6**i for i in range(9)]


def test_transitions_cross_between_modes() -> None:
    alone = RandomWalk(
        two_modes(), scale=2.0, adapt_step_size=False, adapt_scale=False, compile=False
    )
    assert fraction_on_the_left(alone, 10) == 1.0
    kernel = TemperedTransitions(RandomWalk(two_modes(), compile="recorded"), LADDER)
    assert agrees(fraction_on_the_left(kernel, 20))


def test_a_way_to_the_prior_is_exact() -> None:
    """The likelihood alone is tempered; the posterior has two modes of known weights."""

    def model() -> None:
        x = pyro.sample("x", dist.Normal(torch.tensor(1.0), 2.0))
        pyro.sample("y", dist.Normal(x**2, 1.0), obs=torch.tensor(9.0))

    grid = torch.linspace(-8, 8, 20_001)
    log_density = dist.Normal(1.0, 2.0).log_prob(grid) + dist.Normal(grid**2, 1.0).log_prob(
        torch.tensor(9.0)
    )
    exact = float(log_density.softmax(0)[grid < 0].sum())
    ladder = [1.0, 2.0, 5.0, 15.0, 60.0, float("inf")]
    kernel = TemperedTransitions(RandomWalk(model, compile="recorded"), ladder, base="prior")
    kernel.setup(40)
    state = kernel.warm_up(kernel.init({"x": torch.full((400,), 3.0)}), 40)
    _, draws, info = kernel.advance(state, 20)
    assert info["accept_prob"].mean() > 0.1
    assert agrees(float((draws["x"][-1] < 0).double().mean()), exact)


def test_temperatures_close_together_accept_more() -> None:
    means = []
    target = dist.Normal(torch.zeros(4), 1.0).to_event(1)
    for num in (3, 9):
        ladder = [16.0 ** (i / (num - 1)) for i in range(num)]
        inner = HMC(target, num_steps=3, step_size=0.5, compile="recorded")
        kernel = TemperedTransitions(inner, ladder)
        kernel.setup(0)
        kernel.step_scales.copy_(kernel.betas.rsqrt())  # the best ones, for a normal target
        _, _, info = kernel.advance(kernel.init({"x": torch.randn(500, 4)}), 5)
        means.append(info["accept_prob"].mean())
    assert means[1] > means[0] + 0.1


def test_wrong_temperatures_are_told() -> None:
    with pytest.raises(ValueError, match="rise"):
        TemperedTransitions(RandomWalk(two_modes(), compile=False), [1.0, 1.0])
