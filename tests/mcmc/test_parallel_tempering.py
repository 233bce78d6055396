# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Parallel tempering where a single chain stays in one mode; its law is in test_invariance.py."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_deepgen.mcmc.block_gibbs import BlockGibbs
from pyro_deepgen.mcmc.discrete_gibbs import DiscreteGibbs
from pyro_deepgen.mcmc.gibbs import Gibbs
from pyro_deepgen.mcmc.hmc import HMC
from pyro_deepgen.mcmc.kernel import Kernel
from pyro_deepgen.mcmc.parallel_tempering import REPLICA, ParallelTempering
from pyro_deepgen.mcmc.random_walk import RandomWalk
from tests.mcmc.boltzmann import Machine, RestrictedMachine, all_states
from tests.mcmc.rows_tempering import SwapsBackwards

pytestmark = pytest.mark.usefixtures("float64")
WEIGHT, CHAINS = 0.3, 400
LADDER = [1.0, 2.5, 6.0, 15.0, 40.0]


def two_modes() -> dist.TorchDistribution:
    """Modes 16 standard deviations apart, the left one with a weight of 0.3."""
    weights = torch.tensor([WEIGHT, 1 - WEIGHT]).log()
    return dist.MixtureOfDiagNormals(torch.tensor([[-8.0], [8.0]]), torch.ones(2, 1), weights)


def fraction_on_the_left(kernel: Kernel, num_draws: int = 60) -> float:
    """Of the last draws of chains that all started from the left mode."""
    kernel.setup(100)
    state = kernel.init({"x": torch.full((CHAINS, 1), -8.0)})
    with torch.no_grad():
        state = kernel.warm_up(state, 100)
        _, draws, _ = kernel.advance(state, num_draws)
    return float((draws["x"][-1] < 0).double().mean())


def agrees(fraction: float, exact: float = WEIGHT) -> bool:
    """Within 4 standard errors of independent chains: fails once in 16,000 times."""
    return abs(fraction - exact) < 4 * (exact * (1 - exact) / CHAINS) ** 0.5


@pytest.mark.parametrize("inner", [RandomWalk, HMC])
def test_replicas_cross_between_modes(inner: Any) -> None:
    alone = HMC(
        two_modes(), num_steps=5, step_size=0.3, adapt_step_size=False, adapt_mass_matrix=False,
        compile=False,
    )  # fmt: skip
    assert fraction_on_the_left(alone, 10) == 1.0
    kernel = ParallelTempering(inner(two_modes(), compile="recorded"), LADDER)
    assert agrees(fraction_on_the_left(kernel))


def test_swaps_by_the_inverse_ratio_are_found() -> None:
    kernel = SwapsBackwards(RandomWalk(two_modes(), compile=False), LADDER)
    kernel.setup(0)
    state = {"x": torch.full((CHAINS, 1), -8.0)}
    state[REPLICA + "x"] = state["x"][:, None].expand(-1, len(LADDER), -1)
    state = kernel.init(state)
    _, draws, _ = kernel.advance(state, 60)
    assert not agrees(float((draws["x"][-1].abs() < 12).double().mean()), 1 - 1e-4)


def test_temperatures_get_step_sizes_of_their_own() -> None:
    kernel = ParallelTempering(RandomWalk(two_modes(), compile=False), LADDER)
    kernel.setup(150)
    state = kernel.warm_up(kernel.init({"x": torch.full((50, 1), 8.0)}), 150)
    assert (kernel.step_scales[1:] > kernel.step_scales[:-1]).all()
    probs = torch.zeros(len(LADDER))
    for _ in range(30):
        state, _ = kernel.step(state)
        kernel.start_warmup(state, 0)
    kernel_state = kernel.inner(state)
    for _ in range(30):
        kernel_state, info = kernel.kernel.step(kernel_state)
        probs += info["accept_prob"].view(50, -1).mean(0) / 30
    assert (probs.max() - probs.min()) < 0.2


def model(x: torch.Tensor) -> None:
    """A label and a location, which are known only together."""
    label = pyro.sample("label", dist.Bernoulli(torch.tensor(0.4)))
    loc = pyro.sample("loc", dist.Normal(torch.tensor(0.0), 3.0))
    pyro.sample("x", dist.Normal(loc + 4.0 * (2 * label - 1), 0.2), obs=x)


def test_gibbs_inside_crosses_by_the_prior() -> None:
    """A label whose change needs that of a location: Gibbs alone never changes both."""
    x = torch.tensor(1.0)
    # p(label | x): the evidence of x is normal given the label.
    evidence = dist.Normal(torch.tensor([-4.0, 4.0]), (9.0 + 0.04) ** 0.5).log_prob(x)
    exact = float((evidence + torch.tensor([0.6, 0.4]).log()).softmax(0)[1])

    def gibbs() -> Gibbs:
        return Gibbs(
            [
                (RandomWalk(model, scale=0.3, compile="recorded"), "loc"),
                (DiscreteGibbs(model, compile="recorded"), "label"),
            ]
        )

    start = {"label": torch.ones(CHAINS), "loc": torch.full((CHAINS,), -3.0)}
    alone = gibbs()
    alone.setup(0, x)
    _, draws, _ = alone.advance(alone.init(start), 20)
    assert (draws["label"][-1] == 1).all()

    ladder = [1.0, 4.0, 16.0, 60.0, 250.0, float("inf")]
    kernel = ParallelTempering(gibbs(), ladder, base="prior")
    kernel.setup(100, x)
    state = kernel.warm_up(kernel.init(start), 100)
    state, draws, _ = kernel.advance(state, 150)
    assert agrees(float(draws["label"][-1].mean()), exact)
    # The hottest replicas are draws from the prior, as the base says.
    assert agrees(float(state[REPLICA + "label"][:, -1].mean()), 0.4)


def test_discrete_machines_are_tempered() -> None:
    target = Machine(5, 1.5)
    kernel = ParallelTempering(DiscreteGibbs(target, compile=False), [1.0, 2.0, 4.0])
    kernel.setup(0)
    _, draws, _ = kernel.advance(kernel.init({"x": torch.zeros(2000, 5)}), 30)
    states = all_states(5)
    exact = (-target.energy(states)).softmax(0) @ states
    error = (exact * (1 - exact) / 2000).sqrt()
    assert ((draws["x"][-1].mean(0) - exact).abs() < 4.5 * error).all()


def test_a_path_of_its_own_is_followed() -> None:
    target = RestrictedMachine(5, 4, 2.0)
    inner = BlockGibbs(target, target, compile=False)
    kernel = ParallelTempering(inner, [1.0, 2.0, 5.0, float("inf")], base="prior")
    kernel.setup(0)
    _, draws, _ = kernel.advance(kernel.init({"x": torch.zeros(2000, 5)}), 30)
    states = all_states(5)
    exact = (-target.energy(states)).softmax(0) @ states
    error = (exact * (1 - exact) / 2000).sqrt()
    assert ((draws["x"][-1].mean(0) - exact).abs() < 4.5 * error).all()


def test_state_goes_on_from_where_it_was() -> None:
    kernel = ParallelTempering(RandomWalk(two_modes(), compile=False), LADDER)
    kernel.setup(0)
    state, _, _ = kernel.advance(kernel.init({"x": torch.zeros(7, 1)}), 5)
    again = kernel.init(state)
    assert all(torch.equal(again[name], value) for name, value in state.items())
    tuning = kernel.tuning_dict()
    other = ParallelTempering(RandomWalk(two_modes(), compile=False), LADDER)
    other.setup(0)
    other.load_tuning({name: value + 1 for name, value in tuning.items()})
    loaded = other.tuning_dict()
    assert any(name.startswith("kernel.") for name in tuning)
    assert all(torch.equal(loaded[name], value + 1) for name, value in tuning.items())


def test_origins_are_a_permutation_and_info_is_by_chain() -> None:
    kernel = ParallelTempering(RandomWalk(two_modes(), compile=False), [1.0, 2.0])
    kernel.setup(0)
    state, _, info = kernel.advance(kernel.init({"x": torch.zeros(6, 1)}), 20)
    assert (state["~origin"].sort(1).values == torch.arange(2)).all()
    assert all(value.shape == (20, 6) for value in info.values())
    assert info["swap_accept_prob"].isfinite().all() and (info["origin"] == 1).any()


@pytest.mark.parametrize(
    ("temperatures", "base", "words"),
    [
        ([1.0], None, "rise"),
        ([2.0, 4.0], None, "begin with 1"),
        ([1.0, 3.0, 2.0], None, "rise"),
        ([1.0, float("inf")], None, "infinite temperature"),
    ],
)
def test_wrong_temperatures_are_told(temperatures: list[float], base: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ParallelTempering(RandomWalk(two_modes(), compile=False), temperatures, base=base)


def test_a_part_of_the_sites_is_refused() -> None:
    kernel = ParallelTempering(RandomWalk(model, compile=False), [1.0, 2.0])
    both = Gibbs([(kernel, "loc"), (DiscreteGibbs(model, compile=False), "label")])
    with pytest.raises(ValueError, match="put Gibbs inside of ParallelTempering"):
        both.setup(0, torch.tensor(1.0))
    with pytest.raises(ValueError, match='expected base=None, "prior"'):
        ParallelTempering(RandomWalk(two_modes()), [1.0, 2.0], base="priro").setup(0)
