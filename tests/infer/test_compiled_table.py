# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Recorded losses and gradients are those of Pyro's own SVI, for programs of all kinds."""

import re
from math import inf
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, TraceEnum_ELBO, config_enumerate
from pyro.optim import PyroOptim
from torch import nn

from pyro_deepgen.infer import CompiledSVI
from pyro_deepgen.infer.recording import Call
from tests.infer.programs import PROGRAMS, Program

LOCAL = ("vae", "norm_and_dropout", "m2", "guide_module", "auto_iaf", "subsampled")


def named(rows: list[Program]) -> dict[str, Any]:
    return {"argvalues": rows, "ids": [row.name for row in rows]}


class KeepingAdam(torch.optim.Adam):
    """Adam that keeps the gradients of its first step."""

    first: list[torch.Tensor | None] | None = None

    def step(self, closure: Any = None) -> None:
        if self.first is None:
            grads = [p.grad for group in self.param_groups for p in group["params"]]
            self.first = [None if g is None else g.clone() for g in grads]
        super().step(closure)


def buffers(*programs: Any) -> dict[str, torch.Tensor]:
    modules = [p for p in programs if isinstance(p, nn.Module)]
    return {f"{i}.{n}": b for i, p in enumerate(modules) for n, b in p.named_buffers()}


def assert_same(ours: Any, expected: Any, tolerance: float) -> None:
    """Equality relative to the largest entry, so that an exact 0 needs no exact 0."""
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        scale = max(float(tensor.abs().max()), 1e-3) if tensor.numel() else 0.0
        assert ours[name].shape == tensor.shape, name
        assert float((ours[name] - tensor).abs().amax()) <= tolerance * scale, name


def parameters() -> dict[str, torch.Tensor]:
    """Pyro's store; a pair's number is none of its parameters' names."""
    named = pyro.get_param_store().named_parameters()
    return {re.sub(r"^([A-Za-z]+)\d+\.", r"\1.", name): p for name, p in named}


def run(
    kind: Any, program: Program, num_steps: int, optimizer: Any = torch.optim.Adam, **options: Any
) -> dict[str, Any]:
    """Train and tell all that there is to compare."""
    model, guide, elbo, args = program.make()
    start = {n: p.detach().clone() for n, p in parameters().items()}
    optim = PyroOptim(optimizer, {"lr": 1e-2})
    svi = kind(model, guide, optim, elbo, **options)
    torch.manual_seed(3)
    losses, states = [], []
    for _ in range(num_steps):
        losses.append(torch.tensor(svi.step(*args), dtype=torch.float64))
        states.append({n: b.clone() for n, b in buffers(model, guide).items()})
    first = {n: getattr(optim.optim_objs[p], "first", None) for n, p in parameters().items()}
    if kind is CompiledSVI:
        recording = svi.compiled.find("step", Call(args, {}))
        assert (recording.update is not None) == (optimizer is torch.optim.Adam)
    return {
        "losses": {str(i): loss for i, loss in enumerate(losses)},
        "gradients": {n: g[0] for n, g in first.items() if g is not None},
        "start": start,
        "end": {n: p.detach() for n, p in parameters().items()},
        "buffers": {f"{i}.{n}": b for i, state in enumerate(states) for n, b in state.items()},
    }


@pytest.mark.parametrize("program", **named(PROGRAMS))
def test_losses_and_gradients_are_those_of_svi(program: Program) -> None:
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        torch.set_default_dtype(dtype)
        expected = run(SVI, program, 2, KeepingAdam)
        ours = run(CompiledSVI, program, 2, KeepingAdam, backend=None)
        assert expected["gradients"].keys() == expected["end"].keys()
        assert all(g.dtype == dtype for g in ours["gradients"].values())
        # In double precision the start is one without dead units.
        assert dtype != torch.float64 or all(g.abs().max() > 0 for g in ours["gradients"].values())
        for name in ("losses", "gradients", "buffers"):
            assert_same(ours[name], expected[name], tolerance)


@pytest.mark.parametrize("program", **named(PROGRAMS))
def test_two_hundred_steps_end_where_those_of_svi_end(program: Program) -> None:
    """The optimiser is part of the graph."""
    expected = run(SVI, program, 200)
    ours = run(CompiledSVI, program, 200, backend=None)
    for name in ("losses", "end", "buffers"):
        assert_same(ours[name], expected[name], 1e-6)
    assert len(set(map(float, ours["losses"].values()))) == 200
    for name, value in expected["start"].items():
        assert (value - expected["end"][name]).abs().max() > 1e-3


@pytest.mark.parametrize("program", **named([p for p in PROGRAMS if p.name in LOCAL]))
def test_training_ends_where_a_loop_of_torch_ends(program: Program) -> None:
    pyro.settings.set(module_local_params=True)
    ends = []
    for compiled in (False, True):
        model, guide, elbo, args = program.make()
        eager = elbo(model, guide)
        optim = torch.optim.Adam(eager.parameters(), lr=1e-2)
        svi = CompiledSVI(model, guide, optim, elbo, backend=None)
        torch.manual_seed(3)
        for _ in range(10):
            if compiled:
                svi.step(*args)
            else:
                optim.zero_grad()
                eager(*args).backward()
                optim.step()
        trained = {n: p.detach() for n, p in eager.named_parameters()}
        ends.append({**trained, **buffers(model, guide)})
    assert len(pyro.get_param_store()) == 0
    assert_same(ends[1], ends[0], 1e-8)


def test_an_enumerated_value_of_no_probability_may_cost_anything() -> None:
    """The guide excludes a value that the model forbids: its infinite cost counts nothing."""

    def model(x: torch.Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.3))
        side = pyro.sample("side", dist.Categorical(logits=torch.tensor([0.5, 0.5, -inf])))
        pyro.sample("x", dist.Normal(loc * side, 1.0), obs=x)

    @config_enumerate
    def guide(x: torch.Tensor) -> None:
        logits = pyro.param("logits", torch.tensor([0.2, -0.1]))
        logits = torch.cat([logits, torch.tensor([-inf])])
        pyro.sample("side", dist.Categorical(logits=logits))

    ends = []
    for kind, options in ((SVI, {}), (CompiledSVI, {"backend": None})):
        pyro.clear_param_store()
        elbo = TraceEnum_ELBO(max_plate_nesting=0)
        optim = PyroOptim(torch.optim.SGD, {"lr": 0.1})
        svi = kind(model, guide, optim, elbo, **options)
        losses = {str(i): torch.tensor(svi.step(torch.tensor(0.7))) for i in range(3)}
        ends.append({**losses, **{n: p.detach().clone() for n, p in parameters().items()}})
    assert all(value.isfinite().all() for value in ends[0].values())
    assert_same(ends[1], ends[0], 1e-10)
