# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Targets from which exact draws can be had, and how chains are held against these."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from scipy import stats

from pyro_deepgen.mcmc.kernel import Kernel
from pyro_deepgen.mcmc.state import Values

# Of each comparison, however many tests it consists of (Bonferroni).
FAILURE_RATE = 1e-4
NUM_REFERENCE = 40_000
COVARIANCE = torch.tensor([[2.0, 1.2], [1.2, 1.0]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)


@dataclass(frozen=True)
class ExactTarget:
    """A program, and exact draws from it.

    `draw` gives so many draws of every site, in the program's terms; a Pyro model without data
    needs none, since it draws from its prior.
    """

    name: str
    program: Callable[[], Any]
    draw: Callable[[int], Values] | None = None

    def exact(self, num_draws: int) -> Values:
        return prior_draws(self.program(), num_draws) if self.draw is None else self.draw(num_draws)


def prior_draws(model: Callable[[], Any], num_draws: int) -> Values:
    """Run a model, whose own plates are at the dimensions -1 and -2, so many times at once."""
    with pyro.plate("_draws", num_draws, dim=-3):
        trace = poutine.trace(model).get_trace()
    nodes = {n: node for n, node in trace.iter_stochastic_nodes() if not site_is_subsample(node)}
    values = {}
    for name, node in nodes.items():
        own = [f.size for f in node["cond_indep_stack"] if f.vectorized and f.dim != -3]
        event = node["fn"].event_shape
        values[name] = node["value"].reshape(num_draws, *own, *event)
    return values


# ---------------------------------------------------------------- comparison


def p_value(values: Values, exact: Values, sites: list[str] | None = None) -> float:
    """Compare values with exact ones by the law of many numbers each; small where they differ.

    Each coordinate, products of two of them, and the sum are held against those of exact draws by
    the test of Kolmogorov and Smirnov; a number with few values by a chi-square test. The smallest
    p-value is multiplied by the number of tests.
    """
    names = sites or list(values)
    features = [_features(drawn, names) for drawn in (values, exact)]
    p_values = [_compare(a, b) for a, b in zip(*features, strict=True)]
    return min(1.0, min(p_values) * len(p_values))


def _features(values: Values, names: list[str]) -> list[torch.Tensor]:
    flat = [values[name].reshape(len(values[name]), -1) for name in names]
    columns = list(torch.cat([part.to(torch.float64) for part in flat], -1).cpu().unbind(-1))
    products = [a * b for a, b in itertools.combinations(columns[:4], 2)]
    return [*columns, *products, sum(columns[1:], columns[0])]


def _compare(one: torch.Tensor, other: torch.Tensor) -> float:
    if other.max() - other.min() < 1e-9:  # the sum of a point of a simplex
        return 1.0 if (one - other[0]).abs().max() < 1e-9 else 0.0
    levels = other.unique()
    if len(levels) > 30:
        return float(stats.ks_2samp(one.numpy(), other.numpy(), method="asymp").pvalue)
    if not torch.isin(one, levels).all():
        return 0.0
    counts = [[int((x == level).sum()) for level in levels] for x in (one, other)]
    return float(stats.chi2_contingency(counts).pvalue)


def p_value_of(
    kernel: Kernel, target: ExactTarget, num_steps: int, num_chains: int = 4000
) -> float:
    """How well a kernel keeps exact draws exact: the p-value after some steps from them."""
    kernel.setup(0)
    with torch.no_grad():
        state = kernel.init(start_exactly(kernel, target, num_chains))
        for _ in range(num_steps):
            state, _ = kernel.step(state)
    values = kernel.target.constrain(kernel.values(state))
    return p_value(values, target.exact(NUM_REFERENCE), list(kernel.target.sites))


def start_exactly(kernel: Kernel, target: ExactTarget, num_chains: int) -> Values:
    exact = target.exact(num_chains)
    return kernel.target.unconstrain({name: exact[name] for name in kernel.target.sites})


# ---------------------------------------------------------------- targets


def here(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.get_default_device())


def normal() -> None:
    pyro.sample("x", dist.MultivariateNormal(here(MEAN), here(COVARIANCE)))


def gamma() -> None:
    pyro.sample("x", dist.Gamma(torch.tensor(2.5), 3.0))


def beta() -> None:
    pyro.sample("x", dist.Beta(torch.tensor(2.0), 3.0))


def dirichlet() -> None:
    pyro.sample("x", dist.Dirichlet(torch.tensor([2.0, 3.0, 4.0])))


def scale_mixture() -> None:
    """Two sites, one of which has a constraint, and a plate."""
    scale = pyro.sample("scale", dist.Gamma(torch.tensor(4.0), 4.0))
    with pyro.plate("n", 3):
        pyro.sample("y", dist.Normal(0.0, scale))


PROBS = {
    "a": torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64),
    "b": torch.tensor([0.7, 0.2, 0.5], dtype=torch.float64),
    "c": torch.tensor(
        [
            [[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]],
            [[0.3, 0.3, 0.4], [0.8, 0.1, 0.1]],
            [[0.2, 0.7, 0.1]] * 2,
        ],
        dtype=torch.float64,
    ),
}


def discrete() -> None:
    """Three sites with 18 configurations, no two of them independent."""
    a = pyro.sample("a", dist.Categorical(here(PROBS["a"])))
    b = pyro.sample("b", dist.Bernoulli(here(PROBS["b"])[a]))
    pyro.sample("c", dist.Categorical(here(PROBS["c"])[a, b.long()]))


def labels() -> None:
    """Elements of a plate that are independent given another site."""
    k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.4)))
    with pyro.plate("n", 4):
        z = pyro.sample(
            "z", dist.Categorical(torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])[k.long()])
        )
        pyro.sample("w", dist.Bernoulli(torch.tensor([0.1, 0.5, 0.9])[z]))


def mixture() -> None:
    """Discrete labels and continuous sites that depend on them."""
    loc = pyro.sample("loc", dist.Normal(torch.tensor(1.0), 0.5))
    with pyro.plate("n", 3):
        z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.3)))
        pyro.sample("x", dist.Normal(2 * loc * z, 0.7))


class Lattice:
    """Four binary units in a ring with a coupling between neighbours, as a Pyro model."""

    coupling = 0.8

    def __call__(self) -> None:
        with pyro.plate("n", 4):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.4)))
        pyro.factor("ring", self.coupling * (z * z.roll(1, -1)).sum(-1))

    def draw(self, num_draws: int) -> Values:
        states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)))
        weights = torch.where(states == 1, 0.4, 0.6).prod(-1)
        weights = weights * (self.coupling * (states * states.roll(1, -1)).sum(-1)).exp()
        return {"z": states[torch.multinomial(weights, num_draws, replacement=True)]}


class NormalPair:
    """Two correlated vectors, each of which can be drawn given the other."""

    blocks = {"a": (2,), "b": (2,)}

    def sample_block(self, block: str, values: Values) -> torch.Tensor:
        other = values["b" if block == "a" else "a"]
        return 0.8 * other + 0.6 * torch.randn_like(other)

    def draw(self, num_draws: int) -> Values:
        a = torch.randn(num_draws, 2)
        return {"a": a, "b": 0.8 * a + 0.6 * torch.randn(num_draws, 2)}


LANGEVIN_STEP, LANGEVIN_TEMPERATURE = 0.6, 1.5


def langevin_draws(num_draws: int) -> Values:
    """Draws from what unadjusted Langevin dynamics makes of the normal target, in closed form."""
    precision = torch.linalg.inv(here(COVARIANCE))
    shrunk = precision - LANGEVIN_STEP**2 / 4 * precision @ precision
    law = dist.MultivariateNormal(here(MEAN), LANGEVIN_TEMPERATURE * torch.linalg.inv(shrunk))
    return {"x": law.sample((num_draws,))}


EXACT_TARGETS = {
    target.name: target
    for target in [
        ExactTarget("normal", lambda: normal),
        ExactTarget("langevin_normal", lambda: normal, langevin_draws),
        ExactTarget("gamma", lambda: gamma),
        ExactTarget("beta", lambda: beta),
        ExactTarget("dirichlet", lambda: dirichlet),
        ExactTarget("scale_mixture", lambda: scale_mixture),
        ExactTarget("discrete", lambda: discrete),
        ExactTarget("labels", lambda: labels),
        ExactTarget("mixture", lambda: mixture),
        ExactTarget("lattice", Lattice, Lattice().draw),
        ExactTarget("normal_pair", NormalPair, NormalPair().draw),
    ]
}
CONTINUOUS = ("normal", "gamma", "beta", "dirichlet", "scale_mixture")
