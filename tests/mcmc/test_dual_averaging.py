# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Adaptation of step sizes."""

import math

import pytest
import torch

from pyro_deepgen.mcmc.dual_averaging import DualAveraging

RATES = [0.1, 0.9, 0.75, 0.3, 0.95, 0.8, 0.2, 0.77]


def reference(
    rates: list[float], first: float, target: float, reach: float = 10.0
) -> tuple[float, float]:
    """Return the last step size tried and the average, as the paper's algorithm has them."""
    mean, average, step_size = 0.0, 0.0, first
    for t, rate in enumerate(rates, 1):
        mean = (1 - 1 / (t + 10)) * mean + (target - rate) / (t + 10)
        log_step = math.log(reach * first) - math.sqrt(t) / 0.05 * mean
        average = t**-0.75 * log_step + (1 - t**-0.75) * average
        step_size = math.exp(log_step)
    return step_size, math.exp(average)


@pytest.mark.parametrize("reach", [10.0, 1.0])
def test_it_is_the_algorithm_of_the_paper(float64: torch.dtype, reach: float) -> None:
    tuning: dict[str, torch.Tensor] = {}
    adaptation = DualAveraging(tuning, "step_size", 0.8)
    adaptation.start(torch.tensor(0.3), reach)
    for rate in RATES:
        adaptation.update(torch.tensor(rate))
    tried, kept = reference(RATES, 0.3, 0.8, reach)
    assert tuning["step_size"].item() == pytest.approx(tried, rel=1e-9)
    adaptation.finish()
    assert tuning["step_size"].item() == pytest.approx(kept, rel=1e-9)


def test_it_starts_anew_in_place(float64: torch.dtype) -> None:
    """A compiled graph holds on to the tensor."""
    tuning = {"step_size": torch.tensor(2.0)}
    kept = tuning["step_size"]
    adaptation = DualAveraging(tuning, "step_size", 0.8)
    for first in (5.0, torch.tensor(0.3)):
        adaptation.start(first)
        for rate in RATES:
            adaptation.update(rate)
    adaptation.finish()
    assert tuning["step_size"] is kept
    assert kept.item() == pytest.approx(reference(RATES, 0.3, 0.8)[1], rel=1e-9)


def test_each_of_several_step_sizes_finds_its_own_rate(float64: torch.dtype) -> None:
    tuning = {"step_size": torch.ones(3)}
    scale = torch.tensor([0.1, 1.0, 20.0])
    adaptation = DualAveraging(tuning, "step_size", 0.7)
    adaptation.start(1.0)
    for _ in range(500):
        adaptation.update(torch.exp(-tuning["step_size"] / scale))
    adaptation.finish()
    expected = -math.log(0.7) * scale
    assert torch.allclose(tuning["step_size"], expected, rtol=0.05)


@pytest.mark.parametrize("parts", [4, 10])
def test_parts_of_a_step_count_for_parts(float64: torch.dtype, parts: int) -> None:
    """Many updates by a fraction come near to one, and nearer than as many whole ones."""

    def adapted(parts: int, weight: float) -> float:
        tuning = {"step_size": torch.tensor(0.3)}
        adaptation = DualAveraging(tuning, "step_size", 0.8)
        adaptation.start(0.3)
        for rate in RATES * 5:
            for _ in range(parts):
                adaptation.update(rate, weight)
        adaptation.finish()
        return math.log(tuning["step_size"].item())

    whole = adapted(1, 1.0)
    assert abs(adapted(parts, 1 / parts) - whole) < 0.3 * abs(adapted(parts, 1.0) - whole)
