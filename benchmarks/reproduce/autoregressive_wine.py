# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Test log-likelihood of RNADE on red wine, beside a normal distribution and flows.

    python benchmarks/reproduce/autoregressive_wine.py                  # minutes of one CPU core
    python benchmarks/reproduce/autoregressive_wine.py --preset short   # seconds: does it run?

Data, splits and units are those of ``flow_density.py``, whose page has the flows' figures: they are
quoted from ``results/flow-density-cpu.md``, and not measured again. A seed fixes the split and the
start. For each seed the candidate and the epoch are chosen by the validation split. The normal
distribution has all covariances, by the moments of the training split.

Finished runs are kept in ``--folder`` and read back. The page and its numbers go to ``--results``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch

if not __package__:  # started as a file: the shared parts are found from the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.reproduce.flow_density import Split, load, mean_and_error
from benchmarks.reproduce.runs import pages
from pyro_deepgen.autoregressive import RNADE
from pyro_deepgen.fit import fit

NAME = "autoregressive_wine"
FLOWS = Path(__file__).parent / "results" / "flow-density-cpu.md"
NORMAL = "normal distribution"


@dataclass(frozen=True)
class Candidate:
    """What is chosen by the validation split.

    Args:
        hidden: number of hidden units.
        components: number of components of each mixture.
        rate: learning rate of AdamW at the start.
        decay: its weight decay.
    """

    hidden: int
    components: int
    rate: float
    decay: float

    def __str__(self) -> str:
        return (
            f"{self.hidden} units, {self.components} components, rate {self.rate:g}, decay "
            f"{self.decay:g}"
        )


@dataclass(frozen=True)
class Preset:
    """Candidates, seeds and epochs."""

    candidates: tuple[Candidate, ...]
    seeds: int
    epochs: int


PRESETS = {
    "short": Preset((Candidate(8, 2, 1e-2, 0.1), Candidate(4, 2, 1e-2, 0.1)), 2, 2),
    "reproduction": Preset(
        (
            Candidate(50, 10, 5e-3, 0.3),
            Candidate(50, 10, 1e-2, 1.0),
            Candidate(100, 10, 5e-3, 0.3),
        ),
        5,
        60,
    ),
}


class Loss(torch.nn.Module):
    """Minus the log-density of a batch."""

    def __init__(self, model: RNADE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over data ``(N, D)``."""
        return -self.model.log_prob(x).sum()


def run(kind: str, candidate: Candidate, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train and test one model."""
    epochs = PRESETS[args.preset].epochs
    split = Split(*(part.to(args.device) for part in load("red_wine", seed, 0)))
    pyro.set_rng_seed(seed)
    size = split.train.shape[1]
    model = RNADE(size, candidate.hidden, candidate.components, kind, validate_args=False)
    model.to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), candidate.rate, weight_decay=candidate.decay)
    start = time.process_time()
    history = fit(
        Loss(model),
        split.train,
        optimizer,
        num_epochs=epochs,
        batch_size=100,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs),
        clip_norm=10.0,
        held_out=split.valid,
        patience=epochs,  # never met: all epochs are run, and the best parameters given back
        seed=seed,
        progress=False,
    )
    seconds = time.process_time() - start
    model.eval()
    with torch.no_grad():
        train, valid, test = (float(model.log_prob(part).double().mean()) for part in split)
    print(f"{kind}, {candidate}, seed {seed}: {valid:.2f} {test:.2f}", flush=True)
    return {
        "train": train,
        "valid": valid,
        "test": test,
        "best epoch": 1 + min(range(epochs), key=history.held_out.__getitem__),
        "parameters": sum(p.numel() for p in model.parameters()),
        "updates": history.num_steps,
        "seconds": seconds,
    }


def normal(seed: int) -> dict[str, Any]:
    """The normal distribution with the moments of the training split."""
    split = Split(*(part.double() for part in load("red_wine", seed, 0)))
    fitted = dist.MultivariateNormal(split.train.mean(0), split.train.T.cov(correction=0))
    train, valid, test = (float(fitted.log_prob(part).mean()) for part in split)
    size = split.train.shape[1]
    parameters = size + size * (size + 1) // 2
    return {"train": train, "valid": valid, "test": test, "parameters": parameters}


def row(kind: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The best candidate of each seed by the validation split."""
    preset = PRESETS[args.preset]
    chosen = []
    for seed in range(preset.seeds):
        runs = []
        for candidate in preset.candidates:
            name = f"{kind}-{candidate}-{seed}".replace(" ", "_").replace(",", "")
            made = pages.kept(args, name, lambda c=candidate, s=seed: run(kind, c, s, args))
            runs.append({**made, "candidate": str(candidate)})
        chosen.append(max(runs, key=lambda each: float(each["valid"])))
    return chosen


def quoted() -> list[str]:
    """The rows of red wine on the flows' page: flow, and our log-likelihood with its error."""
    if not FLOWS.is_file():
        return []
    cells = [line.strip("| ").split(" | ") for line in FLOWS.read_text().splitlines()]
    return [f"| {c[1]} (quoted) | {c[2]} | | | | |" for c in cells if c[0] == "red_wine"]


def table(rows: dict[str, list[dict[str, Any]]], args: argparse.Namespace) -> Sequence[str]:
    """The page."""
    preset = PRESETS[args.preset]
    lines = [
        "# RNADE on red wine",
        "",
        f"Command: `python benchmarks/reproduce/autoregressive_wine.py --preset {args.preset}`. "
        "Mean log-likelihood of test data in nats, in units of the standard deviations of the "
        f"training split, +- standard error over {preset.seeds} seeds, each with its own split of "
        "80, 10 and 10 percent. (The columns are rounded and some rows repeat others, so the "
        "densities have no upper bound; the figures serve to compare.) Differences are paired by "
        f"seed. For each seed the best of {len(preset.candidates)} candidates and of "
        f"{preset.epochs} epochs by the validation split; AdamW with cosine decay, batch 100.",
        "",
        "| model | test | minus the normal distribution's | training split | parameters "
        "| training, processor s a run |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in rows.items():
        test, error = mean_and_error([r["test"] for r in runs])
        gaps = [r["test"] - n["test"] for r, n in zip(runs, rows[NORMAL], strict=True)]
        gap = "" if name == NORMAL else "{:+.3f} +- {:.3f}".format(*mean_and_error(gaps))
        train, _ = mean_and_error([r["train"] for r in runs])
        sizes = sorted({r["parameters"] for r in runs})
        seconds = "" if name == NORMAL else f"{mean_and_error([r['seconds'] for r in runs])[0]:.0f}"
        lines.append(
            f"| {name} | {test:.3f} +- {error:.3f} | {gap} | {train:.3f} "
            f"| {', '.join(f'{size:,}' for size in sizes)} | {seconds} |"
        )
    lines += quoted()
    lines += [
        "",
        "The quoted flows are those of [flow-density-cpu.md](flow-density-cpu.md), with the same "
        "splits, each trained once for a seed.",
        "",
        "Chosen, by seed:",
        "",
    ]
    for name, runs in rows.items():
        if name != NORMAL:
            found = "; ".join(f"{r['candidate']}, epoch {r['best epoch']}" for r in runs)
            lines.append(f"- {name}: {found}.")
    places = sorted({r["where"] for name, runs in rows.items() if name != NORMAL for r in runs})
    return [*lines, "", *(f"Measured on {place}." for place in places)]


def main(argv: list[str] | None = None) -> None:
    """Run a preset."""
    parser = pages.arguments(__doc__, NAME)
    args = parser.parse_args(argv)
    if args.epochs or args.minutes:
        parser.error("epochs belong to the presets of this script, and minutes have no effect")
    pages.prepare(args)
    rows = {NORMAL: [normal(seed) for seed in range(PRESETS[args.preset].seeds)]}
    for kind in ("gaussian", "laplace"):
        rows[f"RNADE, {kind} components"] = row(kind, args)
        pages.write(args, NAME, rows, table(rows, args))


if __name__ == "__main__":
    main()
