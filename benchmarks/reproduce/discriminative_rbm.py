# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Test error of discriminative RBMs on MNIST beside Larochelle and Bengio (2008).

    python benchmarks/reproduce/discriminative_rbm.py                  # for one CPU core
    python benchmarks/reproduce/discriminative_rbm.py --preset short   # seconds: does it run?

MNIST comes from the folder that ``PYRO_DEEPGEN_DATA`` names. Training images are binarised anew at
each presentation; images to be classified keep their grey values, the means of their pixels.

All rows learn by ``HybridObjective``: the class given the image alone (discriminative), or with a
little of the joint density (hybrid), whose gradient comes from persistent chains. Adam, the
learning rate falls to 0 by a straight line. Ten thousand of the training images are held out, and
the parameters are those of the epoch with the lowest error on them.

Every row has checkpoints in ``--folder``: the script resumes where it was stopped, and finished
rows are read back. Table, numbers and pictures go to ``benchmarks/reproduce/results``.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyro
import torch

if not __package__:  # started as a file: the shared parts are found from the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.reproduce.boltzmann import pictures
from benchmarks.reproduce.runs import pages
from benchmarks.reproduce.runs.training import Cost, linearly_to_zero, train
from pyro_deepgen.datasets import Binarize, mnist
from pyro_deepgen.energy import DiscriminativeRBM, HybridObjective, PersistentChains

NAME = "discriminative_rbm"
SHAPE = (28, 28)
# Test error in percent, Larochelle and Bengio 2008.
PUBLISHED = {"discriminative": 1.81, "hybrid": 1.28}


@dataclass(frozen=True)
class Learning:
    """How one row is trained.

    Args:
        hidden: number of hidden units.
        generative: weight of the joint density.
        epochs: epochs at most.
        rate: the first learning rate.
    """

    hidden: int
    generative: float
    epochs: int
    rate: float = 1e-3


@dataclass(frozen=True)
class Preset:
    """What distinguishes a quick run from a full one."""

    rows: dict[str, Learning]
    train_images: int
    validation_images: int
    test_images: int
    chains: int


PRESETS = {
    "short": Preset(
        rows={"discriminative": Learning(16, 0.0, 2), "hybrid": Learning(16, 0.01, 2)},
        train_images=500,
        validation_images=100,
        test_images=200,
        chains=20,
    ),
    "reproduction": Preset(
        rows={"discriminative": Learning(500, 0.0, 60), "hybrid": Learning(500, 0.01, 40)},
        train_images=50_000,
        validation_images=10_000,
        test_images=10_000,
        chains=100,
    ),
}


@torch.no_grad()
def error(machine: DiscriminativeRBM, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """The share of wrong classes in percent, and its standard error."""
    training = machine.training
    machine.eval()
    guesses = [machine.labels_given(part).logits.argmax(-1) for part in x.split(500)]
    machine.train(training)
    wrong = (torch.cat(guesses) != y).double()
    return 100 * float(wrong.mean()), 100 * float(wrong.std() / len(wrong) ** 0.5)


def run(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train one machine, measure it and draw its filters."""
    preset = PRESETS[args.preset]
    learning = preset.rows[name]
    data = mnist(protocol="gray")
    x, y = data.x_train.flatten(1).to(args.device), data.y_train.to(args.device)
    first, last = preset.train_images, preset.train_images + preset.validation_images
    x_test = data.x_test[: preset.test_images].flatten(1).to(args.device)
    y_test = data.y_test[: preset.test_images].to(args.device)
    pyro.set_rng_seed(args.seed)
    machine = DiscriminativeRBM(
        x.shape[1],
        learning.hidden,
        num_classes=10,
        weight_scale=0.05,
        negative_phase=PersistentChains(preset.chains),
        validate_args=False,
    ).to(args.device)
    with torch.no_grad():
        pixels = x[:first].mean(0).clamp(1e-3, 1 - 1e-3).logit()
        machine.visible_bias[: len(pixels)].copy_(pixels)
    loss = HybridObjective(machine, generative=learning.generative)
    optimizer = torch.optim.Adam(loss.parameters(), learning.rate, fused=True)
    epochs = args.epochs or learning.epochs
    training = train(
        loss,
        (x[:first], y[:first]),
        optimizer,
        epochs=epochs,
        checkpoint=args.folder / f"{name}.pt",
        minutes=args.minutes,
        watch=lambda: error(machine, x[first:last], y[first:last])[0],
        every=1,
        batch_size=100,
        transform=Binarize("dynamic", validate_args=False),
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, linearly_to_zero(epochs)),
    )
    wrong, spread = error(machine, x_test, y_test)
    path = args.results / f"{NAME}-{args.preset}-{name}-filters.png"
    title = f"{name} RBM, {wrong:.2f} % error: the 100 filters of the largest norm"
    pictures.draw_filters(machine.weight[: x.shape[1]], SHAPE, path, title)
    return {
        "hidden": learning.hidden,
        "generative": learning.generative,
        "error": wrong,
        "standard_error": spread,
        "training": asdict(training),
    }


def table(rows: dict[str, Any], args: argparse.Namespace) -> list[str]:
    """The page."""
    preset = PRESETS[args.preset]
    lines = [
        "# Discriminative RBMs on MNIST",
        "",
        f"Command: `python benchmarks/reproduce/discriminative_rbm.py --preset {args.preset}`. "
        f"Error in percent on {preset.test_images:,} test images, +- its standard error over "
        f"images. Trained on {preset.train_images:,} images in batches of 100 by Adam, binarised "
        f"anew at each presentation (dynamic); classified by grey values. The "
        f"parameters are those of the epoch with the lowest error on {preset.validation_images:,} "
        "images held out, the last of the file. Published: Larochelle and Bengio 2008, whose "
        "hybrid machine has 1,500 hidden units.",
        "",
        "| learning | hidden units | test error, % | published, % | validation error, % | epoch of "
        "it | epochs | training: processor min / clock min / load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in preset.rows:
        if name not in rows:
            lines.append(f"| {name} | | not run | {PUBLISHED[name]} | | | | |")
            continue
        row, cost = rows[name], Cost(**rows[name]["training"])
        weight = f", weight {row['generative']:g}" if row["generative"] else ""
        lines.append(
            f"| {name}{weight} | {row['hidden']} | {row['error']:.2f} +- "
            f"{row['standard_error']:.2f} | {PUBLISHED[name]} | {cost.best:.2f} "
            f"| {cost.best_epoch} | {cost.epochs} | {cost} |"
        )
    lines += ["", *sorted({f"Measured on {row['where']}." for row in rows.values()})]
    for name in rows:
        lines += ["", f"![filters, {name}]({NAME}-{args.preset}-{name}-filters.png)"]
    return lines


def main(argv: list[str] | None = None) -> None:
    """Run the rows of a preset."""
    names = list(PRESETS["reproduction"].rows)
    args = pages.arguments(__doc__, NAME, names).parse_args(argv)
    pages.run_rows(args, names, run, table)


if __name__ == "__main__":
    main()
