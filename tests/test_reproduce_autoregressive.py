# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The scripts of published autoregressive figures run, are read back, and judge as they say."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pyro.distributions as dist
import pytest
import torch

from benchmarks.reproduce import autoregressive_mnist, autoregressive_uci, autoregressive_wine
from benchmarks.reproduce.flow_density import load
from benchmarks.reproduce.runs.pages import arguments

# Each script with its data files, its kept runs, and its pictures.
SCRIPTS: dict[ModuleType, tuple[tuple[str, ...], int, int]] = {
    autoregressive_uci: (("dna.npz", "mushrooms.npz"), 18, 0),
    autoregressive_wine: (("red_wine.npz",), 8, 0),
    autoregressive_mnist: (("mnist.npz",), 3, 3),
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__.split(".")[-1])
def test_a_script_trains_once_and_then_reads_back(
    script: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data_file: Callable[[str], Path],
) -> None:
    files, num_runs, num_pictures = SCRIPTS[script]
    for file in files:
        data_file(file)
    call = ["--preset", "short", "--device", "cpu", "--folder", str(tmp_path / "runs")]
    call += ["--results", str(tmp_path)]
    script.main(call)
    page = tmp_path / f"{script.NAME}-short.md"
    written = page.read_text()
    assert "not run" not in written
    assert "nan" not in written
    assert page.with_suffix(".json").is_file()
    assert len(list((tmp_path / "runs" / "short").glob("*.row.json"))) == num_runs
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == num_pictures
    assert all(f"({picture.name})" in written for picture in pictures)
    monkeypatch.delattr(script, "train" if script is autoregressive_mnist else "fit")
    script.main(call)
    assert page.read_text() == written


@pytest.mark.parametrize("model", ["FVSBN", "NADE", "EoNADE"])
def test_models_start_near_independent_variables(model: str) -> None:
    rates = torch.tensor([0.1, 0.5, 0.9, 0.3])
    x = torch.bernoulli(rates.expand(2000, 4))
    candidate = autoregressive_uci.Candidate(() if model == "FVSBN" else (6,), 0.1, 0.0, 1)
    made = autoregressive_uci.make(model, candidate, x).eval()
    independent = dist.Bernoulli(x.mean(0)).to_event(1).log_prob(x).mean()
    gap = -independent - autoregressive_uci.nats(made, x).mean()
    assert abs(float(gap)) < 0.5


def test_learning_gives_back_the_best_epoch() -> None:
    bits = torch.bernoulli(torch.full((300, 2), 0.5))[:, [0, 0, 1, 1]]
    split = autoregressive_uci.Split(bits, bits[:50], bits[:50])
    candidate = autoregressive_uci.Candidate((8,), 0.05, 0.0, 40, 50, rounds=4)
    made = autoregressive_uci.make("NADE", candidate, bits)
    best, updates = autoregressive_uci.learn(made, candidate, split, 0)
    assert 4 <= best <= 40
    assert updates == 40 * 6
    made.eval()
    assert float(autoregressive_uci.nats(made, bits).mean()) < 1.6  # 2 bits are 1.39 nats


def test_the_candidate_is_chosen_by_the_validation_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(data: str, model: str, candidate: Any, seed: int, args: Any) -> dict[str, float]:
        # The one that is best on the test split is not the one to take.
        return {"valid": candidate.decay, "test": -candidate.decay, "seed": seed}

    monkeypatch.setattr(autoregressive_uci, "run", run)
    args = arguments("a script", "a").parse_args(["--preset", "short", "--device", "cpu"])
    args.device, args.folder = torch.device("cpu"), tmp_path
    found = autoregressive_uci.row("dna", "NADE", args)
    assert found["chosen"]["decay"] == 0.0
    assert [r["seed"] for r in found["runs"]] == [0, 1]
    assert sorted(found["validation"].values()) == [0.0, 0.1]


def test_verdicts() -> None:
    assert autoregressive_uci.verdict(83.6, 83.64) == "better"
    assert autoregressive_uci.verdict(83.9, 83.64) == "within 0.3"
    assert autoregressive_uci.verdict(84.0, 83.64) == "not within"


def test_the_normal_distribution_and_the_flows_of_the_other_page(
    data_file: Callable[[str], Path],
) -> None:
    data_file("red_wine.npz")
    figures = autoregressive_wine.normal(0)
    x = load("red_wine", 0, 0).train.double()
    # The trace of the covariance by its own inverse is the number of columns.
    log_det = x.T.cov(correction=0).logdet()
    known = -0.5 * (11 + float(log_det) + 11 * float(torch.tensor(2 * torch.pi).log()))
    assert figures["train"] == pytest.approx(known, abs=1e-6)
    assert figures["parameters"] == 11 + 66
    rows = autoregressive_wine.quoted()
    assert [row.split("|")[1].strip() for row in rows] == [
        f"{flow} (quoted)" for flow in ("MAF", "RealNVP", "NSF")
    ]
