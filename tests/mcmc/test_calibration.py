# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Simulation-based calibration: among posterior draws, the truth has every rank equally often.

Sean Talts, Michael Betancourt, Daniel Simpson, Aki Vehtari, Andrew Gelman: Validating Bayesian
Inference Algorithms with Simulation-Based Calibration, 2018, arXiv 1804.06788.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from pyro_deepgen.mcmc.hmc import HMC
from pyro_deepgen.mcmc.nuts import NUTS
from pyro_deepgen.mcmc.run import run
from pyro_deepgen.mcmc.state import Values
from tests.mcmc.exact_targets import FAILURE_RATE, prior_draws
from tests.mcmc.rows_hamiltonian import OnWrongTarget

pytestmark = pytest.mark.usefixtures("float64")


def p_value(ranks: torch.Tensor, num_ranks: int, bins: int) -> float:
    """Of the hypothesis that ranks ``(S, K)`` of K numbers are uniform, by chi-square."""
    p_values = []
    for column in ranks.T:
        counts = torch.bincount(column * bins // num_ranks, minlength=bins)
        p_values.append(float(stats.chisquare(counts.numpy()).pvalue))
    return min(1.0, min(p_values) * len(p_values))


# ---------------------------------------------------------------- a data set a chain


def regression() -> None:
    """Groups with slopes of their own; the data are a site that the kernel leaves alone."""
    x = torch.linspace(-1.0, 1.5, 4)
    slope = pyro.sample("slope", dist.Normal(torch.tensor(0.0), 1.0))
    spread = pyro.sample("spread", dist.Gamma(torch.tensor(3.0), 3.0))
    noise = pyro.sample("noise", dist.LogNormal(torch.tensor(-0.5), 0.4))
    with pyro.plate("groups", 3, dim=-2):
        own = pyro.sample("own", dist.Normal(torch.zeros(3, 1), 1.0))
        with pyro.plate("data", 4, dim=-1):
            pyro.sample("y", dist.Normal((slope + spread * own) * x, noise))


def regression_ranks(cls: Any, num_sets: int, draws: int = 7) -> torch.Tensor:
    """Ranks ``(S, 4)`` of the truth among some draws, each for other data.

    The truth, an exact draw of the posterior, is put at a random place of a chain that leaves it
    both ways. A reversible kernel that leaves the posterior alone makes all places of the chain
    alike, however correlated its draws are, so that the ranks are exactly uniform.
    """
    hidden = ["slope", "spread", "noise", "own"]
    kernel = cls(regression, sites=hidden, step_size=0.16, max_tree_depth=5, compile="recorded")
    kernel.setup(0)
    kernel.tuning["scale"].copy_(torch.tensor([1.0, 0.6, 0.4, 1.0, 1.0, 1.0]))
    truth = prior_draws(regression, num_sets)
    shapes = kernel.target.shapes(list(kernel.target.sites))
    truth = {name: truth[name].reshape(-1, *shape) for name, shape in shapes.items()}

    def numbers(of: Values) -> torch.Tensor:
        return torch.stack([of["slope"], of["spread"], of["noise"], of["own"][..., 0, 0]], -1)

    place = torch.randint(draws + 1, (num_sets,))
    own = numbers(truth)
    below, ties = torch.zeros_like(own), torch.zeros_like(own)
    for lengths in (place, draws - place):
        state = kernel.init(kernel.target.unconstrain(truth))
        _, found, _ = kernel.advance(state, draws, thinning=4)
        assert torch.equal(found["y"][-1], truth["y"])
        taken = (torch.arange(draws)[:, None] < lengths)[..., None]
        values = numbers(kernel.target.constrain(found))
        below += ((values < own) & taken).sum(0)
        ties += ((values == own) & taken).sum(0)  # where a chain did not move
    return (below + (torch.rand_like(ties) * (ties + 1)).floor()).long()


@pytest.mark.slow
def test_nuts_is_calibrated() -> None:
    assert p_value(regression_ranks(NUTS, 400), 8, 8) > FAILURE_RATE


def test_without_the_jacobian_it_is_not() -> None:
    assert p_value(regression_ranks(OnWrongTarget, 400), 8, 8) < FAILURE_RATE


# ---------------------------------------------------------------- a run a data set


def counts(y: torch.Tensor) -> None:
    """Counts in two conditions."""
    rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0), 1.0))
    change = pyro.sample("change", dist.Normal(torch.tensor(0.0), 0.7))
    with pyro.plate("data", 6):
        place = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
        pyro.sample("y", dist.Poisson(rate * (change * place).exp()), obs=y)


def counts_ranks(num_sets: int, shape: float = 2.0) -> tuple[torch.Tensor, int]:
    """Ranks ``(S, 2)`` of the truth among 31 chains' last draws, and how many graphs were made."""
    kernel = HMC(counts, num_steps=3, step_size=0.4, adapt_mass_matrix=False, compile="recorded")
    ranks, graphs = [], set()
    for _ in range(num_sets):
        rate = dist.Gamma(torch.tensor(shape), 1.0).sample()
        change = dist.Normal(torch.tensor(0.0), 0.7).sample()
        means = torch.cat([rate.expand(3), (rate * change.exp()).expand(3)])
        y = torch.poisson(means)
        found = run(kernel, 1, 16, 31, args=(y,), progress=False).samples
        columns = torch.stack([found["rate"][:, -1], found["change"][:, -1]], -1)
        ranks.append((columns < torch.stack([rate, change])).sum(0))
        graphs |= {id(graph) for graph, _ in kernel.graphs.values()}
    return torch.stack(ranks), len(graphs)


@pytest.mark.slow
def test_hmc_is_calibrated_and_keeps_its_graphs_for_new_data() -> None:
    ranks, graphs = counts_ranks(80)
    assert p_value(ranks, 32, 8) > FAILURE_RATE
    assert graphs == 5  # init, the three parts of a step, and learning from it


def test_truths_from_another_prior_are_found() -> None:
    ranks, _ = counts_ranks(50, shape=7.0)
    assert p_value(ranks, 32, 8) < FAILURE_RATE
