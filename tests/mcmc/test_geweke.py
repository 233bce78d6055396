# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Geweke's joint distribution test: new data and kernel in turn must leave the prior as it is.

The data are one more site of the target, which the kernel does not move, so that each chain has
data of its own (John Geweke: Getting It Right, 2004).
"""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_deepgen.mcmc.block_gibbs import BlockGibbs
from pyro_deepgen.mcmc.discrete_gibbs import DiscreteGibbs
from pyro_deepgen.mcmc.gibbs import Gibbs
from pyro_deepgen.mcmc.hmc import HMC
from pyro_deepgen.mcmc.nuts import NUTS
from pyro_deepgen.mcmc.state import Values
from tests.mcmc.exact_targets import prior_draws
from tests.mcmc.rows_combined import WrongConditional
from tests.mcmc.rows_hamiltonian import OnWrongTarget

pytestmark = pytest.mark.usefixtures("float64")
CHAINS, STEPS, BOUND = 1000, 20, 4.5  # twelve statistics at most: fails once in 10,000 times


def groups() -> None:
    mu = pyro.sample("mu", dist.Normal(torch.tensor(0.5), 1.0))
    tau = pyro.sample("tau", dist.Gamma(torch.tensor(4.0), 4.0))
    with pyro.plate("groups", 3):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, 0.7))


def labelled() -> None:
    p = pyro.sample("p", dist.Beta(torch.tensor(2.0), 3.0))
    loc = pyro.sample("loc", dist.Normal(torch.tensor(1.0), 0.8))
    with pyro.plate("data", 4):
        z = pyro.sample("z", dist.Bernoulli(p))
        pyro.sample("y", dist.Normal(2 * loc * z, 0.7))


class NewData:
    """Draws the data given the rest."""

    blocks = ("y",)

    def __init__(self, mean: Callable[[Values], torch.Tensor], scale: float = 0.7) -> None:
        self.mean, self.scale = mean, scale

    def sample_block(self, block: str, values: Values) -> torch.Tensor:
        mean = self.mean(values)
        return mean + self.scale * torch.randn_like(mean)


def of_groups(cls: Any = NUTS, scale: float = 0.7) -> Gibbs:
    data = NewData(lambda values: values["theta"], scale)
    kernel = cls(groups, step_size=0.5, max_tree_depth=4, compile="recorded")
    return Gibbs([(BlockGibbs(groups, data, compile=False), "y"), (kernel, ["mu", "tau", "theta"])])


def of_labels(cls: Any = DiscreteGibbs, scale: float = 0.7) -> Gibbs:
    data = NewData(lambda values: 2 * values["loc"][:, None] * values["z"], scale)
    kernel = HMC(labelled, num_steps=3, step_size=0.4, compile="recorded")
    labels = cls(labelled, compile="recorded")
    return Gibbs(
        [
            (BlockGibbs(labelled, data, compile=False), "y"),
            (kernel, ["p", "loc"]),
            (labels, "z"),
        ]
    )


def statistics(values: Values) -> torch.Tensor:
    """Some functions of the sites but the data ``(C, G)``."""
    columns = [v.reshape(len(v), -1).sum(-1) for name, v in values.items() if name != "y"]
    data = [values["y"].square().sum(-1), values["y"].sum(-1) * columns[-1]]
    squares = [x.square() for x in columns]
    return torch.stack([*columns, *squares, columns[0] * columns[1], *data], -1)


@torch.no_grad()
def largest_error(kernel: Gibbs) -> float:
    """By how many standard errors the means over all steps differ from those of the prior."""
    kernel.setup(0)
    model: Any = kernel.model
    start, prior = prior_draws(model, CHAINS), prior_draws(model, 40_000)
    state = kernel.init(kernel.target.unconstrain({n: start[n] for n in kernel.target.sites}))
    means: torch.Tensor | float = 0.0
    for _ in range(STEPS):
        state, _ = kernel.step(state)
        means = means + statistics(kernel.target.constrain(kernel.values(state))) / STEPS
    assert isinstance(means, torch.Tensor)
    expected = statistics({name: prior[name] for name in kernel.target.sites})
    error = (means.var(0) / len(means) + expected.var(0) / len(expected)).sqrt()
    return float(((means.mean(0) - expected.mean(0)) / error).abs().max())


@pytest.mark.parametrize("make", [of_groups, of_labels])
def test_the_prior_stays(make: Callable[..., Gibbs]) -> None:
    assert largest_error(make()) < BOUND


@pytest.mark.parametrize(
    ("make", "bug"),
    [
        (of_groups, {"scale": 0.9}),
        (of_groups, {"cls": OnWrongTarget}),
        (of_labels, {"scale": 1.1}),
        (of_labels, {"cls": WrongConditional}),
    ],
)
def test_a_planted_bug_moves_it(make: Callable[..., Gibbs], bug: dict[str, Any]) -> None:
    assert largest_error(make(**bug)) > BOUND
