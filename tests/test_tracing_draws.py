# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Many random numbers in compiled graphs come from PyTorch's own generators."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch

from pyro_deepgen.tracing import trace
from pyro_deepgen.tracing.draws import draw_at_once

DRAWS = {"uniform": torch.rand_like, "normal": torch.randn_like}


def names_of(function: Callable[..., list[torch.Tensor]], x: torch.Tensor) -> list[str]:
    module = copy.deepcopy(trace(function, [x]).module)
    draw_at_once(module)
    return [str(node.target) for node in module.graph.nodes]


@pytest.mark.parametrize("kind", DRAWS)
def test_many_numbers_are_the_same_numbers(kind: str) -> None:
    x = torch.zeros(50, 100)
    graph = trace(lambda x: [x + DRAWS[kind](x), DRAWS[kind](x)], [x])
    module = copy.deepcopy(graph.module)
    draw_at_once(module)
    assert names_of(lambda x: [DRAWS[kind](x)], x)[1] == f"pyro_deepgen.{kind}_like.default"
    torch.manual_seed(0)
    first, second = module(x)
    torch.manual_seed(0)
    torch.testing.assert_close([first, second], [DRAWS[kind](x), DRAWS[kind](x)])
    assert not torch.equal(first, second)
    graph.compile([x], "aot_eager")  # whose graphs have no such operations
    assert graph(x)[0].shape == x.shape


def of_dtype(dtype: torch.dtype, x: torch.Tensor) -> list[torch.Tensor]:
    return [torch.rand_like(x, dtype=dtype)]


def test_few_numbers_and_numbers_of_another_kind_stay() -> None:
    few, many = torch.zeros(10), torch.zeros(50, 100)
    assert "uniform" not in " ".join(names_of(lambda x: [torch.rand_like(x)], few))
    for dtype in (torch.float64, torch.float16):
        found = names_of(partial(of_dtype, dtype), many)
        assert "uniform" not in " ".join(found)


@pytest.mark.slow
def test_the_compiler_keeps_two_draws_apart() -> None:
    x = torch.zeros(50, 100)
    graph = trace(lambda x: [torch.rand_like(x), torch.rand_like(x), torch.randn_like(x)], [x])
    graph.compile([x])
    first, second, normal = graph(x)
    assert not torch.equal(first, second) and not torch.equal(first, graph(x)[0])
    assert abs(first.mean() - 0.5) < 4 * 12**-0.5 / 5000**0.5
    assert abs(normal.mean()) < 4 / 5000**0.5 and normal.min() < -2
    torch.manual_seed(1)
    again = graph(x)[0]
    torch.manual_seed(1)
    assert torch.equal(again, graph(x)[0])
