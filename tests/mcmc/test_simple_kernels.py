# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What the kernels without a trajectory adapt, and what they do at the edge."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_deepgen.mcmc.kernel import Kernel
from pyro_deepgen.mcmc.langevin import Langevin
from pyro_deepgen.mcmc.mala import MALA
from pyro_deepgen.mcmc.metropolis import choose
from pyro_deepgen.mcmc.random_walk import RandomWalk
from pyro_deepgen.mcmc.slice_sampler import SliceSampler

pytestmark = pytest.mark.usefixtures("float64")
SCALES = torch.tensor([0.01, 1.0, 30.0], dtype=torch.float64)


def stretched() -> None:
    pyro.sample("x", dist.Normal(torch.zeros(3), SCALES).to_event(1))


def truncated() -> None:
    """A density that is 0 below 0, with no transform that would know of it."""
    x = pyro.sample("x", dist.Normal(torch.tensor(0.0), 1.0))
    pyro.factor("positive", torch.where(x > 0, 0.0, -torch.inf))


def accept_rate(kernel: Kernel, state: dict[str, torch.Tensor]) -> float:
    rates = []
    with torch.no_grad():
        for _ in range(20):
            state, info = kernel.step(state)
            rates.append(info["accept_prob"].mean())
    return float(torch.stack(rates).mean())


@pytest.mark.parametrize("cls", [RandomWalk, MALA])
@pytest.mark.parametrize("first", [1e-3, 50.0])
def test_a_warm_up_finds_step_size_and_scales(cls: Any, first: float) -> None:
    argument = {"scale" if cls is RandomWalk else "step_size": first}
    kernel = cls(stretched, compile="recorded", **argument)
    kernel.setup(400)
    with torch.no_grad():
        state = kernel.warm_up(kernel.init({"x": 2 * SCALES * torch.randn(200, 3)}), 400)
    ratio = kernel.tuning["scale"] / SCALES
    assert ratio.max() / ratio.min() < 1.5
    # Over the last 50 steps, whose step sizes are averaged.
    assert abs(accept_rate(kernel, state) - (0.234 if cls is RandomWalk else 0.574)) < 0.05


def test_a_warm_up_finds_the_widths_of_slices() -> None:
    kernel = SliceSampler(stretched, compile="recorded")
    kernel.setup(25)
    with torch.no_grad():
        state = kernel.init({"x": SCALES * torch.randn(100, 3)})
        cost = kernel.step(state)[1]["num_steps"].sum()
        state = kernel.warm_up(state, 25)
        assert kernel.step(state)[1]["num_steps"].sum() < cost
    assert torch.allclose(kernel.tuning["scale"], SCALES, rtol=0.3)


@pytest.mark.parametrize(
    "kernel",
    [
        RandomWalk(truncated, scale=1.0, compile=False),
        MALA(truncated, step_size=1.0, compile=False),
        SliceSampler(truncated, compile=False),
    ],
)
def test_no_chain_leaves_the_support(kernel: Kernel) -> None:
    kernel.setup(0)
    state = kernel.init({"x": torch.rand(500)})
    with torch.no_grad():
        for _ in range(10):
            state, info = kernel.step(state)
            assert (state["x"] > 0).all()
            assert state["x"].unique().numel() > 400
    assert all(value.isfinite().all() for value in info.values())


def test_what_is_no_number_is_rejected() -> None:
    ratio = torch.tensor([torch.nan, -torch.inf, torch.inf, 0.0])
    state, info = choose(ratio, {"x": torch.ones(4, 2)}, {"x": torch.zeros(4, 2)})
    assert info["accept_prob"].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert state["x"][:, 0].tolist() == [0.0, 0.0, 1.0, 1.0]


def test_langevin_stays_where_its_gradient_would_be_infinite() -> None:
    def explosive() -> None:
        x = pyro.sample("x", dist.Normal(torch.tensor(0.0), 1.0))
        pyro.factor("explosive", -torch.exp(x**2))

    kernel = Langevin(explosive, step_size=2.0, compile=False)
    kernel.setup(0)
    state, info = kernel.step(kernel.init({"x": torch.tensor([0.0, 5.0])}))
    assert info["diverging"].tolist() == [False, True]
    assert state["x"][1] == 5.0


def test_langevin_may_cool_down_in_place() -> None:
    kernel = Langevin(stretched, step_size=0.01, temperature=4.0, compile="recorded")
    kernel.setup(0)
    state = kernel.init({"x": torch.zeros(1000, 3)})
    warm = kernel.step(state)[0]["x"].std()
    kernel.tuning["temperature"].fill_(1.0)
    cold = kernel.step(state)[0]["x"].std()
    assert len(kernel.graphs) == 2  # init and step
    # 3,000 draws each, so the ratio has a standard error of 2 (2 / 6,000)^0.5
    assert abs(float(warm / cold) - 2) < 4 * 2 * (1 / 3000) ** 0.5


def test_slices_are_found_from_far_away_and_in_narrow_places() -> None:
    for scale in (1e-3, 1e2):
        kernel = SliceSampler(dist_of(scale), width=2.0, max_widenings=200, compile=False)
        kernel.setup(0)
        state = kernel.init({"x": torch.zeros(4000)})
        for _ in range(8):  # a step forgets nearly all
            state, _ = kernel.step(state)
        assert abs(float(state["x"].std()) / scale - 1) < 4 * (1 / 8000) ** 0.5


def dist_of(scale: float) -> Any:
    return lambda: pyro.sample("x", dist.Normal(torch.tensor(0.0), scale))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomWalk(stretched, scale=0.0), "positive step size, got 0.0"),
        (lambda: MALA(stretched, target_accept=1.0), "target_accept between 0 and 1, got 1.0"),
        (lambda: Langevin(stretched, step_size=-1.0), "positive step_size, got -1.0"),
        (lambda: Langevin(stretched, temperature=-1.0), "temperature of 0 or more, got -1.0"),
        (lambda: SliceSampler(stretched, along="x"), "'coordinates' or 'directions', got 'x'"),
        (lambda: SliceSampler(stretched, max_shrinkages=0), "1 or more"),
    ],
)
def test_numbers_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
@pytest.mark.parametrize("cls", [MALA, SliceSampler])
def test_compiled_steps_have_the_same_law(cls: Any) -> None:
    kernel = cls(lambda: pyro.sample("x", dist.Normal(torch.tensor(1.0), 2.0)))
    kernel.setup(0)
    state = kernel.init({"x": 1 + 2 * torch.randn(4000)})
    for _ in range(3):
        state, _ = kernel.step(state)
    assert abs(float(state["x"].mean()) - 1) < 4 * 2 / 4000**0.5
    assert abs(float(state["x"].std()) - 2) < 4 * 2 / 8000**0.5
