# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Changes that a graph would not notice by itself: modules, optimisers, masks, surroundings."""

import copy
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn

from pyro_deepgen.infer import CompiledSVI
from pyro_deepgen.tracing import trace
from pyro_deepgen.tracing.scalars import compute_scalars_once


class Holder(nn.Module):
    """A model that looks at its own state, given as a bound method."""

    def __init__(self) -> None:
        super().__init__()
        self.net: nn.Module = nn.Linear(3, 1)
        self.register_buffer("beta", torch.tensor(1.0))
        self.register_buffer("seen", torch.tensor([True, False, True, True]))

    def model(self, x: torch.Tensor) -> None:
        pyro.module("holder", self)
        x = x[self.seen]
        scale = 2.0 if self.beta.item() > 0.5 else 1.0
        if self.training:
            scale = scale + 1.0
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(self.net(x).squeeze(-1), scale), obs=x[:, 0])

    def guide(self, x: torch.Tensor) -> None:
        """No latent variables."""


def evaluation(holder: Holder) -> None:
    holder.eval()


def other_net(holder: Holder) -> None:
    holder.net = nn.Linear(3, 1)


def other_value(holder: Holder) -> None:
    holder.beta.fill_(0.0)


def other_mask(holder: Holder) -> None:
    holder.seen.logical_not_()


def other_buffer(holder: Holder) -> None:
    holder.beta = torch.tensor(0.0)


@pytest.mark.parametrize("change", [evaluation, other_net, other_value, other_mask, other_buffer])
def test_a_change_of_the_object_behind_a_bound_method(change: Callable[[Holder], None]) -> None:
    holder, x = Holder(), torch.randn(4, 3)
    optim = pyro.optim.Adam({"lr": 0.1})
    svi = CompiledSVI(holder.model, holder.guide, optim, Trace_ELBO(), backend=None)
    for _ in range(3):
        svi.step(x)
    before = svi.evaluate_loss(x)
    change(holder)
    expected = float(Trace_ELBO().loss(holder.model, holder.guide, x))
    assert svi.evaluate_loss(x) == pytest.approx(expected, rel=1e-10)
    assert before != pytest.approx(expected, rel=1e-3)


def start() -> tuple[Any, torch.nn.Parameter, torch.optim.Optimizer]:
    """Return a recorded run over one parameter."""
    pyro.settings.set(module_local_params=True)

    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loc = nn.Parameter(torch.tensor([2.0, -1.0]))

        def forward(self, x: torch.Tensor) -> None:
            with pyro.plate("data", 2):
                pyro.sample("x", dist.Normal(self.loc, 1.0), obs=x)

    model = Point()
    optim = torch.optim.SGD([model.loc], lr=0.1, momentum=0.5)
    return model, model.loc, optim


def clear_state(optim: Any) -> None:
    optim.state.clear()


def rate_as_tensor_and_back(optim: Any) -> None:
    group = optim.param_groups[0]
    group["lr"] = torch.tensor(0.0) if isinstance(group["lr"], float) else 0.1


def add_hook(optim: Any) -> None:
    optim.register_step_post_hook(lambda o, *args: o.param_groups[0]["params"][0].data.add_(1.0))


def other_state(optim: Any) -> None:
    for state in optim.state.values():
        state["momentum_buffer"] = torch.ones(2)


def no_parameters(optim: Any) -> None:
    optim.param_groups[0]["params"].clear()


@pytest.mark.parametrize(
    "change", [clear_state, rate_as_tensor_and_back, add_hook, other_state, no_parameters]
)
def test_a_change_of_the_optimiser(change: Callable[[Any], None]) -> None:
    x, ends = torch.tensor([0.3, 0.4]), []
    for compiled in (False, True):
        model, loc, optim = start()
        svi = CompiledSVI(model, lambda x: None, optim, Trace_ELBO(), backend=None)
        try:
            for step in range(9):
                if step == 6 or (step == 3 and change is not no_parameters):
                    change(optim)
                if compiled:
                    svi.step(x)
                else:
                    optim.zero_grad()
                    Trace_ELBO().differentiable_loss(model, lambda x: None, x).backward()
                    optim.step()
        except ValueError as error:
            assert compiled and change is no_parameters and "it lacks" in str(error)
        ends.append(loc.detach().clone())
    assert torch.allclose(*ends, rtol=1e-10)


def test_parameters_without_a_gradient_in_some_calls_step_as_in_svi() -> None:
    """Pyro leaves zeros behind a step, with which momentum goes on."""

    def model(x: torch.Tensor, both: bool) -> None:
        a, b = pyro.param("a", torch.tensor(1.0)), pyro.param("b", torch.tensor(-1.0))
        loc = a + b if both else a + 0 * b.detach()
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    def guide(x: torch.Tensor, both: bool) -> None:
        """No latent variables."""

    x, ends = torch.randn(5), []
    for kind, options in ((SVI, {}), (CompiledSVI, {"backend": None})):
        for constructor in (torch.optim.Adam, torch.optim.SGD):
            pyro.clear_param_store()
            settings = {"lr": 0.05, "weight_decay": 0.1}
            optim = pyro.optim.PyroOptim(constructor, settings)
            svi = kind(model, guide, optim, Trace_ELBO(), **options)
            for step in range(12):
                svi.step(x, step % 3 == 0)
            ends += [float(pyro.param("a")), float(pyro.param("b"))]
    assert ends[:4] == pytest.approx(ends[4:], rel=1e-9)


def test_a_schedule_of_momentum_steps_outside() -> None:
    model, _, optim = start()
    schedule = torch.optim.lr_scheduler.OneCycleLR(optim, 0.1, total_steps=40)
    svi = CompiledSVI(model, lambda x: None, optim, Trace_ELBO(), backend=None)
    for _ in range(30):
        svi.step(torch.zeros(2))
        schedule.step()
    assert svi.compiled.num_recordings < 6


def test_handlers_and_autocast_around_a_call_are_seen() -> None:
    model, _, optim = start()
    svi = CompiledSVI(model, lambda x: None, optim, Trace_ELBO(), backend=None)
    x = torch.zeros(2)
    plain = svi.evaluate_loss(x)
    with poutine.scale(scale=0.5):
        assert svi.evaluate_loss(x) == pytest.approx(0.5 * plain)
    assert svi.evaluate_loss(x) == plain
    before = svi.compiled.num_recordings
    with torch.autocast("cpu", dtype=torch.bfloat16):
        svi.evaluate_loss(x)
    assert svi.compiled.num_recordings == before + 1


def test_copies_are_whole() -> None:
    holder, x = Holder(), torch.randn(4, 3)
    optim = torch.optim.SGD(holder.parameters(), lr=0.1)
    svi = CompiledSVI(holder.model, holder.guide, optim, Trace_ELBO(), backend=None)
    value = svi.evaluate_loss(x)
    other: Any = copy.deepcopy(svi)
    with torch.no_grad():
        other.model.__self__.net.bias.add_(3.0)
    assert other.evaluate_loss(x) != pytest.approx(value, rel=1e-3)
    assert svi.evaluate_loss(x) == pytest.approx(value, rel=1e-10)


def test_a_set_argument_is_compared_by_value() -> None:
    def model(x: torch.Tensor, which: set[int]) -> None:
        loc = pyro.param("loc", torch.tensor(0.5))
        with poutine.scale(scale=float(len(which))):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    which = {1}
    optim = pyro.optim.SGD({"lr": 0.0})
    svi = CompiledSVI(model, lambda *args: None, optim, Trace_ELBO(), backend=None)
    once = svi.evaluate_loss(torch.tensor(0.3), which)
    which.add(2)
    assert svi.evaluate_loss(torch.tensor(0.3), which) == pytest.approx(2 * once)


def test_correlations_by_an_autoguide() -> None:
    """PyTorch takes the triangle of a matrix by a mask, which a graph cannot."""

    def model(x: torch.Tensor) -> None:
        cholesky = pyro.sample("cholesky", dist.LKJCholesky(2, x.new_tensor(2.0)))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.MultivariateNormal(x.new_zeros(2), scale_tril=cholesky), obs=x)

    x, ends = torch.randn(6, 2), []
    for kind, options in ((SVI, {}), (CompiledSVI, {"backend": None})):
        pyro.clear_param_store()
        torch.manual_seed(2)
        guide = AutoNormal(model)
        guide(x)
        svi = kind(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO(), **options)
        torch.manual_seed(3)
        ends.append([svi.step(x) for _ in range(4)])
    assert ends[0] == pytest.approx(ends[1], rel=1e-9)


def test_scalars_that_are_changed_through_a_view_are_left_alone() -> None:
    def program(x: torch.Tensor, big: torch.Tensor) -> list[torch.Tensor]:
        s = torch.exp(x)
        s.view(1).mul_(2)
        return [big * s]

    inputs = [torch.tensor(0.5), torch.ones(5000)]
    expected = program(*inputs)[0]
    graph = trace(program, inputs)
    compute_scalars_once(graph.module)
    assert torch.equal(graph(*inputs)[0], expected)


@pytest.mark.parametrize("every", [0, -1, 1.5])
def test_check_every_is_a_number_of_steps(every: Any) -> None:
    model, _, optim = start()
    with pytest.raises(ValueError, match="check_every of 1 or more"):
        CompiledSVI(model, lambda x: None, optim, Trace_ELBO(), check_every=every)
