# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What NUTS does beyond its trees: chains out of step, draws, info, adaptation, and edges."""

from typing import Any
from unittest import mock

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from pyro_deepgen.mcmc.gibbs import Gibbs
from pyro_deepgen.mcmc.nuts import NUTS
from pyro_deepgen.mcmc.run import run
from tests.mcmc.exact_targets import FAILURE_RATE

pytestmark = pytest.mark.usefixtures("float64")


def banana() -> None:
    """Trajectories of very different lengths."""
    x = pyro.sample("x", dist.Normal(torch.tensor(0.0), 2.0))
    pyro.sample("y", dist.Normal(x**2, 0.5))


def normal(dim: int = 3) -> Any:
    scales = torch.tensor([0.1, 1.0, 10.0])[:dim]
    return lambda: pyro.sample("x", dist.Normal(torch.zeros(dim), scales).to_event(1))


def started(kernel: NUTS, num_chains: int) -> Any:
    kernel.setup(0)
    shapes = kernel.target.shapes(kernel.sites)
    return kernel.init({name: torch.zeros(num_chains, *shape) for name, shape in shapes.items()})


def fan() -> None:
    """Trajectories are long where it is wide, which is at large x."""
    x = pyro.sample("x", dist.Normal(torch.tensor(0.0), 1.0))
    pyro.sample("y", dist.Normal(torch.tensor(0.0), x.exp()))


def test_chains_out_of_step_have_the_law_of_chains_in_step() -> None:
    """The third draw from one start: when chains run ahead, and when they wait each time."""
    kernel = NUTS(fan, step_size=0.5, max_tree_depth=6, compile="recorded")
    state = started(kernel, 2000)
    _, draws, info = kernel.advance(state, 3)
    waiting = state
    for _ in range(3):
        waiting, _ = kernel.step(waiting)
    cost = info["num_steps"].double().sum(0)
    assert cost.max() > 2 * cost.mean()  # they did run ahead
    for name in ("x", "y"):
        assert stats.ks_2samp(draws[name][-1], waiting[name]).pvalue > FAILURE_RATE / 2
    # Had the slow chains not been waited for at the end, the wide places would be missed.
    early = draws["x"][-1][cost <= cost.quantile(0.5)]
    assert stats.ks_2samp(early, waiting["x"]).pvalue < FAILURE_RATE


def test_one_chain_alone_has_the_law_of_many() -> None:
    scales = torch.tensor([0.5, 1.0, 2.0])
    kernel = NUTS(
        lambda: pyro.sample("x", dist.Normal(torch.zeros(3), scales).to_event(1)),
        step_size=0.5,
        compile="recorded",
    )
    # Every third draw of one chain is nearly independent of the one before.
    alone = kernel.advance(started(kernel, 1), 330)[1]["x"][30::3, 0]
    many = kernel.advance(started(kernel, 500), 8)[1]["x"][-1]
    for values in (alone, many):
        uniform = torch.distributions.Normal(0.0, scales).cdf(values)
        assert min(stats.kstest(column, "uniform").pvalue for column in uniform.T) > FAILURE_RATE


def test_thinned_draws_are_every_nth_of_the_same_chain() -> None:
    kernel = NUTS(banana, step_size=0.4, compile=False)
    state = started(kernel, 20)
    pyro.set_rng_seed(3)
    last, draws, info = kernel.advance(state, 6)
    pyro.set_rng_seed(3)
    thinned_last, thinned, thinned_info = kernel.advance(state, 2, thinning=3)
    assert torch.equal(draws["x"][2::3], thinned["x"])
    assert all(torch.equal(info[name][2::3], thinned_info[name]) for name in info)
    assert all(torch.equal(last[name], thinned_last[name]) for name in last)


def test_blocks_shorter_than_asked_for_go_on_where_they_stopped() -> None:
    kernel = NUTS(banana, step_size=0.4, compile=False)
    with mock.patch("pyro_deepgen.mcmc.nuts.MAX_ROWS", 4):
        reports: list[int] = []
        last, draws, info = kernel.advance(
            started(kernel, 5), 10, report=lambda n, info: reports.append(n)
        )
    assert draws["x"].shape == info["energy"].shape == (10, 5)
    assert sum(reports) == 10
    assert torch.equal(draws["y"][-1], last["y"])
    assert (draws["x"][1:] != draws["x"][:-1]).any(1).all()
    assert kernel.advance(last, 0)[0] is last


def test_resumed_chains_are_those_of_one_run_with_the_same_blocks() -> None:
    options: Any = {"max_tree_depth": 3, "compile": False}
    kernel = NUTS(banana, **options)
    sizes: Any = {"num_chains": 4, "warmup_steps": 12, "progress": False, "block_size": 10}
    whole = run(kernel, 20, **sizes)
    pyro.set_rng_seed(20240607)
    other = NUTS(banana, **options)
    half = run(other, 10, **sizes)
    rest = run(NUTS(banana, **options), 10, resume=half, progress=False)
    both = half.followed_by(rest).samples
    assert all(torch.equal(both[name], whole.samples[name]) for name in both)


def test_info_is_of_the_draws() -> None:
    kernel = NUTS(banana, step_size=0.5, max_tree_depth=4, compile=False)
    state, draws, info = kernel.advance(started(kernel, 40), 6)
    for i in range(6):
        values = {name: draws[name][i] for name in draws}
        assert torch.allclose(kernel.target.potential(values), info["potential"][i])
    kinetic = info["energy"] - info["potential"]
    assert (kinetic >= 0).all() and (info["tree_depth"] <= 4).all()
    assert (info["num_steps"] >= 2 ** info["tree_depth"] - 1).all()
    assert (info["num_steps"] <= 15).all() and (info["num_steps"] == 15).any()
    assert ((info["accept_prob"] >= 0) & (info["accept_prob"] <= 1)).all()
    assert info["diverging"].dtype == torch.bool
    again = kernel.init(kernel.values(state))
    assert all(torch.allclose(state[name], again[name]) for name in state)


def test_the_kinetic_energy_at_a_draw_has_its_law() -> None:
    """In a normal law of 3 dimensions it is half a chi-square of 3 degrees."""
    law = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    kernel = NUTS(lambda: pyro.sample("x", law), step_size=0.3, compile="recorded")
    kernel.setup(0)
    state = kernel.init({"x": torch.randn(3000, 3)})
    _, _, info = kernel.advance(state, 1)
    kinetic = (info["energy"] - info["potential"])[0]
    assert stats.kstest(2 * kinetic, stats.chi2(3).cdf).pvalue > FAILURE_RATE


def test_the_depth_may_change_between_draws() -> None:
    kernel = NUTS(normal(), step_size=0.02, max_tree_depth=1, compile="recorded")
    state = started(kernel, 8)
    assert (kernel.advance(state, 3)[2]["num_steps"] == 1).all()
    kernel.max_tree_depth = 5
    steps = kernel.advance(state, 3)[2]["num_steps"]
    assert steps.max() == 31


@pytest.mark.parametrize("outside", [torch.inf, torch.nan])
def test_no_chain_leaves_the_support(outside: float) -> None:
    def potential(values: dict[str, torch.Tensor]) -> torch.Tensor:
        x = values["x"]
        return torch.where(x > 0, x, outside)

    kernel = NUTS(potential_fn=potential, step_size=1.0, compile=False)
    kernel._initial_params = {"x": torch.tensor(1.0)}
    kernel.setup(0)
    state = kernel.init({"x": torch.distributions.Exponential(1.0).sample((3000,))})
    _, draws, info = kernel.advance(state, 3)
    assert (draws["x"] > 0).all() and info["diverging"].any()
    assert all(value.isfinite().all() for value in info.values())
    assert stats.kstest(draws["x"][-1], "expon").pvalue > FAILURE_RATE


@pytest.mark.parametrize("full_mass", [False, True])
def test_a_warm_up_finds_step_size_and_metric(full_mass: bool) -> None:
    root = torch.tensor([[0.4, 0.0, 0.0], [0.9, 0.5, 0.0], [2.0, -1.0, 1.5]])
    law = dist.MultivariateNormal(torch.zeros(3), scale_tril=root)
    kernel = NUTS(lambda: pyro.sample("x", law), full_mass=full_mass, compile="recorded")
    kernel.setup(150)
    state = kernel.warm_up(kernel.init({"x": torch.randn(32, 3)}), 150)
    info = kernel.advance(state, 30)[2]
    assert abs(info["accept_prob"].mean() - 0.8) < 0.08  # by the 50 steps at the end
    scale = kernel.tuning["scale"]
    found = scale @ scale.mT if full_mass else scale.square().diag()
    expected = law.covariance_matrix if full_mass else law.variance.diag()
    # Of some hundreds of draws that hang together.
    assert (found.diagonal() / expected.diagonal() - 1).abs().max() < 0.6
    if full_mass:
        assert info["num_steps"].double().mean() < 8
        correlations = [m / m.diagonal().outer(m.diagonal()).sqrt() for m in (found, expected)]
        assert (correlations[0] - correlations[1]).abs().max() < 0.15
    after = kernel.tuning_dict()
    kernel.advance(state, 2)
    assert all(torch.equal(after[name], value) for name, value in kernel.tuning.items())


def test_it_moves_its_own_sites_only() -> None:
    kernel = NUTS(banana, sites=["y"], step_size=0.4, compile=False)
    kernel.setup(0)
    x = torch.linspace(-2.0, 2.0, 3000)
    state = kernel.init({"x": x, "y": x**2 + 0.5 * torch.randn(3000)})
    state, draws, _ = kernel.advance(state, 2)
    assert torch.equal(state["x"], x) and torch.equal(draws["x"][0], x)
    assert stats.kstest((state["y"] - x**2) / 0.5, "norm").pvalue > FAILURE_RATE


def test_within_gibbs_it_adapts_too() -> None:
    """Given x, y is normal with the standard deviation 0.5."""
    parts = [
        NUTS(banana, max_tree_depth=3, full_mass=full_mass, compile="recorded")
        for full_mass in (False, True)
    ]
    kernel = Gibbs([(parts[0], "x"), (parts[1], "y")])
    kernel.setup(80)
    start = {"x": torch.linspace(-1.0, 1.0, 30), "y": torch.linspace(-1.0, 1.0, 30).square()}
    state = kernel.warm_up(kernel.init(start), 80)
    for part in parts:
        assert part.tuning["adapting"] == 0 and part.tuning["collecting"] == 0
        assert part.tuning["step_size"] != 1 and (part.tuning["scale"] != 1).all()
    rates = torch.stack([kernel.step(state)[1]["NUTS_2.accept_prob"] for _ in range(20)])
    assert abs(rates.mean() - 0.8) < 0.15  # by the 8 steps at the end


@pytest.mark.parametrize("depth", [0, 21])
def test_numbers_out_of_range_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"max_tree_depth of 1 to 20, got {depth}"):
        NUTS(banana, max_tree_depth=depth)


@pytest.mark.slow
def test_compiled_chains_have_the_same_law() -> None:
    kernel = NUTS(normal(), step_size=0.15)
    exact = torch.distributions.Normal(0.0, torch.tensor([0.1, 1.0, 10.0]))
    kernel.setup(0)
    _, draws, info = kernel.advance(kernel.init({"x": exact.sample((2000,))}), 4)
    p_values = [stats.kstest(u, "uniform").pvalue for u in exact.cdf(draws["x"][-1]).T]
    assert min(p_values) > FAILURE_RATE
    # The same counts as without the compiler: no chain has lost or won a draw.
    assert (info["num_steps"] >= 2 ** info["tree_depth"] - 1).all()
    kept = kernel.init({"x": draws["x"][-1]})
    assert torch.allclose(info["potential"][-1], kept["~potential"])
