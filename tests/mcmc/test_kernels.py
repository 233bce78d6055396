# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What all kernels have in common, whatever they leave invariant."""

import pyro
import pytest
import torch

from pyro_deepgen.mcmc.kernel import Kernel
from pyro_deepgen.mcmc.state import PRIVATE, Info, State
from tests.mcmc.exact_targets import EXACT_TARGETS, start_exactly
from tests.mcmc.kernel_row import KernelRow
from tests.mcmc.table import KERNELS
from tests.tables import named

pytestmark = pytest.mark.usefixtures("float64", "default_device")


def started(row: KernelRow, num_chains: int, warmup_steps: int = 0) -> tuple[Kernel, State]:
    target = EXACT_TARGETS[row.targets[0]]
    kernel = row.make(target.program())
    kernel.setup(warmup_steps)
    with torch.no_grad():
        return kernel, kernel.init(start_exactly(kernel, target, num_chains))


@torch.no_grad()
def step(kernel: Kernel, state: State, seed: int = 0) -> tuple[State, Info]:
    pyro.set_rng_seed(seed)
    return kernel.step(state)


@pytest.mark.parametrize("num_chains", [1, 3])
@pytest.mark.parametrize("row", **named(KERNELS))
def test_a_step_keeps_names_shapes_and_types(row: KernelRow, num_chains: int) -> None:
    kernel, state = started(row, num_chains)
    moved, info = step(kernel, state)
    assert {n: (v.shape, v.dtype) for n, v in moved.items()} == {
        n: (v.shape, v.dtype) for n, v in state.items()
    }
    assert set(kernel.target.sites) == {n for n in moved if not n.startswith(PRIVATE)}
    assert all(value.shape[0] == num_chains for value in moved.values())
    assert all(value.shape == (num_chains,) for value in info.values())


@pytest.mark.parametrize("row", **named(KERNELS))
def test_a_step_changes_nothing_it_was_given(row: KernelRow) -> None:
    kernel, state = started(row, 5)
    before = {name: value.clone() for name, value in state.items()}
    tuning = kernel.tuning_dict()
    step(kernel, state)
    assert all(torch.equal(before[name], value) for name, value in state.items())
    after = kernel.tuning_dict()
    assert all(torch.equal(tuning[name], after[name]) for name in tuning)


@pytest.mark.parametrize("row", **named(KERNELS))
def test_the_same_seed_gives_the_same_step(row: KernelRow) -> None:
    kernel, state = started(row, 50)
    one, other, third = (step(kernel, state, seed)[0] for seed in (1, 1, 2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(one[name], third[name]) for name in one)


@pytest.mark.parametrize("row", **named(KERNELS))
def test_chains_move_and_each_by_itself(row: KernelRow) -> None:
    """Chains that start at one place are at many after some steps."""
    kernel, state = started(row, 1)
    state = {name: value.expand(64, *value.shape[1:]).clone() for name, value in state.items()}
    with torch.no_grad():
        for _ in range(5):
            state, _ = kernel.step(state)
    for name in kernel.target.sites:
        assert len(state[name].reshape(64, -1).unique(dim=0)) > 1, name


@pytest.mark.parametrize("row", **named(KERNELS))
def test_init_leaves_the_sites_and_refreshes_what_is_known_of_them(row: KernelRow) -> None:
    """As it must after another kernel has moved some."""
    kernel, state = started(row, 5)
    fresh = {name: state[name].flip(0) for name in kernel.target.sites}
    with torch.no_grad():
        again = kernel.init({**state, **fresh})
        anew = kernel.init(fresh)
    assert set(again) == set(anew)
    # Other private values may be a memory of the chain, which is kept.
    names = [name for name in (*fresh, "~potential", "~gradient") if name in again]
    assert all(torch.equal(again[name], anew[name]) for name in names)


@pytest.mark.parametrize("row", **named(KERNELS))
def test_a_second_run_keeps_the_graphs(row: KernelRow) -> None:
    target = EXACT_TARGETS[row.targets[0]]
    kernel = row.make(target.program())
    parts = [kernel, *getattr(kernel, "kernels", [])]
    for part in parts:
        part.compile = "recorded"
    graphs: list[set[int]] = []
    for _ in range(2):
        kernel.setup(0)
        with torch.no_grad():
            step(kernel, kernel.init(start_exactly(kernel, target, 4)))
        graphs.append({id(graph) for part in parts for graph, _ in part.graphs.values()})
    assert graphs[0] and graphs[0] == graphs[1]
