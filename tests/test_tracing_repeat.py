# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Steps that are taken many times and recorded once."""

import gc
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

from pyro_deepgen.energy.negative_phase import (
    ContrastiveDivergence,
    NegativePhase,
    PersistentChains,
)
from pyro_deepgen.energy.negative_phase_fast_weights import FastWeights
from pyro_deepgen.energy.negative_phase_tempered import TemperedChains
from pyro_deepgen.energy.rbm import RBM
from pyro_deepgen.infer import CompiledSVI
from pyro_deepgen.tracing import CompiledFunction, TracingError, is_recording, repeat, trace
from pyro_deepgen.tracing.repeat import _TURNS


def walk(weight: torch.Tensor, times: int) -> Any:
    """Noisy steps with a weight that is itself computed, and what comes out of them."""

    def function(x: torch.Tensor) -> list[torch.Tensor]:
        scaled = weight * 0.5
        ends = repeat(lambda x: x @ scaled + torch.rand_like(x), x, times)
        return [ends, repeat(lambda x: x @ scaled + torch.rand_like(x), x, times)]

    return function


def test_a_graph_takes_the_steps_that_the_program_takes() -> None:
    weight = torch.nn.Parameter(torch.randn(3, 3))
    function, x = walk(weight, 7), torch.randn(4, 3)
    graph = trace(function, [x])
    for _ in range(2):
        torch.manual_seed(3)
        first, second = graph(x)
        torch.manual_seed(3)
        expected = function(x)
        torch.testing.assert_close([first, second], expected)
        assert not torch.allclose(first, second)  # the noise of two calls is not the same
        with torch.no_grad():
            weight.mul_(-1)  # the graph sees what changes in place


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_graphs_take_compiled_steps(backend: str) -> None:
    weight = torch.nn.Parameter(torch.randn(3, 3))
    function, x = walk(weight, 5), torch.randn(4, 3)
    graph = trace(function, [x])
    graph.compile([x], backend)
    torch.manual_seed(3)
    found = graph(x)
    torch.manual_seed(3)
    torch.testing.assert_close(found, function(x))
    torch.manual_seed(3)
    torch.testing.assert_close(graph.interpret(x), found)


def test_many_steps_are_as_short_a_graph_as_two() -> None:
    weight, x = torch.eye(3), torch.randn(4, 3)
    sizes = [len(trace(walk(weight, n), [x]).module.graph.nodes) for n in (2, 50)]
    assert sizes[0] == sizes[1] < 15
    seen = []
    repeat(lambda x: seen.append(is_recording()) or x, x, 3)
    assert seen == [False] * 3


def test_steps_go_with_their_graph() -> None:
    gc.collect()
    before = len(_TURNS)
    graph = trace(walk(torch.eye(3), 4), [torch.zeros(2, 3)])
    graph.compile([torch.zeros(2, 3)], "eager")
    assert len(_TURNS) == before + 4  # two as recorded, and two compiled
    del graph
    gc.collect()
    assert len(_TURNS) == before


def test_steps_inside_a_compiled_function_with_a_gradient() -> None:
    scale = torch.nn.Parameter(torch.tensor(2.0))

    def function(x: torch.Tensor) -> torch.Tensor:
        moved = repeat(lambda x: (x + 1).clamp(max=3), x, 10)
        return scale * moved

    compiled = CompiledFunction(function, backend=None)
    for _ in range(2):
        compiled(torch.zeros(2)).sum().backward()
    assert scale.grad == 12


def test_a_value_that_python_reads_in_a_step_is_watched() -> None:
    limit = torch.tensor(3.0)
    graph = trace(
        lambda x: [repeat(lambda x: x + (1 if float(limit) > 2 else 2), x, 3)], [torch.zeros(2)]
    )
    assert graph.reads_hold()
    limit.fill_(1.0)
    assert not graph.reads_hold()
    with pytest.raises(TracingError, match="needs the value"):
        trace(lambda x: [repeat(lambda x: x if x.sum() > 0 else -x, x, 3)], [torch.zeros(2)])


# ---------------------------------------------------------------- Boltzmann machines


def stepper(kind: type, phase: NegativePhase) -> tuple[RBM, Any]:
    pyro.clear_param_store()
    torch.manual_seed(0)
    machine = RBM(6, 4, weight_scale=0.5, negative_phase=phase)

    def model(x: torch.Tensor) -> None:
        pyro.module("machine", machine)
        with pyro.plate("data", len(x)):
            pyro.sample("v", machine, obs=x)

    optim = pyro.optim.Adam({"lr": 0.05})
    settings = {"backend": None, "check_every": 1} if kind is CompiledSVI else {}
    return machine, kind(model, lambda x: None, optim, Trace_ELBO(), **settings)


PHASES = {
    "cd": lambda: ContrastiveDivergence(10),
    "pcd": lambda: PersistentChains(20, 10),
    "fast weights": lambda: FastWeights(20, 5, rate=0.1),
    "tempered": lambda: TemperedChains(10, 4, 5),
}


@pytest.mark.parametrize("make", PHASES.values(), ids=PHASES.keys())
def test_recorded_training_with_many_gibbs_steps_is_the_training(make: Any) -> None:
    """For the same random numbers, plain SVI and the recording reach the same parameters."""
    x = torch.bernoulli(torch.full((10, 6), 0.3))
    found = []
    for kind in (SVI, CompiledSVI):
        machine, svi = stepper(kind, make())
        torch.manual_seed(1)
        for _ in range(4):
            svi.step(x)
        chains = getattr(machine.negative_phase, "chains", x)
        found.append([chains.clone(), *(p.detach().clone() for p in machine.parameters())])
    torch.testing.assert_close(found[0], found[1])


def test_steps_of_machines_that_depend_on_an_argument() -> None:
    """Each datum's context is an input of the graph, and goes into its steps."""
    x = torch.bernoulli(torch.full((10, 6), 0.3))
    found = []
    for kind in (SVI, CompiledSVI):
        pyro.clear_param_store()
        torch.manual_seed(0)
        phase = ContrastiveDivergence(5)
        machine = RBM(6, 4, weight_scale=0.5, context_dim=2, negative_phase=phase)

        def model(x: torch.Tensor, context: torch.Tensor, machine: RBM = machine) -> None:
            pyro.module("machine", machine)
            with pyro.plate("data", len(x)):
                pyro.sample("v", machine.condition(context), obs=x)

        optim = pyro.optim.Adam({"lr": 0.05})
        settings = {"backend": None} if kind is CompiledSVI else {}
        svi = kind(model, lambda *args: None, optim, Trace_ELBO(), **settings)
        torch.manual_seed(1)
        for i in range(4):
            svi.step(x, torch.full((10, 2), float(i)))
        found.append([p.detach().clone() for p in machine.parameters()])
    torch.testing.assert_close(found[0], found[1])
