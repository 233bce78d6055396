# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""CompiledSVI with PyTorch's own optimisers, whose steps are part of the graph."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

from pyro_deepgen.infer import CompiledSVI
from pyro_deepgen.infer.recording import Call
from pyro_deepgen.latent import vae

Parameters = list[torch.Tensor]


def data() -> torch.Tensor:
    return torch.bernoulli(torch.full((8, 6), 0.3))


TORCH: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.005),
    "sgd_nesterov": lambda p: torch.optim.SGD(
        p, lr=0.002, momentum=0.9, nesterov=True, weight_decay=0.1
    ),
    "sgd_dampening": lambda p: torch.optim.SGD(
        p, lr=1e-4, momentum=0.9, dampening=0.5, maximize=True
    ),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "adam_fused": lambda p: torch.optim.Adam(p, lr=0.05, fused=True),
    "adam_amsgrad": lambda p: torch.optim.Adam(p, lr=0.05, amsgrad=True, weight_decay=0.1),
    "adam_tensor": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.05)),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.05, weight_decay=0.1),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.05),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.05),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "rmsprop_centered": lambda p: torch.optim.RMSprop(p, lr=0.002, momentum=0.9, centered=True),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, lr_decay=0.1, weight_decay=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5, weight_decay=0.1),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.05, weight_decay=0.1),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3, line_search_fn="strong_wolfe"),
}
OUTSIDE = ("lbfgs",)  # not part of the graph


class Scalar(nn.Module):
    """A pair whose parameters include one without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.pair, self.shift = vae(6, 2, (8,)), nn.Parameter(torch.tensor(0.3))

    def model(self, x: torch.Tensor) -> None:
        self.pair.model(x)

    def guide(self, x: torch.Tensor) -> None:
        self.pair.guide(x + self.shift)


def loop_of_torch(
    compiled: bool, make: Callable[[Any], Any], schedule: Any = None, steps: int = 8
) -> tuple[CompiledSVI, Parameters]:
    """Train by hand or by CompiledSVI; what `schedule` makes of the optimiser follows each step."""
    pyro.settings.set(module_local_params=True)
    torch.manual_seed(0)
    both = Scalar()
    optim, x = make(both.parameters()), data()
    change = None if schedule is None else schedule(optim)
    svi = CompiledSVI(both.model, both.guide, optim, Trace_ELBO(), backend=None)
    svi.compiled.modules = [both]

    def closure() -> torch.Tensor:
        if not isinstance(optim, torch.optim.LBFGS) or closure.calls:  # type: ignore[attr-defined]
            torch.set_rng_state(closure.state)  # type: ignore[attr-defined]
        closure.calls += 1  # type: ignore[attr-defined]
        optim.zero_grad()
        loss: torch.Tensor = Trace_ELBO().differentiable_loss(both.model, both.guide, x)
        loss.backward()
        return loss

    for step in range(steps):
        if compiled:
            svi.step(x)
        else:
            closure.calls, closure.state = 0, torch.get_rng_state()  # type: ignore[attr-defined]
            optim.step(closure)
        if change is not None:
            change(step)
    return svi, [p.detach() for p in both.parameters()]


def is_in_graph(svi: CompiledSVI) -> bool:
    recording = svi.compiled.find("step", Call((data(),), {}))
    return recording is not None and recording.update is not None


@pytest.mark.parametrize("name", TORCH)
def test_optimisers_of_torch(name: str) -> None:
    _, expected = loop_of_torch(False, TORCH[name])
    svi, ends = loop_of_torch(True, TORCH[name])
    assert is_in_graph(svi) == (name not in OUTSIDE)
    for ours, theirs in zip(ends, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def decay(optim: Any) -> Callable[[int], None]:
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optim, 0.7)
    return lambda step: scheduler.step()


def change_momentum(optim: Any) -> Callable[[int], None]:
    def change(step: int) -> None:
        group = optim.param_groups[0]
        if step == 3 and "betas" in group:
            group["betas"] = (0.8, 0.99)
        elif step == 3 and "momentum" in group:
            group["momentum"] *= 0.9

    return change


@pytest.mark.parametrize("name", ["sgd_nesterov", "adam", "rmsprop_centered", "adagrad", "lbfgs"])
@pytest.mark.parametrize("schedule", [decay, change_momentum])
def test_schedules(name: str, schedule: Any) -> None:
    """A learning rate is an input of the graph; any other setting costs a new recording."""
    _, expected = loop_of_torch(False, TORCH[name], schedule)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svi, ends = loop_of_torch(True, TORCH[name], schedule)
    changed = schedule is change_momentum and name in ("sgd_nesterov", "adam", "rmsprop_centered")
    assert svi.compiled.num_recordings == (2 if changed else 1)
    for ours, theirs in zip(ends, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_single_precision_keeps_the_digits_of_the_bias_correction() -> None:
    torch.set_default_dtype(torch.float32)
    _, expected = loop_of_torch(False, TORCH["adam"], steps=50)
    svi, ends = loop_of_torch(True, TORCH["adam"], steps=50)
    assert is_in_graph(svi)
    for ours, theirs in zip(ends, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_loaded_state_of_the_optimiser() -> None:
    def go_back(optim: Any) -> Callable[[int], None]:
        kept: list[Any] = []

        def change(step: int) -> None:
            if step == 2:
                kept.append(copy.deepcopy(optim.state_dict()))
            if step == 5:
                optim.load_state_dict(kept[0])

        return change

    ends = [loop_of_torch(compiled, TORCH["adam"], go_back)[1] for compiled in (False, True)]
    for ours, theirs in zip(*ends, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_hooks_keep_an_optimiser_outside() -> None:
    seen = []

    def make(parameters: Any) -> Any:
        optim = torch.optim.Adam(parameters, lr=0.05)
        optim.register_step_post_hook(lambda *args: seen.append(1))
        return optim

    svi, _ = loop_of_torch(True, make)
    assert not is_in_graph(svi)
    assert len(seen) == 8


def test_frozen_parameters_stay() -> None:
    def freeze(optim: Any) -> Callable[[int], None]:
        first = optim.param_groups[0]["params"][0]
        return lambda step: first.requires_grad_(step < 3 or step > 5)

    ends = [loop_of_torch(compiled, TORCH["adam"], freeze)[1] for compiled in (False, True)]
    for ours, theirs in zip(*ends, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_gradients_that_are_one_tensor_are_clipped_apart() -> None:
    """The gradients of `a + b` by a and by b are one; an optimiser outside may change them."""

    class Doubling(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            loss = closure()
            for parameter in self.param_groups[0]["params"]:
                parameter.grad.mul_(2)
            super().step()
            return loss

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))

        def forward(self, x: torch.Tensor) -> None:
            with pyro.plate("data", 3):
                pyro.sample("x", dist.Normal(self.a + self.b, 1.0), obs=x)

    pyro.settings.set(module_local_params=True)
    model = Sum()
    optim = Doubling(model.parameters(), lr=0.1)
    svi = CompiledSVI(model, lambda x: None, optim, Trace_ELBO(), backend=None)
    svi.step(torch.ones(3))
    assert torch.allclose(model.a, torch.full((3,), 0.2))
    assert torch.allclose(model.b, torch.full((3,), 0.2))
