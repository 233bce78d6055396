# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""From exact draws every kernel stays exact, and a broken copy of it does not."""

import pytest
import torch

from tests.mcmc.exact_targets import (
    EXACT_TARGETS,
    FAILURE_RATE,
    NUM_REFERENCE,
    ExactTarget,
    p_value,
    p_value_of,
    start_exactly,
)
from tests.mcmc.kernel_row import KernelRow, Make
from tests.mcmc.table import KERNELS

PAIRS = [pytest.param(r, EXACT_TARGETS[t], id=f"{r.name}-{t}") for r in KERNELS for t in r.targets]
BROKEN = [
    pytest.param(r, EXACT_TARGETS[target], make, id=f"{r.name}-{wrong}")
    for r in KERNELS
    for wrong, (target, make) in r.broken.items()
]
pytestmark = pytest.mark.usefixtures("float64", "default_device")


@pytest.mark.parametrize(("row", "target"), PAIRS)
def test_exact_draws_stay_exact(row: KernelRow, target: ExactTarget) -> None:
    assert p_value_of(row.make(target.program()), target, row.num_steps) > FAILURE_RATE


@pytest.mark.parametrize(("row", "target", "make"), BROKEN)
def test_a_broken_copy_is_found(row: KernelRow, target: ExactTarget, make: Make) -> None:
    assert p_value_of(make(target.program()), target, row.num_steps + 3) < FAILURE_RATE


@pytest.mark.parametrize("row", KERNELS, ids=lambda row: row.name)
def test_exact_draws_stay_exact_after_a_warm_up(row: KernelRow) -> None:
    """What is adapted is another kernel, fixed from then on."""
    target = EXACT_TARGETS[row.targets[0]]
    kernel = row.make(target.program())
    kernel.setup(30)
    with torch.no_grad():
        kernel.warm_up(kernel.init(start_exactly(kernel, target, 200)), 30)
        state = kernel.init(start_exactly(kernel, target, 4000))
        for _ in range(2):
            state, _ = kernel.step(state)
    values = kernel.target.constrain(kernel.values(state))
    assert p_value(values, target.exact(NUM_REFERENCE)) > FAILURE_RATE


@pytest.mark.parametrize("row", KERNELS, ids=lambda row: row.name)
def test_recorded_steps_have_the_same_law(row: KernelRow) -> None:
    target = EXACT_TARGETS[row.targets[-1]]
    kernel = row.make(target.program())
    for part in [kernel, *getattr(kernel, "kernels", [])]:
        part.compile = "recorded"
    assert p_value_of(kernel, target, 2) > FAILURE_RATE
    assert any(part.graphs for part in [kernel, *getattr(kernel, "kernels", [])])


def test_the_comparison_fails_as_rarely_as_it_says() -> None:
    """Among 200 comparisons of exact draws, those below 0.05 are no more than chance allows."""
    p_values = []
    for name in ("normal", "discrete"):
        target = EXACT_TARGETS[name]
        for _ in range(100):
            p_values.append(p_value(target.exact(300), target.exact(3000)))
    below = sum(p < 0.05 for p in p_values)
    assert below <= 200 * 0.05 + 4 * (200 * 0.05 * 0.95) ** 0.5
