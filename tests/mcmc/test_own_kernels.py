# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What is said of a kernel of a user's own that returns what it must not."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC

from pyro_deepgen import mcmc
from pyro_deepgen.mcmc.compiled import compiled
from pyro_deepgen.mcmc.kernel import Kernel
from pyro_deepgen.mcmc.run import run
from pyro_deepgen.mcmc.state import Info, State
from pyro_deepgen.tracing import TracingError
from tests.mcmc.walk import Walk

Step = Callable[[State], Any]


def model() -> None:
    pyro.sample("a", dist.Normal(0.0, 1.0))
    pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))


class Mine(Kernel):
    """Does what it is told."""

    doing: Step

    def step(self, state: State) -> tuple[State, Info]:
        result: tuple[State, Info] = self.doing(state)
        return result


def mine(doing: Step) -> Mine:
    kernel = Mine(model, compile=False)
    kernel.doing = doing
    return kernel


WRONG: dict[str, Step] = {
    r"Mine.step must return a pair \(state, info\), got None": lambda s: None,
    r"Mine.step must return a pair \(state, info\), got a dict": lambda s: s,
    "Mine.step must return a pair .* got a tuple of 3": lambda s: (s, {}, 1),
    "Mine.step must return a state, .* got a tensor of shape": lambda s: (s["a"], {}),
    "Mine.step must return all sites, .* has no 'b', only": lambda s: ({"a": s["a"]}, {}),
    "Mine.step must return a tensor for the site 'b', got a float": lambda s: (s | {"b": 1.0}, {}),
    r"the site 'b' as it was, \(5, 3\) .* got \(3,\)": lambda s: (s | {"b": s["b"][0]}, {}),
    r"the site 'a' as it was, .* got \(5, 1\)": lambda s: (s | {"a": s["a"][:, None]}, {}),
    "the site 'a' as it was, .* got .*float64": lambda s: (s | {"a": s["a"].double()}, {}),
    "Mine.step must return a dictionary as info, got None": lambda s: (s, None),
    r"one number a chain, \(5,\), as info 'rate', got a float": lambda s: (s, {"rate": 0.5}),
    r"as info 'rate', got a tensor of shape \(\)": lambda s: (s, {"rate": s["a"].mean()}),
}


@pytest.mark.parametrize("message", list(WRONG))
@pytest.mark.parametrize("warmup_steps", [0, 1])
def test_kernel_and_site_are_named(message: str, warmup_steps: int) -> None:
    with pytest.raises(ValueError, match=message):
        run(mine(WRONG[message]), 2, warmup_steps, 5, progress=False)


def test_under_pyro_they_are_named_too() -> None:
    with pytest.raises(ValueError, match=r"Mine.step must return all sites, .* has no 'b'"):
        MCMC(mine(lambda s: ({"a": s["a"]}, {})), 2, 0, disable_progbar=True).run()


def test_a_wrong_init_is_named() -> None:
    class Forgets(Walk):
        def init(self, state: State) -> State:
            return {"a": state["a"]}

    with pytest.raises(
        ValueError, match=r"Forgets.init must return all sites, .* no 'b', only \['a"
    ):
        run(Forgets(model, compile=False), 2, 0, 5, progress=False)
    with pytest.raises(ValueError, match=r"Forgets.init must return all sites"):
        MCMC(Forgets(model, compile=False), 2, 0, disable_progbar=True).run()


def test_what_is_right_passes_and_may_tell_nothing() -> None:
    chains = run(mine(lambda s: (s, {})), 2, 0, 5, progress=False)
    assert chains.info == {} and chains.samples["b"].shape == (5, 2, 3)


@pytest.mark.parametrize("read", [float, bool, torch.Tensor.tolist, lambda x: x[x > 0]])
def test_what_is_no_graph_is_told_with_a_kernel_s_way_out(read: Callable[[Any], Any]) -> None:
    class Reads(Walk):
        @compiled
        def step(self, state: State) -> tuple[State, Info]:
            read(state["a"].sum(0, keepdim=True))
            return state, {}

    with pytest.raises(TracingError, match=r"test_own_kernels.py, line \d+, ") as error:
        run(Reads(model, compile="recorded"), 2, 0, 5, progress=False)
    assert "or make the kernel with compile=False" in str(error.value)
    assert "SVI" not in str(error.value)
    assert run(Reads(model, compile=False), 2, 0, 5, progress=False).num_samples == 2


def test_a_step_may_end_with_the_package_s_choice() -> None:
    class Shifts(Kernel):
        """Metropolis with a normal proposal for one site."""

        def step(self, state: State) -> tuple[State, Info]:
            moved = {"a": state["a"] + torch.randn_like(state["a"])}
            loss = self.target.potential(state) - self.target.potential(state | moved)
            return mcmc.choose(loss, moved, state)

    kernel = Shifts(lambda: pyro.sample("a", dist.Normal(3.0, 1.0)), compile=False)
    draws = run(kernel, 1, 30, 2000, progress=False).samples["a"]
    assert abs(float(draws.mean()) - 3) < 4 / 2000**0.5
    assert abs(float(draws.var()) - 1) < 4 * (2 / 2000) ** 0.5
