# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Test log-probability of an RBM on MNIST beside Salakhutdinov and Murray (2008).

    python benchmarks/reproduce/rbm_mnist.py                  # PCD and CD-25, for one CPU core
    python benchmarks/reproduce/rbm_mnist.py --preset short   # a minute: does it run?

MNIST comes from the folder that ``PYRO_DEEPGEN_DATA`` names. Training images are binarised anew at
each presentation, each pixel by its own probability; test images once (``fixed``).

The machine has 784 visible and 500 hidden units, and learns by Pyro's ``Trace_ELBO`` with an empty
guide: with persistent chains (PCD), and with 25 steps from the data (CD-25, as published). Plain
stochastic gradients of centred units with a small weight cost, the learning rate falls to 0 by a
straight line; visible biases start at the data's log-odds.

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
from benchmarks.reproduce.boltzmann.figures import HEURISTIC, AnnealedFigure, annealed_figure
from benchmarks.reproduce.boltzmann.learning import boltzmann_learning
from benchmarks.reproduce.runs import pages
from benchmarks.reproduce.runs.training import Cost, linearly_to_zero, train
from pyro_deepgen.datasets import Binarize, mnist
from pyro_deepgen.energy import RBM, ContrastiveDivergence, NegativePhase, PersistentChains

NAME = "rbm_mnist"
# Large weights let chains mix slowly, which both learning and annealing suffer from.
WEIGHT_COST = 1e-4
SHAPE = (28, 28)
# Salakhutdinov and Murray 2008, CD-25, 500 hidden units.
PUBLISHED = {"log Z": 451.28, "test": -86.34}


@dataclass(frozen=True)
class Learning:
    """How one row is trained.

    Args:
        epochs: epochs.
        rate: the first learning rate.
        steps: steps of Gibbs sampling for each gradient.
        batch: images of each gradient.
        chains: persistent chains; 0 for chains from the data.
    """

    epochs: int
    rate: float
    steps: int
    batch: int
    chains: int = 0

    def negative_phase(self) -> NegativePhase:
        """The negative phase of a new machine."""
        if self.chains:
            return PersistentChains(self.chains, self.steps)
        return ContrastiveDivergence(self.steps)

    def __str__(self) -> str:
        """In words."""
        kind = f"{self.chains} persistent chains, " if self.chains else "from the data, "
        steps = f"{self.steps} step{'s' * (self.steps != 1)}"
        return f"{kind}{steps}, batches of {self.batch}, rate {self.rate:g}"


@dataclass(frozen=True)
class Preset:
    """What distinguishes a quick run from a full one."""

    hidden: int
    rows: dict[str, Learning]
    train_images: int
    test_images: int
    chains: int
    temperatures: int
    start_steps: int
    picture_steps: tuple[int, ...]


PRESETS = {
    "short": Preset(
        hidden=32,  # too many to enumerate
        rows={"PCD": Learning(2, 0.05, 1, 50, 20), "CD-25": Learning(1, 0.05, 25, 100)},
        train_images=500,
        test_images=100,
        chains=20,
        temperatures=50,
        start_steps=10,
        picture_steps=(0, 1, 10),
    ),
    "reproduction": Preset(
        hidden=500,
        rows={"PCD": Learning(60, 0.05, 1, 50, 50), "CD-25": Learning(15, 0.05, 25, 100)},
        train_images=60_000,
        test_images=10_000,
        chains=100,
        temperatures=10_000,
        start_steps=2_000,
        picture_steps=(0, 1, 10, 100, 1000, 2000, 5000),
    ),
}


def load(preset: Preset, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Grey training images, and binary training and test images, ``(N, 784)`` each."""
    data = mnist(protocol="gray")
    grey = data.x_train[: preset.train_images].flatten(1)
    binary = Binarize("fixed")(grey)
    test = Binarize("fixed")(data.x_test[: preset.test_images].flatten(1))
    return grey.to(device), binary.to(device), test.to(device)


def make_machine(hidden: int, learning: Learning, grey: torch.Tensor) -> RBM:
    """A machine whose visible biases are the data's log-odds."""
    phase = learning.negative_phase()
    rbm = RBM(grey.shape[1], hidden, centred=True, negative_phase=phase, validate_args=False)
    rbm.to(grey.device)
    with torch.no_grad():
        rbm.visible_bias.copy_(grey.mean(0).clamp(1e-3, 1 - 1e-3).logit())
    rbm.set_base(grey)  # where annealing starts
    return rbm


def train_machine(rbm: RBM, learning: Learning, grey: torch.Tensor, file: Path, args: Any) -> Cost:
    """Train a machine, or put back what it learned."""
    loss = boltzmann_learning(rbm)
    groups = [
        {"params": [rbm.weight], "weight_decay": WEIGHT_COST},
        {"params": [rbm.visible_bias, rbm.hidden_bias]},
    ]
    optimizer = torch.optim.SGD(groups, learning.rate)
    epochs = (args.epochs if args.name == NAME else None) or learning.epochs
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, linearly_to_zero(epochs))
    return train(
        loss,
        grey,
        optimizer,
        epochs=epochs,
        checkpoint=file,
        minutes=args.minutes,
        batch_size=learning.batch,
        transform=Binarize("dynamic", validate_args=False),
        scheduler=decay,
    )


def trained(name: str, args: argparse.Namespace, folder: Path) -> tuple[RBM, Cost]:
    """The machine of a row of a preset, trained or put back from the checkpoint in a folder."""
    preset = PRESETS[args.preset]
    learning = preset.rows[name]
    grey, _, _ = load(preset, args.device)
    pyro.set_rng_seed(args.seed)
    rbm = make_machine(preset.hidden, learning, grey)
    folder.mkdir(parents=True, exist_ok=True)
    return rbm, train_machine(rbm, learning, grey, folder / f"{name}.pt", args)


def run(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train one machine, measure it and draw pictures."""
    preset = PRESETS[args.preset]
    _, binary, test = load(preset, args.device)
    rbm, training = trained(name, args, args.folder)
    testing = Cost()
    figure = annealed_figure(
        rbm,
        rbm.log_prob,
        binary,
        test,
        start=binary[: preset.chains],
        chains=preset.chains,
        temperatures=preset.temperatures,
        start_steps=preset.start_steps,
        cost=testing,
        seed=args.seed,
    )
    draw(rbm, name, figure, test, args)
    return {
        "learning": str(preset.rows[name]),
        "figure": asdict(figure),
        "training": asdict(training),
        "testing": asdict(testing),
    }


def draw(
    rbm: RBM, name: str, figure: AnnealedFigure, test: torch.Tensor, args: argparse.Namespace
) -> None:
    """Write the pictures of one machine."""
    preset = PRESETS[args.preset]
    pyro.set_rng_seed(args.seed)
    what = f"RBM by {name}, {figure.test:.1f} nats"
    stem = args.results / f"{NAME}-{args.preset}-{name.lower()}"

    title = f"{what}: the 100 filters of the largest norm"
    pictures.draw_filters(rbm.weight, SHAPE, Path(f"{stem}-filters.png"), title)
    title = f"{what}: chains from independent pixels, means given the hidden units"
    times = preset.picture_steps
    with torch.no_grad():
        start = rbm.path_start().sample((12,))
    pictures.draw_chains(
        rbm.transition,
        lambda v: rbm.visible.mean(rbm.visible_field(rbm.sample_hidden(v))),
        start,
        SHAPE,
        Path(f"{stem}-chains.png"),
        title,
        times,
    )
    title = f"{what}: right halves drawn given left ones, test images"
    pictures.draw_halves(
        lambda x, known: rbm.impute(x, known, times[-1] // 5),
        test[:12],
        SHAPE,
        Path(f"{stem}-halves.png"),
        title,
    )


def table(rows: dict[str, Any], args: argparse.Namespace) -> list[str]:
    """The page."""
    preset = PRESETS[args.preset]
    lines = [
        "# RBM on MNIST",
        "",
        f"Command: `python benchmarks/reproduce/rbm_mnist.py --preset {args.preset}`. Average "
        f"log-probability in nats of {preset.test_images:,} test images, +- its standard error "
        f"over images, of a machine with 784 visible and {preset.hidden} hidden units, trained on "
        f"{preset.train_images:,} images through Pyro's `Trace_ELBO` with an "
        f"empty guide, with centred units and a weight cost of {WEIGHT_COST:g}. Binarisation: each "
        f"training pixel anew by its own probability at each presentation (dynamic), test images "
        f"once ({Binarize('fixed').name}); the training figure is of as many training images, "
        "binarised once. log Z by annealed importance sampling from "
        f"the data's mean, {preset.chains} chains and "
        f"{preset.temperatures:,} temperatures in each direction. {HEURISTIC} Published: "
        "Salakhutdinov and Murray 2008.",
        "",
        "| learning | test | test, with log Z in reverse | train | log Z | log Z in reverse "
        "(heuristic) | epochs | updates | training: processor min / clock min / load | testing: "
        "the same |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, learning in preset.rows.items():
        if name not in rows:
            lines.append(f"| {name} ({learning}) | not run | | | | | | | | |")
            continue
        row = rows[name]
        figure = AnnealedFigure(**row["figure"])
        training = Cost(**row["training"])
        lines.append(
            f"| {name} ({row['learning']}) | {figure.test:.2f} +- {figure.test_error:.2f} "
            f"| {figure.test_in_reverse:.2f} | {figure.train:.2f} +- {figure.train_error:.2f} "
            f"| {figure.log_z:.2f} +- {figure.log_z_error:.2f} | {figure.reverse:.2f} "
            f"| {training.epochs} | {training.updates:,} | {training} | {Cost(**row['testing'])} |"
        )
    lines += [
        f"| CD-25, published | {PUBLISHED['test']} | | | {PUBLISHED['log Z']} | | | | | |",
        "",
        *sorted({f"Measured on {row['where']}." for row in rows.values()}),
    ]
    for name in rows:
        for kind in ("filters", "chains", "halves"):
            file = f"{NAME}-{args.preset}-{name.lower()}-{kind}.png"
            lines += ["", f"![{kind} of the machine trained by {name}]({file})"]
    return lines


def main(argv: list[str] | None = None) -> None:
    """Run the rows of a preset."""
    names = list(PRESETS["reproduction"].rows)
    args = pages.arguments(__doc__, NAME, names).parse_args(argv)
    pages.run_rows(args, names, run, table)


if __name__ == "__main__":
    main()
