# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The climb to a trajectory length, its sequence of lengths, and its edges."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_deepgen.mcmc.chees import COUNT, ChEES, van_der_corput
from pyro_deepgen.mcmc.parallel_tempering import ParallelTempering
from pyro_deepgen.mcmc.run import run
from pyro_deepgen.mcmc.tempered_transitions import TemperedTransitions
from tests.mcmc.exact_targets import EXACT_TARGETS, FAILURE_RATE, p_value_of

pytestmark = pytest.mark.usefixtures("float64")


def standard() -> None:
    pyro.sample("x", dist.Normal(torch.zeros(10), 1.0).to_event(1))


def correlated() -> None:
    """A diagonal metric leaves it 20 times as long as it is wide."""
    covariance = torch.tensor([[1.0, 0.995], [0.995, 1.0]])
    pyro.sample("x", dist.MultivariateNormal(torch.zeros(2), covariance))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("time", [0.4, 1.2, 2.2])
def test_the_climb_is_along_the_gradient(time: float, sign: float) -> None:
    """For a normal law of D dimensions the criterion is D sin(t)^2, whose slope is D sin(2 t)."""
    kernel = ChEES(standard, compile=False)
    kernel.setup(0)
    z, a = torch.randn(10, 20_000), torch.randn(10, 20_000)
    end, momentum = z * math.cos(time) + a * math.sin(time), a * math.cos(time) - z * math.sin(time)
    far, near = end.square().sum(0), z.square().sum(0)
    error = ((far - near) * (end * momentum).sum(0)).std() / 20_000**0.5
    accept = torch.ones(20_000)
    share = torch.tensor(1.0)
    gradient = kernel._climb(z.mT, end, sign * momentum, accept, share)
    slope = 10 * math.sin(2 * time)
    assert (abs(gradient - slope) < 4 * error + 0.01) == (sign > 0)  # a flipped sign is found


def test_the_climb_leaves_out_what_is_not_finite() -> None:
    kernel = ChEES(standard, compile=False)
    kernel.setup(0)
    q, end, a = torch.randn(30, 10), torch.randn(10, 30), torch.randn(10, 30)
    accept, share = torch.rand(30), torch.tensor(0.5)
    accept[3:5] = 0.0
    expected = kernel._climb(q, end, a, accept, share)
    end[:, 3], a[:, 4] = torch.nan, torch.inf
    assert torch.allclose(kernel._climb(q, end, a, accept, share), expected)
    assert kernel._climb(q, end * torch.nan, a, accept, share) == 0


def test_it_learns_longer_trajectories_where_these_are_needed() -> None:
    """With shares h of (0, 1) the slope is the mean of h D sin(2 h T), and 0 at tan(2 T) = 2 T.

    So T is 2.25 in units of the widest direction, which is 2^0.5 after the metric is set; less by
    about half a step, since trajectories are rounded up to whole ones.
    """
    for model, dim, widest in ((standard, 10, 1.0), (correlated, 2, 2**0.5)):
        kernel = ChEES(model, compile="recorded")
        kernel.setup(200)
        kernel.warm_up(kernel.init({"x": torch.randn(64, dim)}), 200)
        length = kernel.tuning["trajectory_length"] + 0.5 * kernel.tuning["step_size"]
        assert abs(length / widest / 2.25 - 1) < 0.35, (length, kernel.tuning["step_size"])


def test_where_the_sequence_stands_is_part_of_the_state() -> None:
    kernel = ChEES(standard, trajectory_length=4.0, step_size=0.5, compile=False)
    kernel.setup(0)
    state = kernel.init({"x": torch.randn(5, 10)})
    first, steps = int(state[COUNT][0]), []
    for _ in range(4):
        state, info = kernel.step(state)
        state = kernel.init(state)  # as Gibbs does
        steps.append(int(info["num_steps"][0]))
    expected = [math.ceil(8 * van_der_corput(first + i + 1)) for i in range(4)]
    assert steps == expected and (state[COUNT] == first + 4).all()


def test_resumed_chains_are_those_of_one_run() -> None:
    whole = run(ChEES(standard, compile=False), 12, 30, 6, progress=False)
    pyro.set_rng_seed(20240607)
    half = run(ChEES(standard, compile=False), 6, 30, 6, progress=False)
    rest = run(ChEES(standard, compile=False), 6, resume=half, progress=False)
    assert torch.equal(half.followed_by(rest).samples["x"], whole.samples["x"])


@pytest.mark.slow
def test_compiled_steps_keep_exact_draws_exact() -> None:
    target = EXACT_TARGETS["gamma"]
    kernel = ChEES(target.program(), trajectory_length=1.5, step_size=0.7)
    assert p_value_of(kernel, target, 3) > FAILURE_RATE
    assert len(kernel.graphs) >= 4  # init, and the parts of a step


def test_the_sequence_fills_the_interval() -> None:
    shares = sorted(van_der_corput(index) for index in range(1, 256))
    assert shares == [place / 256 for place in range(1, 256)]


@pytest.mark.parametrize("tempering", [ParallelTempering, TemperedTransitions])
def test_lengths_differ_where_each_step_begins_anew(tempering: Any) -> None:
    """A length of whole periods would hold every chain where it is."""
    inner = ChEES(
        standard,
        step_size=0.1,
        trajectory_length=4 * math.pi,
        adapt_trajectory_length=False,
        adapt_step_size=False,
        compile=False,
    )
    kernel = tempering(inner, [1.0, 1.5])
    kernel.setup(0)
    state = kernel.init({"x": torch.full((4, 10), 3.0)})
    shares = set()
    for _ in range(8):
        state, _ = kernel.step(state)
        shares.add(inner._share)
    assert len(shares) > 4


def test_too_few_chains_to_learn_from_are_refused() -> None:
    kernel = ChEES(standard, compile=False)
    with pytest.raises(ValueError, match=r"4 chains or more .* got 3: run more, or use NUTS"):
        run(kernel, 5, num_chains=3, progress=False)
    kernel = ChEES(standard, adapt_trajectory_length=False, compile=False)
    assert run(kernel, 5, num_chains=3, progress=False).num_samples == 5
    with pytest.raises(ValueError, match="positive trajectory_length, got 0"):
        ChEES(standard, trajectory_length=0.0)
