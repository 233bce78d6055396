# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Graphs of a kernel stay as long as they are right."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_deepgen.mcmc.model_target import ModelTarget
from pyro_deepgen.mcmc.random_walk import RandomWalk

from .models import data, schools

pytestmark = pytest.mark.usefixtures("float64")


def prepared(kernel: RandomWalk, *args: Any) -> dict[str, torch.Tensor]:
    """Set a kernel up and take a step, so that it has its graphs."""
    kernel.setup(0, *args)
    start = {n: torch.zeros(2, *s.shape) for n, s in kernel.target.sites.items()}
    state = kernel.init(start)
    kernel.step(state)
    return state


def test_new_data_keep_the_graphs_and_are_seen() -> None:
    kernel = RandomWalk(schools, compile="recorded")
    first = prepared(kernel, data())
    graphs, target = dict(kernel.graphs), kernel.target
    assert graphs
    second = prepared(kernel, data() + 3)
    assert kernel.target is target and kernel.graphs == graphs
    expected = ModelTarget(schools, (data() + 3,)).potential(kernel.values(second))
    assert torch.equal(second["~potential"], expected)
    assert not torch.allclose(first["~potential"], expected)


def test_data_of_another_shape_make_new_graphs() -> None:
    kernel = RandomWalk(schools, compile="recorded")
    prepared(kernel, data())
    graphs, target = dict(kernel.graphs), kernel.target
    prepared(kernel, data(4))
    assert kernel.target is not target
    assert not set(map(id, kernel.graphs.values())) & set(map(id, graphs.values()))


def switched(y: torch.Tensor, wide: torch.Tensor) -> None:
    """A model whose Python reads one of its arguments, which a graph freezes."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, 5.0 if wide else 1.0), obs=y)


def test_graphs_that_froze_what_was_read_go_with_it() -> None:
    kernel = RandomWalk(switched, compile="recorded")
    y, narrow, wide = data(), torch.tensor(False), torch.tensor(True)
    first = prepared(kernel, y, narrow)
    graphs, target = dict(kernel.graphs), kernel.target
    prepared(kernel, y, narrow)
    assert kernel.graphs == graphs
    second = prepared(kernel, y, wide)
    assert kernel.target is target
    expected = ModelTarget(switched, (y, wide)).potential(kernel.values(second))
    assert torch.equal(second["~potential"], expected)
    assert not torch.allclose(first["~potential"], expected)
