# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The script of neural posterior estimation: its simulators are the benchmark's, it resumes."""

from collections.abc import Callable
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch

from benchmarks.reproduce import flow_posteriors_amortised as script

SIZES = {"draws": 40, "sizes": 40, "updates": 3, "width": 4, "layers": 1, "tasks": "two_moons"}
ARGUMENTS = [f"--{name}={value}" for name, value in SIZES.items()]


def test_the_density_of_slcp_is_that_of_its_simulator(float64: torch.dtype) -> None:
    theta = torch.tensor([0.5, -1.0, 1.3, -0.8, 0.6])
    x = script.slcp(theta.expand(20_000, 5))
    s, slant = theta[2:4] ** 2, theta[4].tanh()
    covariance = torch.stack([s[0] ** 2, slant * s.prod(), slant * s.prod(), s[1] ** 2])
    normal = dist.MultivariateNormal(theta[:2], covariance.reshape(2, 2)).expand((4,)).to_event(1)
    expected = normal.log_prob(x.unflatten(-1, (4, 2)))
    torch.testing.assert_close(script.log_likelihood_slcp(x, theta), expected)
    # Minus the mean log-density is the entropy, of a variance of 4 as of any normal's eight.
    gap = expected.mean() + 4 * dist.MultivariateNormal(theta[:2], covariance.view(2, 2)).entropy()
    assert gap.abs() < 4 * (4 / len(x)) ** 0.5


@pytest.mark.parametrize("task", ["two_moons", "slcp"])
def test_the_simulator_has_the_reference_posterior(
    task: str, data_file: Callable[[str], Path]
) -> None:
    """Mean and spread of a posterior by our simulator against the draws of the benchmark."""
    data_file(f"sbi/{task}/1/observation.csv")
    _, x, reference = list(script.observations(task))[1]
    exact = script.TASKS[task].exact(x, 300)
    for power in (1, 2):
        ours, theirs = exact.abs() ** power, reference.abs() ** power
        error = (ours.var(0) / len(ours) + theirs.var(0) / len(theirs)).sqrt()
        assert ((ours.mean(0) - theirs.mean(0)).abs() < 4 * error).all()


def test_a_posterior_estimate_stays_in_the_cube() -> None:
    task = script.TASKS["two_moons"]
    theta = 2 * torch.rand(50, 2) - 1
    x = task.simulate(theta)
    estimate = script.PosteriorEstimate(task, x, width=4, num_layers=1)
    back = 2 * torch.special.ndtr(estimate.quantiles(theta)) - 1
    torch.testing.assert_close(back, theta, atol=1e-5, rtol=0)
    assert estimate.draw(x[0], 100).abs().max() <= 1


@pytest.mark.slow
def test_rows_are_measured_once(
    tmp_path: Path, data_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data_file("sbi/two_moons/1/observation.csv")
    pyro.clear_param_store()
    folders = ["--folder", str(tmp_path / "rows"), "--results", str(tmp_path)]
    script.main([*ARGUMENTS, *folders])
    written = (tmp_path / "flow_posteriors_amortised.md").read_text()
    assert "| two_moons | 40 |" in written
    monkeypatch.delattr(script, "c2st")
    script.main([*ARGUMENTS, *folders])
    assert (tmp_path / "flow_posteriors_amortised.md").read_text() == written
