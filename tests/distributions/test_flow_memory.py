# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A flow scores its own draw without an inverse, and never with a stale value."""

import copy
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.distributions.remembered import RememberedDraw
from pyro_deepgen.infer.stop_parameters import StopParameters
from tests.distributions.flows import by_inverse, counting_flow, inverses

pytestmark = pytest.mark.usefixtures("float64")


def a_step(optimizer: Any, **options: Any) -> Callable[[Any, torch.Tensor], Any]:
    def change(flow: FlowDistribution, y: torch.Tensor) -> None:
        optim = optimizer(flow.parameters(), lr=0.1, **options)
        by_inverse(flow, y.detach()).sum().backward()
        optim.step()

    return change


def in_place(flow: Any, y: torch.Tensor) -> None:
    with torch.no_grad():
        next(flow.transform.parameters()).add_(0.3)


def through_data(flow: Any, y: torch.Tensor) -> None:
    next(flow.transform.parameters()).data.add_(0.3)


def data_replaced(flow: Any, y: torch.Tensor) -> None:
    parameter = next(flow.transform.parameters())
    parameter.data = parameter.data + 0.3


def loaded(assign: bool) -> Callable[[Any, torch.Tensor], Any]:
    def change(flow: FlowDistribution, y: torch.Tensor) -> None:
        flow.load_state_dict(counting_flow().state_dict(), assign=assign)

    return change


def parameter_replaced(flow: Any, y: torch.Tensor) -> None:
    owner = flow.transform.parts[0].values
    owner.w = nn.Parameter(owner.w.detach() + 0.3)


def buffer_changed(flow: Any, y: torch.Tensor) -> None:
    flow.transform.parts[2].get_buffer("parts__0__scale").mul_(1.5)


def draw_changed(flow: FlowDistribution, y: torch.Tensor) -> None:
    with torch.no_grad():
        y.add_(0.3)


def draw_changed_through_data(flow: FlowDistribution, y: torch.Tensor) -> None:
    y.data.add_(0.3)


def draw_changed_by_numpy(flow: FlowDistribution, y: torch.Tensor) -> None:
    y.detach().numpy()[...] += 0.3


CHANGES = {
    "sgd": a_step(torch.optim.SGD),
    "adam": a_step(torch.optim.Adam),
    "adam_foreach": a_step(torch.optim.Adam, foreach=True),
    "adam_fused": a_step(torch.optim.Adam, fused=True),
    "sgd_fused": a_step(torch.optim.SGD, fused=True),
    "in_place": in_place,
    "through_data": through_data,
    "data_replaced": data_replaced,
    "loaded": loaded(False),
    "loaded_by_assignment": loaded(True),
    "parameter_replaced": parameter_replaced,
    "buffer_changed": buffer_changed,
    "draw_changed": draw_changed,
    "draw_changed_through_data": draw_changed_through_data,
    "draw_changed_by_numpy": draw_changed_by_numpy,
}
changes = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_a_draw_is_scored_without_an_inverse(batch: tuple[int, ...]) -> None:
    flow = counting_flow().expand(batch)
    for draw in (flow.rsample, flow):
        y = draw((4,))
        score = flow.log_prob(y)
        assert inverses(flow) == 0
        torch.testing.assert_close(score, by_inverse(flow, y), rtol=0, atol=1e-10)
        flow.transform.parts[1].inverses = 0  # type: ignore[attr-defined]
    with torch.no_grad():
        y = flow.sample()
        flow.log_prob(y)
    assert inverses(flow) == 0


def test_both_ways_give_the_same_gradients() -> None:
    """Of the base, of the transforms and of the context."""
    flow = counting_flow(context_dim=3)
    context = torch.randn(5, 3, requires_grad=True)
    leaves = [*flow.parameters(), context]
    results = []
    for way in ("remembered", "inverse"):
        torch.manual_seed(1)
        given = flow.condition(context)
        y = given.rsample()
        score = given.log_prob(y if way == "remembered" else y.clone())
        loss = (score + y.sin().sum(-1)).sum()
        results.append([loss, *torch.autograd.grad(loss, leaves)])
        assert inverses(flow) == (way == "inverse")
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-9)
        assert expected.abs().max() > 1e-6


@changes
def test_after_a_change_the_inverse_is_run(change: Callable[..., Any]) -> None:
    flow = counting_flow()
    y = flow.rsample((4,))
    change(flow, y)
    before = inverses(flow)
    score = flow.log_prob(y)
    assert inverses(flow) == before + 1
    torch.testing.assert_close(score, by_inverse(flow, y), rtol=0, atol=1e-10)


@changes
def test_a_memory_that_does_not_check_would_be_wrong(
    change: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug that the test above must notice."""
    monkeypatch.setattr(RememberedDraw, "holds", lambda self, module, value: self.is_of(value))
    flow = counting_flow()
    y = flow.rsample((4,))
    change(flow, y)
    assert (flow.log_prob(y) - by_inverse(flow, y)).abs().max() > 1e-3


def test_the_mode_of_autograd_must_be_that_of_the_draw() -> None:
    flow = counting_flow()
    y = flow.sample()
    score = flow.log_prob(y)
    assert inverses(flow) == 1
    assert score.requires_grad
    y = flow.rsample()
    with torch.no_grad():
        assert not flow.log_prob(y).requires_grad
    assert inverses(flow) == 2


def test_frozen_parameters_get_no_gradient_from_an_earlier_draw() -> None:
    flow = counting_flow()
    y = flow.rsample()
    frozen = next(flow.parameters()).requires_grad_(False)
    flow.log_prob(y)
    assert inverses(flow) == 1
    assert frozen.grad is None


def test_evaluation_mode_is_another_mode() -> None:
    flow = counting_flow()
    y = flow.rsample()
    flow.eval().log_prob(y)
    assert inverses(flow) == 1


def test_a_mode_that_stops_parameters_sees_the_inverse() -> None:
    flow = counting_flow()
    y = flow.sample()
    with StopParameters():
        score = flow.log_prob(y)
    assert inverses(flow) == 1
    assert not score.requires_grad


def test_gradients_that_a_draw_keeps_are_complete() -> None:
    flow = counting_flow()
    y = flow.rsample()
    y.retain_grad()
    flow.log_prob(y).backward()
    copied = y.detach().requires_grad_()
    by_inverse(flow, copied).backward()
    torch.testing.assert_close(y.grad, copied.grad)


def test_only_the_same_object_is_remembered_and_only_once() -> None:
    flow = counting_flow()
    y, other = flow.rsample((4,)), flow.sample((4,))
    for value in (y, other.clone(), other[:]):
        flow.log_prob(value)
    assert inverses(flow) == 3
    y = flow.rsample()
    first, second = flow.log_prob(y), flow.log_prob(y)
    assert inverses(flow) == 4
    torch.testing.assert_close(first, second)


def test_only_draws_that_may_be_scored_are_remembered() -> None:
    """What makes the memory takes time, which a loop that only samples need not spend."""
    flow = counting_flow()
    for _ in range(3):
        y = flow.sample()
    assert flow._memory is not None
    assert flow._memory.score is None
    with torch.no_grad():
        torch.testing.assert_close(flow.log_prob(y), by_inverse(flow, y), rtol=0, atol=1e-10)
        count = inverses(flow)
        for _ in range(3):  # now they are scored
            y = flow.sample()
            score = flow.log_prob(y)
        assert inverses(flow) == count
        torch.testing.assert_close(score, by_inverse(flow, y), rtol=0, atol=1e-10)
        flow.sample()
        flow.sample()
        flow.log_prob(flow.rsample())
    assert inverses(flow) == count + 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int32])
@pytest.mark.parametrize("sizes", [(1,), (3,), (3, 4), (2, 6)])
def test_every_kind_of_number_is_compared(dtype: torch.dtype, sizes: tuple[int, ...]) -> None:
    """Also the only tensor of its kind, and an odd number of bytes."""
    module = nn.Module()
    for i, size in enumerate(sizes):
        module.register_buffer(f"buffer{i}", torch.ones(size, dtype=dtype))
    for draw in (torch.zeros(2, dtype=torch.float32), torch.zeros(2, dtype=torch.float64)):
        memory = RememberedDraw(module, draw, lambda: torch.zeros(()))
        assert memory.holds(module, draw)
        module.get_buffer("buffer0").data[-1] += 1
        assert not memory.holds(module, draw)


def test_a_memory_holds_neither_the_draw_nor_what_is_shared_twice() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    module.append(module[0])
    draw = torch.zeros(2)
    memory = RememberedDraw(module, draw, lambda: torch.zeros(()))
    assert len(memory._tensors) == 2
    del draw
    assert memory.score is None
    assert memory._tensors == []


def test_copies_and_views_remember_nothing() -> None:
    flow = counting_flow()
    y = flow.rsample()
    others: list[Any] = [copy.copy(flow), copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))]
    others += [flow.expand((1,)), flow.with_temperature(1.0), flow.double()]
    assert all(other._memory is None for other in others)
    expected = by_inverse(flow, y)
    for other in others:
        torch.testing.assert_close(other.log_prob(y).sum(), expected, rtol=0, atol=1e-10)


def test_no_graph_outlives_its_step() -> None:
    """Without a plate the distribution lives longer than the step."""
    flow = counting_flow()
    y = flow.rsample()
    draw = weakref.ref(y)
    flow.log_prob(y)
    assert flow._memory is None
    del y
    assert draw() is None

    y = flow.rsample()
    y.sum().backward()  # never scored
    del y
    assert flow._memory is not None
    assert flow._memory.score is None
    y = flow.sample()
    assert flow._memory.score is not None
    del y
    assert flow._memory.score is None
