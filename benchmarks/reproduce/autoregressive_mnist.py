# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Test nats of MADE and NADE on binary MNIST beside published ones.

    python benchmarks/reproduce/autoregressive_mnist.py                  # 30 minutes of one core
    python benchmarks/reproduce/autoregressive_mnist.py --preset short   # seconds: does it run?

MNIST comes from the folder that ``PYRO_DEEPGEN_DATA`` names. The published figures are for the file
of Larochelle, in which each pixel was drawn once by its grey value; that file is not read here. The
images are binarised in the same way, but by the protocol ``fixed``, so single pixels differ. A part
of the training images at random is the validation split, by which the epoch is chosen. (In files
of MNIST the last training images may have another share of each digit than the first.)

Each model trains through Pyro's ``Trace_ELBO`` with an empty guide, until its epochs or its minutes
of the processor are over. Checkpoints are kept in ``--folder``: the script resumes where it was
stopped. The page, its numbers and pictures go to ``--results``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyro
import torch

if not __package__:  # started as a file: the shared parts are found from the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.reproduce.boltzmann.learning import boltzmann_learning
from benchmarks.reproduce.runs import pages
from benchmarks.reproduce.runs.binary_mnist import FIXED, SHAPE, load, nats
from benchmarks.reproduce.runs.training import Cost, linearly_to_zero, train
from pyro_deepgen.autoregressive import MADE, NADE, AutoregressiveDistribution
from pyro_deepgen.plots import image_grid

NAME = "autoregressive_mnist"
# With 500 hidden units each: MADE with one mask, and NADE in a fixed order.
DIRECT = "MADE-direct"  # whose inputs also enter the last layer
PUBLISHED = {"MADE": 94.5, DIRECT: 94.5, "NADE": 88.33}


@dataclass(frozen=True)
class Learning:
    """How a model learns.

    Args:
        hidden: number of hidden units.
        epochs: epochs, over which the rate falls to zero by a straight line.
        rate: learning rate of Adam at the start.
        penalty: half the factor of the squared weights that are added to the loss.
        minutes: of the processor, after which training stops.
    """

    hidden: int
    epochs: int
    rate: float
    penalty: float
    minutes: float


@dataclass(frozen=True)
class Preset:
    """Models and numbers of images."""

    rows: dict[str, Learning]
    train_images: int
    valid_images: int
    test_images: int


PRESETS = {
    "short": Preset(
        {
            "MADE": Learning(16, 2, 1e-3, 1e-4, 1),
            DIRECT: Learning(16, 2, 1e-3, 1e-4, 1),
            "NADE": Learning(8, 1, 1e-3, 0.0, 1),
        },
        200,
        100,
        100,
    ),
    "reproduction": Preset(
        {
            "MADE": Learning(500, 40, 2e-3, 1e-4, 15),
            DIRECT: Learning(500, 25, 2e-3, 1e-4, 15),
            "NADE": Learning(500, 16, 2e-3, 0.0, 30),
        },
        50_000,
        10_000,
        10_000,
    ),
}


def make(name: str, learning: Learning, x: torch.Tensor) -> AutoregressiveDistribution:
    """A model whose output biases are the data's log-odds."""
    made: AutoregressiveDistribution
    size = x.shape[1]
    if name != "NADE":
        made = MADE(size, (learning.hidden,), skip=name == DIRECT, validate_args=False)
        (bias,) = (p for n, p in made.named_parameters() if n.endswith("layers.1.bias"))
    else:
        made = NADE(size, learning.hidden, validate_args=False)
        bias = made.out_bias
    with torch.no_grad():
        bias.copy_(x.mean(0).clamp(1e-3, 1 - 1e-3).logit().reshape(bias.shape))
    return made


def run(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train one model, measure it and draw from it."""
    preset = PRESETS[args.preset]
    learning = preset.rows[name]
    numbers = preset.train_images, preset.valid_images, preset.test_images
    x, valid, test = load(*numbers, args.device)
    pyro.set_rng_seed(args.seed)
    model = make(name, learning, x).to(args.device)
    loss = boltzmann_learning(model)  # minus the log-probability, for any distribution
    epochs = args.epochs or learning.epochs
    optimizer = torch.optim.Adam(
        loss.parameters(), learning.rate, weight_decay=learning.penalty, fused=True
    )
    cost = train(
        loss,
        x,
        optimizer,
        epochs=epochs,
        checkpoint=args.folder / f"{name}.pt",
        minutes=args.minutes or learning.minutes,
        watch=lambda: float(nats(model, valid).mean()),
        every=1,
        batch_size=100,
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, linearly_to_zero(epochs)),
        seed=args.seed,
    )
    model.eval()
    testing = Cost()
    with testing.measured():
        scores = nats(model, test)
        known = nats(model, x[: len(test)])
    pyro.set_rng_seed(args.seed)
    images = model.sample((100,)).reshape(-1, *SHAPE).cpu()
    title = f"{name} of {learning.hidden} units, {float(scores.mean()):.1f} nats: draws"
    image_grid(images, 10, title).savefig(args.results / picture(name, args), dpi=100)
    return {
        "learning": asdict(learning),
        "test": float(scores.mean()),
        "error": float(scores.std() / len(scores) ** 0.5),
        "valid": cost.best,
        "train": float(known.mean()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "training": asdict(cost),
        "testing": asdict(testing),
    }


def picture(name: str, args: argparse.Namespace) -> str:
    """The file name of a model's picture."""
    return f"{NAME}-{args.preset}-{name.lower()}.png"


def table(rows: dict[str, Any], args: argparse.Namespace) -> Sequence[str]:
    """The page."""
    preset = PRESETS[args.preset]
    lines = [
        "# MADE and NADE on binary MNIST",
        "",
        f"Command: `python benchmarks/reproduce/autoregressive_mnist.py --preset {args.preset}`. "
        "Minus the log-probability of an image in nats, +- standard error over "
        f"{preset.test_images:,} test images. {preset.train_images:,} training images, and "
        f"{preset.valid_images:,} others for the choice of the epoch, at random. Binarisation: "
        f"{FIXED.name}, each pixel drawn once by its grey value. The published figures "
        "are for Larochelle's file, which was drawn so too but is not used here, so that single "
        "pixels differ. One hidden layer; the variables in reading order; Adam, batch 100, with a "
        "rate that falls to zero by a straight line and a penalty on squared weights. Training "
        "stops after its epochs, or after its minutes of the processor (marked budget). Of a MADE "
        "with fewer units than pixels, no unit leads from some pixels to the next one; MADE-direct "
        "has direct connections from the pixels to the outputs, too.",
        "",
        "| model | hidden units | test | published | validation | as many training images "
        "| parameters | best epoch, of those run | ended | planned epochs | updates "
        "| training: processor min / clock min / load | testing: the same |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, learning in preset.rows.items():
        if name not in rows:
            lines.append(f"| {name} | {learning.hidden} | not run | {PUBLISHED[name]} |" + " |" * 9)
            continue
        found = rows[name]
        cost = Cost(**found["training"])
        lines.append(
            f"| {name} | {found['learning']['hidden']} | {found['test']:.2f} +- "
            f"{found['error']:.2f} | {PUBLISHED[name]} | {found['valid']:.2f} "
            f"| {found['train']:.2f} | {found['parameters']:,} | {cost.best_epoch} of "
            f"{cost.epochs} | {cost.stopped} | {found['learning']['epochs']} | {cost.updates:,} "
            f"| {cost} | {Cost(**found['testing'])} |"
        )
    lines += ["", *sorted({f"Measured on {found['where']}." for found in rows.values()})]
    for name in rows:
        lines += ["", f"![draws from {name}]({picture(name, args)})"]
    return lines


def main(argv: list[str] | None = None) -> None:
    """Run the rows of a preset."""
    names = list(PRESETS["reproduction"].rows)
    args = pages.arguments(__doc__, NAME, names).parse_args(argv)
    pages.run_rows(args, names, run, table)


if __name__ == "__main__":
    main()
