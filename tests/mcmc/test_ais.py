# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Annealed importance sampling of targets with a closed form."""

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_deepgen.mcmc.ais import ais
from pyro_deepgen.mcmc.block_gibbs import BlockGibbs
from pyro_deepgen.mcmc.hmc import HMC
from pyro_deepgen.mcmc.kernel import Kernel
from pyro_deepgen.mcmc.mala import MALA
from pyro_deepgen.mcmc.random_walk import RandomWalk
from pyro_deepgen.mcmc.state import Values
from pyro_deepgen.mcmc.target import Site, Target
from tests.mcmc.boltzmann import RestrictedMachine

pytestmark = pytest.mark.usefixtures("float64")
X = torch.tensor([1.2, 0.4, 2.5, 1.9], dtype=torch.float64)


def hmc(target: Any) -> Kernel:
    return HMC(target, compile=False)


def walk(target: Any) -> Kernel:
    return RandomWalk(target, compile=False)


def regression(x: torch.Tensor) -> None:
    """A location with a normal prior, of which the evidence is a closed form."""
    loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def evidence(x: torch.Tensor) -> torch.Tensor:
    covariance = torch.eye(len(x), dtype=x.dtype) + 9.0
    return dist.MultivariateNormal(torch.zeros_like(x), covariance).log_prob(x)


def rates(x: torch.Tensor) -> None:
    """A positive site and one in the unit interval; the evidence is that of a gamma and a beta."""
    rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0), 1.0))
    prob = pyro.sample("prob", dist.Beta(torch.tensor(2.0), 3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Exponential(rate), obs=x)
    pyro.sample("y", dist.Binomial(10, prob), obs=torch.tensor(7.0))


def evidence_of_rates(x: torch.Tensor) -> torch.Tensor:
    n, total = float(len(x)), x.sum()
    of_rate = torch.lgamma(torch.tensor(2.0 + n)) - (2.0 + n) * (1.0 + total).log()
    return of_rate + dist.BetaBinomial(2.0, 3.0, 10).log_prob(torch.tensor(7.0))


class Scaled:
    """A normal law times a factor, in two dimensions."""

    event_shape = torch.Size([2])
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * ((x - 2.0) @ self.covariance.inverse() * (x - 2.0)).sum(-1) - 5.0

    def log_z(self) -> torch.Tensor:
        return 5.0 + (2 * torch.pi * self.covariance.det().sqrt()).log()


BASE = dist.Normal(torch.zeros(2, dtype=torch.float64), 2.0).to_event(1)


@pytest.mark.parametrize("kernel", [hmc, walk])
def test_evidence_of_a_model(kernel: Any) -> None:
    result = ais(regression, kernel=kernel, args=(X,), num_steps=60, num_chains=500)
    assert (result.log_z - evidence(X)).abs() < 4 * result.standard_error
    # Of the walk 244 over 24 seeds, with a standard deviation of 10; the error follows from it.
    assert result.lower < result.log_z and result.ess > 200
    assert result.standard_error < 0.06
    # The last values, with their weights, are the posterior.
    weights = result.log_weights.softmax(0)
    mean = (weights * result.samples["loc"]).sum()
    exact, sd = X.sum() / (len(X) + 1 / 9), (len(X) + 1 / 9) ** -0.5
    assert (mean - exact).abs() < 4 * sd / result.ess.sqrt()


def test_evidence_of_a_model_with_constraints() -> None:
    result = ais(rates, kernel=hmc, args=(X,), num_steps=60, num_chains=500)
    assert (result.log_z - evidence_of_rates(X)).abs() < 4 * result.standard_error
    assert result.standard_error < 0.05
    assert (result.samples["rate"] > 0).all()
    assert ((result.samples["prob"] > 0) & (result.samples["prob"] < 1)).all()


@pytest.mark.parametrize(
    "base",
    [
        {"rate": dist.Gamma(6.0, 7.0), "prob": dist.Beta(8.0, 5.0)},
        lambda x: (
            pyro.sample("rate", dist.LogNormal(0.0, 0.5)),
            pyro.sample("prob", dist.Uniform(0.0, 1.0)),
        ),
    ],
    ids=["distributions", "program"],
)
def test_any_base_gives_the_same(base: Any) -> None:
    result = ais(rates, base, walk, args=(X,), num_steps=60, num_chains=500)
    assert (result.log_z - evidence_of_rates(X)).abs() < 4 * result.standard_error
    assert result.standard_error < 0.1


@pytest.mark.parametrize("schedule", ["adaptive", "linear", "sigmoid", [0.0, 0.01, 0.1, 0.3, 1.0]])
def test_any_schedule_is_unbiased(schedule: Any) -> None:
    target = Scaled()
    result = ais(target, BASE, walk, num_steps=20, num_chains=100, groups=100, schedule=schedule)
    z = (result.log_z - target.log_z()).exp()
    assert (z.mean() - 1).abs() < 4 * (z.var() / 100).sqrt()
    assert result.betas[0] == 0 and result.betas[-1] == 1


def test_the_adaptive_schedule_lowers_the_ess_evenly() -> None:
    """A prior much wider than the posterior: most temperatures must be high ones."""
    x = 2.0 + torch.randn(300)
    options: dict[str, Any] = {"kernel": walk, "args": (x,), "num_chains": 500, "kernel_steps": 3}
    result = ais(regression, num_steps=None, **options)
    assert (result.betas[1:] > result.betas[:-1]).all()
    assert result.betas[1] < 0.01
    linear = ais(regression, num_steps=len(result.betas) - 1, schedule="linear", **options)
    gap, linear_gap = (evidence(x) - r.lower for r in (result, linear))
    assert gap < linear_gap / 10


def test_resampling_is_unbiased_and_its_ancestors_tell_the_error() -> None:
    target = Scaled()
    result = ais(
        target, BASE, walk, num_steps=8, num_chains=100, groups=200, resample=True, kernel_steps=3
    )
    exact = target.log_z()
    z = (result.log_z - exact).exp()
    assert (z.mean() - 1).abs() < 4 * (z.var() / 200).sqrt()
    assert int(((result.log_z - exact).abs() <= 3 * result.standard_error).sum()) >= 190


def test_reverse_chains_bound_from_above() -> None:
    target, exact = Scaled(), Scaled().log_z()
    law = dist.MultivariateNormal(torch.full((2,), 2.0, dtype=torch.float64), Scaled.covariance)
    draws = law.sample((5000,))
    result = ais(
        target, BASE, walk, num_steps=50, num_chains=100, groups=50, reverse_from=draws
    )  # fmt: skip
    assert result.upper is not None and result.reverse_log_z is not None
    assert int(((result.lower < exact) & (exact < result.upper)).sum()) >= 48
    inverse = (exact - result.reverse_log_z).exp()  # of an unbiased estimate of 1 / Z
    assert (inverse.mean() - 1).abs() < 4 * (inverse.var() / 50).sqrt()


class Decoder(Target):
    """The posterior of a linear decoder's 30 latent units, some seen 15 times as well as others."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        weight = torch.randn(50, 30, generator=torch.Generator().manual_seed(3)) * 0.27
        self.precision = torch.eye(30) + weight.T @ weight / 0.09
        self.sites = {"x": Site(torch.Size([30]), dtype=torch.float64)}
        self.num_gradients = 0

    def potential(self, values: Values) -> torch.Tensor:
        x = values["x"]
        return 0.5 * ((x @ self.precision) * x).sum(-1)

    def potential_and_gradient(
        self, values: Values, sites: Sequence[str]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.num_gradients += 1
        return self.potential(values), values["x"] @ self.precision

    def start(self, num_chains: int) -> Values:
        return {"x": torch.randn(num_chains, 30)}


class WithoutItsRate(HMC):
    """Is brought to the acceptance of a random walk."""

    def __init__(self, target: Any, **options: Any) -> None:
        super().__init__(target, **options)
        del self.target_accept_prob


def test_trajectories_are_worth_their_gradients() -> None:
    """HMC of two steps against MALA with as many gradients."""
    ess, work = {}, {}
    base = dist.Normal(torch.zeros(30), 1.0).to_event(1)
    for cls, kernel_steps in ((HMC, 2), (MALA, 4), (WithoutItsRate, 2)):
        target = Decoder()
        result = ais(
            target, base, cls(target, compile=False), num_steps=100, num_chains=300,
            kernel_steps=kernel_steps,
        )  # fmt: skip
        ess[cls], work[cls] = float(result.ess), target.num_gradients
    assert work[HMC] < 1.1 * work[MALA]
    assert ess[HMC] > ess[MALA] and ess[HMC] > 3 * ess[WithoutItsRate]


def test_data_of_the_same_shape_use_the_same_graphs() -> None:
    kernel = HMC(regression, num_steps=2, compile="recorded")
    ais(regression, kernel=kernel, args=(X,), num_steps=5, num_chains=200)
    graphs, of_path = dict(kernel.graphs), dict(kernel.target.graphs)  # type: ignore[attr-defined]
    assert graphs and of_path
    other = X + 3.0
    result = ais(regression, kernel=kernel, args=(other,), num_steps=50, num_chains=200)
    assert kernel.graphs == graphs and kernel.target.graphs == of_path  # type: ignore[attr-defined]
    assert (result.log_z - evidence(other)).abs() < 4 * result.standard_error


@pytest.mark.slow
def test_compiled_steps_give_the_same() -> None:
    kernel = HMC(regression, num_steps=2)
    result = ais(regression, kernel=kernel, args=(X,), num_steps=50, num_chains=500)
    assert (result.log_z - evidence(X)).abs() < 4 * result.standard_error


def test_single_precision_keeps_its_digits() -> None:
    """Weights are differences of large potentials, of which little would be left."""
    x = (2.0 + torch.randn(1000)).float()
    torch.set_default_dtype(torch.float32)
    result = ais(regression, kernel=walk, args=(x,), num_steps=100, num_chains=200)
    # The determinant and the inverse of the identity plus a constant matrix, by hand.
    n, x = len(x), x.double()
    rest = x.square().sum() - 9 / (1 + 9 * n) * x.sum() ** 2
    log_two_pi = torch.tensor(2 * torch.pi, dtype=torch.float64).log()
    exact = -0.5 * (rest + torch.tensor(1.0 + 9 * n).log() + n * log_two_pi)
    assert (result.log_z - exact).abs() < 4 * result.standard_error + 1e-6 * exact.abs()
    assert result.standard_error < 0.3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base": None}, "expected a base"),
        ({"base": 3}, "expected as base a distribution"),
        ({"base": {"y": BASE}}, "sites of the target"),
        ({"base": dist.Gamma(torch.ones(2), 1.0).to_event(1)}, "support of the target"),
        ({"schedule": [0.0, 2.0]}, "rise from 0 to 1"),
        ({"schedule": "cubic"}, "expected a schedule"),
        ({"num_chains": 0}, "num_chains"),
        ({"ess_fraction": 1.0}, "ess_fraction"),
        ({"num_steps": None, "schedule": "linear"}, "num_steps"),
        ({"kernel": RandomWalk(regression, compile=False)}, "made for the target"),
        ({"reverse_from": torch.zeros(10, 3)}, "reverse_from"),
        ({"reverse_from": {"z": torch.zeros(10, 2)}}, "reverse_from"),
    ],
)
def test_wrong_arguments_are_told(options: dict[str, Any], words: str) -> None:
    arguments = {"base": BASE, "kernel": walk, "num_steps": 3, "num_chains": 20, **options}
    with pytest.raises(ValueError, match=words):
        ais(Scaled(), **arguments)


def test_a_base_that_misses_the_target_is_told() -> None:
    class Far(Scaled):
        def energy(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x[:, 0] > 1000.0, 0.0, torch.inf)

    with pytest.raises(ValueError, match="must cover the target"):
        ais(Far(), BASE, walk, num_steps=3, num_chains=20)


def test_block_gibbs_needs_a_path_that_it_can_draw_on() -> None:
    machine = RestrictedMachine(3, 2, 1.0)
    kernel = BlockGibbs(machine, machine, compile=False)
    base = dist.Bernoulli(torch.full((3,), 0.5)).to_event(1)
    with pytest.raises(ValueError, match="bridge"):
        ais(machine, base, kernel, num_steps=3, num_chains=20)
