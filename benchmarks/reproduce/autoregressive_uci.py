# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Test nats of three autoregressive models on binary UCI data beside published ones.

    python benchmarks/reproduce/autoregressive_uci.py                  # minutes of one CPU core
    python benchmarks/reproduce/autoregressive_uci.py --preset short   # seconds: does it run?

The data, ``dna.npz`` and ``mushrooms.npz`` (arrays ``x_train``, ``x_valid`` and ``x_test`` of 0 and
1, in the split of Larochelle and Murray 2011), come from the folder that ``PYRO_DEEPGEN_DATA``
names. A model and a data set have a few candidates each: hidden units, optimiser, rate, weight
decay, epochs. Each candidate learns from the training split with a rate that falls by a cosine,
and keeps the parameters of its best epoch on the validation split. The candidate that does best on
the validation split is trained with further seeds. The test split is for the table alone.

EoNADE is the mean over the densities of some orders of one ``OrderlessNADE``; it also chooses its
best epoch by the validation split, with one order.

Finished runs are kept in ``--folder`` and read back. The page and its numbers go to ``--results``.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from torch import nn

if not __package__:  # started as a file: the shared parts are found from the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.reproduce.runs import pages
from benchmarks.reproduce.uci.candidates import GOAL, PRESETS, PUBLISHED, Candidate
from pyro_deepgen.autoregressive import (
    NADE,
    AutoregressiveDistribution,
    LinearAutoregressive,
    OrderlessNADE,
)
from pyro_deepgen.fit import fit

NAME = "autoregressive_uci"


class Split(NamedTuple):
    """Training, validation and test data, each of shape ``(N, D)``."""

    train: torch.Tensor
    valid: torch.Tensor
    test: torch.Tensor


def load(name: str, num: int) -> Split:
    """A data set in its split."""
    folder = os.environ.get("PYRO_DEEPGEN_DATA")
    path = Path(folder or "") / f"{name}.npz"
    if folder is None or not path.is_file():
        raise FileNotFoundError(
            f"expected {name}.npz (arrays x_train, x_valid and x_test of 0 and 1) in the folder "
            f"that PYRO_DEEPGEN_DATA names, got {folder!r}; set it, or choose other rows by --only"
        )
    with np.load(path) as arrays:
        parts = [torch.from_numpy(arrays[f"x_{part}"][:num]) for part in Split._fields]
    return Split(*(part.float() for part in parts))


def make(model: str, candidate: Candidate, x: torch.Tensor) -> AutoregressiveDistribution:
    """A model whose output biases are the data's log-odds."""
    size = x.shape[1]
    made: AutoregressiveDistribution
    if model == "FVSBN":
        made = LinearAutoregressive(size, validate_args=False)
        (bias,) = (p for n, p in made.named_parameters() if n.endswith("bias"))
    elif model == "NADE":
        made = NADE(size, *candidate.hidden, validate_args=False)
        bias = made.out_bias
    else:
        made = OrderlessNADE(size, candidate.hidden, validate_args=False)
        bias = made.out.bias
    with torch.no_grad():
        odds = x.mean(0).clamp(1 / len(x), 1 - 1 / len(x)).logit()
        bias.copy_(odds.reshape(bias.shape))
    return made


class Loss(nn.Module):
    """Minus the log-probability of a batch."""

    def __init__(self, model: AutoregressiveDistribution) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over data ``(N, D)``."""
        return -self.model.log_prob(x).sum()


@torch.no_grad()
def nats(model: AutoregressiveDistribution, x: torch.Tensor) -> torch.Tensor:
    """Minus the log-probability of each datum."""
    return torch.cat([-model.log_prob(part) for part in x.split(200)]).double()


def learn(
    model: AutoregressiveDistribution, candidate: Candidate, split: Split, seed: int
) -> tuple[int, int]:
    """Train by a candidate's settings; return the best epoch, and the number of updates."""
    named = [*model.named_parameters()]
    groups = [
        {"params": [p for n, p in named if "bias" not in n], "weight_decay": candidate.decay},
        {"params": [p for n, p in named if "bias" in n], "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer
    if candidate.momentum is None:
        optimizer = torch.optim.AdamW(groups, candidate.rate)
    else:
        optimizer = torch.optim.SGD(
            groups, candidate.rate, momentum=candidate.momentum, nesterov=True
        )
    rounds = math.ceil(candidate.epochs / candidate.rounds)
    history = fit(
        Loss(model),
        split.train.repeat(candidate.rounds, 1),
        optimizer,
        num_epochs=rounds,
        batch_size=candidate.batch_size,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, rounds),
        clip_norm=None if candidate.momentum is None else 50.0,
        held_out=split.valid,
        patience=rounds,  # never met: all epochs are run, and the best parameters given back
        seed=seed,
        progress=False,
    )
    best = 1 + min(range(rounds), key=history.held_out.__getitem__)
    return best * candidate.rounds, history.num_steps


def run(
    data: str, model: str, candidate: Candidate, seed: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Train and measure one model."""
    preset = PRESETS[args.preset]
    split = Split(*(part.to(args.device) for part in load(data, preset.data)))
    pyro.set_rng_seed(seed)
    made = make(model, candidate, split.train).to(args.device)
    start = time.process_time()
    best, updates = learn(made, candidate, split, seed)
    trained = time.process_time()
    made.eval()
    size = sum(p.numel() for p in made.parameters())
    if isinstance(made, OrderlessNADE):
        made = made.ensemble(preset.orders)
    test = nats(made, split.test)
    result = {
        "valid": float(nats(made, split.valid).mean()),
        "test": float(test.mean()),
        "error": float(test.std() / len(test) ** 0.5),
        "train": float(nats(made, split.train[:500]).mean()),
        "best epoch": best,
        "updates": updates,
        "parameters": size,
        "training": trained - start,
        "testing": time.process_time() - trained,
    }
    print(
        f"{data}, {model}, {candidate}, seed {seed}: validation {result['valid']:.2f}, test "
        f"{result['test']:.2f}, {trained - start:.0f} s",
        flush=True,
    )
    return result


def row(data: str, model: str, args: argparse.Namespace) -> dict[str, Any]:
    """Choose a candidate by the validation split, and train it with further seeds."""
    preset = PRESETS[args.preset]
    candidates = preset.candidates[data, model]

    def kept(candidate: Candidate, seed: int) -> Any:
        name = f"{data}-{model}-{candidate}-{seed}".replace(" ", "_").replace(",", "")
        return pages.kept(args, name, lambda: run(data, model, candidate, seed, args))

    first = [kept(candidate, args.seed) for candidate in candidates]
    place = min(range(len(first)), key=lambda i: first[i]["valid"])
    runs = [first[place]]
    for seed in range(args.seed + 1, args.seed + preset.seeds):
        runs.append(kept(candidates[place], seed))
    return {
        "chosen": asdict(candidates[place]) | {"label": str(candidates[place])},
        "validation": {str(c): f["valid"] for c, f in zip(candidates, first, strict=True)},
        "runs": runs,
        "where": runs[0]["where"],
    }


def verdict(test: float, published: float) -> str:
    """How a figure stands beside a published one."""
    if test <= published:
        return "better"
    return f"within {GOAL:g}" if test <= published + GOAL else "not within"


def table(rows: dict[str, Any], args: argparse.Namespace) -> Sequence[str]:
    """The page."""
    preset = PRESETS[args.preset]
    lines = [
        "# Autoregressive models of binary UCI data",
        "",
        f"Command: `python benchmarks/reproduce/autoregressive_uci.py --preset {args.preset}`. "
        "Minus the log-probability of a datum in nats, mean over the split; mean and standard "
        f"deviation over {preset.seeds} seeds, and the standard error over test data of the first. "
        "FVSBN is `LinearAutoregressive`, EoNADE the mean of "
        f"{preset.orders} orders of an `OrderlessNADE`; the variables are in the order of the "
        "files. The published ensembles may have fewer orders. Epoch and candidate are chosen by "
        "the validation split (their figures are in the file of numbers); the candidates "
        "themselves come from shorter trials by hand, whose test figures were seen. Training in "
        "processor seconds a run. "
        "Parameters count the entries that FVSBN's mask hides. "
        f"The goal is a mean at most {GOAL:g} above the published one.",
        "",
        "| data | model | validation | test | s.e. over data | published | verdict | chosen, of "
        "| best epoch | training split | parameters | updates | training, s | testing, s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (data, model), published in PUBLISHED.items():
        found = rows.get(f"{data} {model}")
        if found is None:
            lines.append(f"| {data} | {model} | not run | | | {published} |" + " |" * 8)
            continue
        runs = found["runs"]
        mean = {key: fmean(r[key] for r in runs) for key in runs[0] if key != "where"}
        spread = stdev(r["test"] for r in runs)
        lines.append(
            f"| {data} | {model} | {mean['valid']:.2f} | {mean['test']:.2f} +- {spread:.2f} "
            f"| {runs[0]['error']:.2f} | {published} | {verdict(mean['test'], published)} "
            f"| {found['chosen']['label']}, of {len(found['validation'])} "
            f"| {', '.join(str(r['best epoch']) for r in runs)} | {mean['train']:.2f} "
            f"| {runs[0]['parameters']:,} | {runs[0]['updates']:,} | {mean['training']:.0f} "
            f"| {mean['testing']:.0f} |"
        )
    lines += ["", *sorted({f"Measured on {found['where']}." for found in rows.values()})]
    return lines


def main(argv: list[str] | None = None) -> None:
    """Run the rows of a preset."""
    names = [f"{data} {model}" for data, model in PUBLISHED]
    parser = pages.arguments(__doc__, NAME, names)
    args = parser.parse_args(argv)
    if args.epochs or args.minutes:
        parser.error("epochs belong to the presets of this script, and minutes have no effect")
    pages.prepare(args)
    chosen = args.only.split(",") if args.only else names
    rows: dict[str, Any] = {}
    for data, model in PUBLISHED:
        if f"{data} {model}" in chosen:
            rows[f"{data} {model}"] = row(data, model, args)
            pages.write(args, NAME, rows, table(rows, args))


if __name__ == "__main__":
    main()
