# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The script of flows as guides: its reference draws are of the posterior, it runs and resumes."""

from argparse import Namespace
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch

from benchmarks.reproduce import flow_posteriors as script

SIZES = {"steps": 3, "particles": 2, "draws": 40, "models": "banana"}
ARGUMENTS = [f"--{name}={value}" for name, value in SIZES.items()]


def test_the_draws_of_eight_schools_are_of_its_posterior(float64: torch.dtype) -> None:
    """Moments and evidence by importance sampling from the prior."""
    num = 200_000
    mu = dist.Normal(0.0, 5.0).sample((num,))
    tau = dist.HalfCauchy(torch.tensor(5.0)).sample((num,))
    spread = (script.ERRORS**2 + tau[:, None] ** 2).sqrt()
    weight = dist.Normal(mu[:, None], spread).log_prob(script.EFFECTS).sum(1).exp()
    draws, log_evidence = script.exact_eight_schools(20_000)
    error = weight.std() / weight.mean() / num**0.5
    assert (weight.mean().log() - log_evidence).abs() < 4 * error
    share = weight / weight.sum()
    for column, values in ((0, mu), (1, tau.log())):
        mean = (share * values).sum()
        error = (share**2 * (values - mean) ** 2).sum() + draws[:, column].var() / len(draws)
        assert (draws[:, column].mean() - mean).abs() < 4 * error.sqrt()
    # The effects, through their normal law given mean and scale: the residuals are standard.
    precision = 1 / script.ERRORS**2 + (-2 * draws[:, 1:2]).exp()
    center = script.EFFECTS / script.ERRORS**2 + draws[:, :1] * (-2 * draws[:, 1:2]).exp()
    residual = (draws[:, 2:] - center / precision) * precision.sqrt()
    assert residual.mean().abs() < 4 / residual.numel() ** 0.5
    assert (residual.square().mean() - 1).abs() < 4 * (2 / residual.numel()) ** 0.5


@pytest.mark.slow
def test_nuts_draws_from_the_posterior(tmp_path: Path) -> None:
    """Its columns are those of the exact draws, also after they are made of others and kept."""
    args = Namespace(draws=300, results=tmp_path)
    script.by_nuts("eight schools", args)
    draws, _ = script.by_nuts("eight schools", args)
    exact, _ = script.exact_eight_schools(20_000)
    assert draws.shape == (300, 10)
    # Ranks, as if there were 100 independent draws: the scale mixes slowest.
    for q in (0.25, 0.5, 0.75):
        below = (draws < exact.quantile(q, dim=0)).float().mean(0)
        assert ((below - q).abs() < 4 * (q * (1 - q) / 100) ** 0.5).all()


@pytest.mark.slow
def test_rows_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyro.clear_param_store()
    few = ("AutoNormal", "AutoFlow, RealNVP")
    monkeypatch.setattr(script, "GUIDES", {name: script.GUIDES[name] for name in few})
    folders = ["--folder", str(tmp_path / "rows"), "--results", str(tmp_path)]
    script.main([*ARGUMENTS, *folders])
    written = (tmp_path / "flow_posteriors.md").read_text()
    rows = ("NUTS, against exact draws", *script.GUIDES)
    assert all(f"| banana | {name} |" in written for name in rows)
    monkeypatch.delattr(script, "c2st")
    monkeypatch.delattr(script, "MCMC")
    script.main([*ARGUMENTS, *folders])
    assert (tmp_path / "flow_posteriors.md").read_text() == written
