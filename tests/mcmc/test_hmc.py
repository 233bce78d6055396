# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The integrator, the lengths of trajectories, adaptation, and what HMC does at the edge."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from pyro_deepgen.mcmc.hmc import HMC
from pyro_deepgen.mcmc.mass_matrix import collect, end_window, metric_tuning, start_window
from tests.mcmc.exact_targets import EXACT_TARGETS, FAILURE_RATE, p_value_of

pytestmark = pytest.mark.usefixtures("float64")
ROOT = torch.tensor([[0.5, 0.0], [0.7, 2.0]], dtype=torch.float64)


def quartic() -> None:
    x = pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.factor("tails", -0.1 * x.pow(4).sum() - 0.5 * x.prod())


def normal() -> None:
    pyro.sample("x", dist.MultivariateNormal(torch.zeros(2), scale_tril=ROOT))


def bound(model: Any = quartic, **options: Any) -> HMC:
    kernel = HMC(model, compile=False, **options)
    kernel.setup(0)
    if kernel.full_mass:
        kernel.tuning["scale"].copy_(ROOT)
    return kernel


def follow(kernel: HMC, q: torch.Tensor, a: torch.Tensor, steps: int, size: float) -> Any:
    """Positions and whitened momenta ``(D, C)`` after some steps, and the change in energy."""
    potential, gradient = kernel.target.potential_and_gradient({"x": q.mT}, ("x",))
    before = potential + 0.5 * a.square().sum(0)
    gradient = gradient.mT
    for _ in range(steps):
        q, a, gradient, potential = kernel.leapfrog({}, q, a, gradient, torch.tensor(size))
    return q, a, potential + 0.5 * a.square().sum(0) - before


@pytest.mark.parametrize("full_mass", [False, True])
def test_the_integrator_goes_back_where_it_came_from(full_mass: bool) -> None:
    kernel = bound(full_mass=full_mass)
    q, a = torch.randn(2, 9), torch.randn(2, 9)
    there, momentum, change = follow(kernel, q, a, 7, 0.3)
    back, start, _ = follow(kernel, there, -momentum, 7, 0.3)
    assert change.abs().max() > 1e-4
    assert torch.allclose(back, q) and torch.allclose(start, -a)


@pytest.mark.parametrize("full_mass", [False, True])
def test_the_integrator_keeps_volumes_and_nearly_energies(full_mass: bool) -> None:
    kernel = bound(full_mass=full_mass)
    q, a = torch.randn(2, 40) * 0.5, torch.randn(2, 40)
    errors = [follow(kernel, q, a, round(1 / h), h)[2].abs().mean() for h in (0.02, 0.01)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)  # of second order
    columns = torch.eye(4) * 1e-5
    at = torch.cat([q[:, :1], a[:, :1]])
    ends = torch.cat(follow(kernel, at[:2] + columns[:2], at[2:] + columns[2:], 5, 0.2)[:2])
    middle = torch.cat(follow(kernel, at[:2], at[2:], 5, 0.2)[:2])
    assert torch.linalg.det((ends - middle) / 1e-5) == pytest.approx(1, abs=1e-3)


def test_a_quarter_of_a_period_makes_normal_draws_independent() -> None:
    """With the exact metric and little error the end of a trajectory is the momentum."""
    kernel = bound(normal, full_mass=True, step_size=0.05, jitter=0.0)
    x = torch.randn(3000, 2) @ ROOT.mT
    moved, info = kernel.step(kernel.init({"x": x}))
    assert (info["num_steps"] == math.ceil(math.pi / 2 / 0.05)).all()
    correlation = torch.corrcoef(torch.stack([x[:, 1], moved["x"][:, 1]]))[0, 1]
    assert abs(correlation) < 4 / 3000**0.5 + 0.02  # the last step overshoots by up to 0.02


def test_jitter_is_the_same_for_all_chains_and_anew_for_each_trajectory() -> None:
    kernel = bound(normal, num_steps=3, step_size=0.4, jitter=0.5)
    state = kernel.init({"x": torch.zeros(6, 2)})
    trajectory, sizes = kernel._room(state), []
    for _ in range(50):
        kernel._set_out(state)
        sizes.append(trajectory["step_size"].clone())
    assert all(size.shape == () for size in sizes)
    found = torch.stack(sizes)
    assert 0.2 <= found.min() < 0.25 and 0.55 < found.max() <= 0.6


@pytest.mark.parametrize("outside", [torch.inf, torch.nan])
def test_no_chain_leaves_the_support(outside: float) -> None:
    def potential(values: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.where(values["x"] > 0, values["x"], outside)

    kernel = HMC(potential_fn=potential, num_steps=3, step_size=0.7, compile=False)
    kernel._initial_params = {"x": torch.tensor(1.0)}
    kernel.setup(0)
    state = kernel.init({"x": torch.distributions.Exponential(1.0).sample((3000,))})
    for _ in range(3):
        state, info = kernel.step(state)
    assert (state["x"] > 0).all() and info["diverging"].any()
    assert all(value.isfinite().all() for value in (*state.values(), *info.values()))
    assert stats.kstest(state["x"], "expon").pvalue > FAILURE_RATE


@pytest.mark.parametrize("full_mass", [False, True])
def test_a_warm_up_finds_step_size_and_metric(full_mass: bool) -> None:
    kernel = HMC(normal, full_mass=full_mass, num_steps=3, step_size=50.0, compile="recorded")
    kernel.setup(250)
    state = kernel.warm_up(kernel.init({"x": torch.randn(64, 2)}), 250)
    rates = [kernel.step(state)[1]["accept_prob"].mean() for _ in range(40)]
    assert abs(torch.stack(rates).mean() - 0.8) < 0.08
    scale = kernel.tuning["scale"]
    found = scale @ scale.mT if full_mass else scale.square()
    expected = ROOT @ ROOT.mT if full_mass else (ROOT @ ROOT.mT).diagonal()
    # 64 chains' 100 draws and more, which hang together.
    assert torch.allclose(found, expected, rtol=0.3)


@pytest.mark.parametrize("full_mass", [False, True])
def test_the_metric_is_the_covariance_of_all_draws_seen(full_mass: bool) -> None:
    tuning = metric_tuning(3, full_mass, torch.zeros(()))
    draws = torch.randn(4, 50, 3) @ torch.randn(3, 3) + 1e4
    start_window(tuning, draws[0] + 1)
    for part in draws:
        part[7] = torch.nan
        collect(tuning, part, (torch.arange(50) != 7).double())
    change = end_window(tuning)
    kept = draws[:, torch.arange(50) != 7].reshape(-1, 3)
    covariance = kept.mT.cov()
    shrunk = (196 * covariance + 5e-3 * torch.eye(3)) / 201
    scale = tuning["scale"]
    found = scale @ scale.mT if full_mass else scale.square()
    assert torch.allclose(found, shrunk if full_mass else shrunk.diagonal())
    # The longest step of the old metric, which was the identity, in units of the new one.
    smallest = torch.linalg.eigvalsh(shrunk).min() if full_mass else shrunk.diagonal().min()
    assert change == pytest.approx(float(smallest) ** -0.5)


def test_draws_that_fill_no_space_give_a_diagonal_metric() -> None:
    tuning = metric_tuning(2, True, torch.zeros((), dtype=torch.float32))
    draws = torch.linspace(-1e4, 1e4, 5000, dtype=torch.float32)[:, None].expand(-1, 2)
    start_window(tuning, draws)
    collect(tuning, draws, torch.ones(5000))
    end_window(tuning)
    assert tuning["scale"].isfinite().all() and (tuning["scale"].diagonal() > 1e3).all()


@pytest.mark.slow
def test_compiled_steps_keep_exact_draws_exact() -> None:
    target = EXACT_TARGETS["gamma"]
    kernel = HMC(target.program(), num_steps=2, step_size=0.7)
    assert p_value_of(kernel, target, 3) > FAILURE_RATE
    assert len(kernel.graphs) == 4  # init, and the three parts of a step


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps of 1 or more, got 0"),
        ({"num_steps": 2, "trajectory_length": 1.0}, "got both"),
        ({"trajectory_length": -1.0}, "positive trajectory_length, got -1.0"),
        ({"jitter": 1.0}, r"jitter in \[0, 1\), got 1.0"),
        ({"step_size": 0.0}, "positive step size, got 0.0"),
        ({"target_accept_prob": 1.5}, "between 0 and 1, got 1.5"),
    ],
)
def test_numbers_out_of_range_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HMC(normal, **options)
