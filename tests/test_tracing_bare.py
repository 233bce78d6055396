# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Compiled operations without what the compiler puts around them give what Python gives."""

from collections.abc import Callable

import pytest
import torch

from pyro_deepgen.tracing import trace

Program = Callable[..., list[torch.Tensor]]
KEPT = torch.zeros(4, 3)


def arithmetic(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    return [x * y + 1, (x - y).sum(0)]


def in_place(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    KEPT.add_(x)
    y.mul_(2.0)
    return [KEPT + y]


def nothing(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    KEPT.copy_(x - y)
    return []


def no_operation(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    return []


def an_input(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    return [x, x + y]


def a_view(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    return [y[1:], x + y]


def views_of_a_result(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    product = x * y
    return [product[0], product.mT]


def twice_the_same(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    total = x + y
    return [total, total]


def none_of_the_inputs(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    return [torch.full((2,), 3.0), KEPT * 1.0]


def other_kinds(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    return [x > y, (x * 10).int(), x.double().sum()]


PROGRAMS = [
    arithmetic,
    in_place,
    nothing,
    no_operation,
    an_input,
    a_view,
    views_of_a_result,
    twice_the_same,
    none_of_the_inputs,
    other_kinds,
]


def inputs(same: bool) -> list[torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(4, 3)
    return [x, x if same else torch.randn(4, 3)]


def results(run: Program, same: bool) -> list[torch.Tensor]:
    """Those of two calls, and what they have changed."""
    KEPT.zero_()
    given = inputs(same)
    with torch.no_grad():
        found = [t.clone() for _ in range(2) for t in run(*given)]
    return [*found, *given, KEPT.clone()]


@pytest.mark.parametrize("same", [False, True], ids=["two tensors", "one tensor twice"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_bare_graph_gives_and_changes_what_python_does(program: Program, same: bool) -> None:
    KEPT.zero_()
    graph = trace(program, inputs(same))
    graph.compile(inputs(same), checks=False)
    expected = results(program, same)
    for run in (graph, lambda *given: graph.on(*given)()):
        for found, wanted in zip(results(run, same), expected, strict=True):
            torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("program", "short"),
    [(arithmetic, True), (in_place, True), (nothing, True), (a_view, False)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_only_what_needs_it_is_surrounded(program: Program, short: bool) -> None:
    graph = trace(program, inputs(False))
    graph.compile(inputs(False), checks=False)
    assert graph._run.__module__.endswith("tracing.bare") == short


def test_a_graph_may_be_called_where_gradients_are_on() -> None:
    graph = trace(arithmetic, inputs(False))
    graph.compile(inputs(False), checks=False)
    assert torch.is_grad_enabled()
    assert not graph(*[t.requires_grad_() for t in inputs(False)])[0].requires_grad
