# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Test nats of PixelCNN and PixelRNN on binary MNIST beside published ones.

    python benchmarks/reproduce/pixel_mnist.py                  # 16 minutes of one core
    python benchmarks/reproduce/pixel_mnist.py --preset short   # seconds: does it run?
    python benchmarks/reproduce/pixel_mnist.py --preset paper   # the published sizes, for a GPU

MNIST comes from the folder that ``PYRO_DEEPGEN_DATA`` names, and is split and binarised as in
``autoregressive_mnist.py``. The validation images choose the epoch.

Each model trains through Pyro's ``Trace_ELBO`` with an empty guide, until its epochs or its minutes
of the processor are over. Checkpoints are kept in ``--folder``: the script resumes where it was
stopped. The page, its numbers and pictures go to ``--results``.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyro
import torch

if not __package__:  # started as a file: the shared parts are found from the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.reproduce.boltzmann.learning import boltzmann_learning
from benchmarks.reproduce.runs import pages
from benchmarks.reproduce.runs.binary_mnist import FIXED, SHAPE, load, nats
from benchmarks.reproduce.runs.training import Cost, train
from pyro_deepgen.autoregressive import PixelCNN, PixelRNN
from pyro_deepgen.plots import image_grid

NAME = "pixel_mnist"
CLASSES = {"PixelCNN": PixelCNN, "PixelRNN": PixelRNN}


@dataclass(frozen=True)
class Learning:
    """A network, and how it learns.

    Args:
        sizes: arguments of the network.
        published: nats in the paper, of a network that ``of`` describes.
        of: that network.
        epochs: epochs, over whose steps the rate falls to zero by half a cosine wave.
        rate: learning rate of Adam at the start.
        minutes: of the processor, after which training stops.
        batch: images a step.
    """

    sizes: dict[str, Any]
    published: float
    of: str
    epochs: int
    rate: float
    minutes: float
    batch: int = 16


@dataclass(frozen=True)
class Preset:
    """Models and numbers of images."""

    rows: dict[str, Learning] = field(default_factory=dict)
    train_images: int = 50_000
    valid_images: int = 2_000
    test_images: int = 10_000


# van den Oord, Kalchbrenner and Kavukcuoglu 2016, table 4. The paper's h is `num_units` of PixelRNN
# and half of `num_channels` of PixelCNN.
CNN, ONE, SEVEN = (
    (81.30, "PixelCNN"),
    (80.75, "Diagonal BiLSTM, 1 layer, h = 32"),
    (79.20, "Diagonal BiLSTM, 7 layers, h = 16"),
)

PRESETS = {
    "short": Preset(
        {
            "PixelCNN": Learning({"num_blocks": 1, "num_channels": 8}, *CNN, 2, 1e-2, 1),
            "PixelRNN": Learning({"num_layers": 1, "num_units": 4}, *ONE, 2, 1e-2, 1),
        },
        200,
        50,
        50,
    ),
    "reproduction": Preset(
        {
            "PixelCNN": Learning(
                {"num_blocks": 7, "num_channels": 32, "kernel_size": 5}, *CNN, 2, 4e-3, 40
            ),
            "PixelRNN": Learning({"num_layers": 1, "num_units": 32}, *ONE, 2, 4e-3, 25),
        },
    ),
    # Of the PixelCNN: the size that the paper names for larger images.
    "paper": Preset(
        {
            "PixelCNN": Learning({"num_blocks": 15, "num_channels": 256}, *CNN, 100, 1e-3, 1000),
            "PixelRNN": Learning({"num_layers": 7, "num_units": 16}, *SEVEN, 100, 1e-3, 1000),
        },
        valid_images=10_000,
    ),
}


def make(name: str, learning: Learning) -> Any:
    """The network of a row."""
    return CLASSES[name]((1, *SHAPE), validate_args=False, **learning.sizes)


def run(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train one model, measure it, draw from it and let it complete images."""
    preset = PRESETS[args.preset]
    learning = preset.rows[name]
    numbers = preset.train_images, preset.valid_images, preset.test_images
    x, valid, test = (part.reshape(-1, 1, *SHAPE) for part in load(*numbers, args.device))
    pyro.set_rng_seed(args.seed)
    model = make(name, learning).to(args.device)
    loss = boltzmann_learning(model)  # minus the log-probability, for any distribution
    epochs = args.epochs or learning.epochs
    optimizer = torch.optim.Adam(loss.parameters(), learning.rate, fused=True)
    fall_to_zero(optimizer, epochs * -(-len(x) // learning.batch))
    cost = train(
        loss,
        x,
        optimizer,
        epochs=epochs,
        checkpoint=args.folder / f"{name}.pt",
        minutes=args.minutes or learning.minutes,
        watch=lambda: float(nats(model, valid).mean()),
        every=1,
        batch_size=learning.batch,
        seed=args.seed,
    )
    model.eval()
    testing, drawing = Cost(), Cost()
    with testing.measured():
        scores = nats(model, test)
        known = nats(model, x[: len(test)])
    pyro.set_rng_seed(args.seed)
    with drawing.measured():
        images = model.sample((100,))
    title = f"{name} of {float(scores.mean()):.1f} nats: draws"
    images = images.reshape(-1, *SHAPE).cpu()
    image_grid(images, 10, title).savefig(args.results / picture(name, args, "draws"), dpi=100)
    return {
        "learning": asdict(learning),
        "planned": epochs,
        "test": float(scores.mean()),
        "error": float(scores.std() / len(scores) ** 0.5),
        "valid": cost.best,
        "train": float(known.mean()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "training": asdict(cost),
        "testing": asdict(testing),
        "drawing": asdict(drawing),
        "completion": draw_completions(model, test[:10], args.results / picture(name, args)),
    }


def fall_to_zero(optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Let the rate fall by half a cosine wave, a little at each step: epochs are few.

    The number of the step is in the optimizer's state, and so in the checkpoint.
    """
    rate, parameter = optimizer.defaults["lr"], optimizer.param_groups[0]["params"][0]

    def before(*_: Any) -> None:
        done = min(float(optimizer.state[parameter].get("step", 0)) / steps, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * rate * (1 + math.cos(math.pi * done))

    optimizer.register_step_pre_hook(before)


def draw_completions(model: Any, x: torch.Tensor, path: Path, count: int = 4) -> str:
    """Draw images, their upper halves, and lower halves as the model completes them.

    Args:
        model: the model.
        x: images ``(N, 1, H, W)``.
        path: file.
        count: how many ways each image is completed.

    Returns:
        How the lower halves were drawn.
    """
    known = torch.zeros(SHAPE, dtype=torch.bool, device=x.device)
    known[: SHAPE[0] // 2] = True
    done = model.impute(x.repeat(count, 1, 1, 1), known)
    rows = torch.cat([x, torch.where(known, x, 0.5), done.value]).cpu()
    labels = ["image", "known", *(f"completed, {i + 1}" for i in range(count))]
    title = f"{type(model).__name__}: lower halves given the upper ones"
    image_grid(rows.reshape(-1, *SHAPE), len(x), title, labels).savefig(path, dpi=100)
    method: str = done.method
    return method


def picture(name: str, args: argparse.Namespace, what: str = "halves") -> str:
    """The file name of a model's picture."""
    return f"{NAME}-{args.preset}-{name.lower()}-{what}.png"


def sizes_of(learning: dict[str, Any]) -> str:
    """Sizes in words, such as "7 blocks, 32 channels"."""
    words = []
    for key, value in learning["sizes"].items():
        word = key.removeprefix("num_")
        plural = f"{value} {word if value != 1 else word[:-1]}"
        words.append(f"kernels of {value} x {value}" if key == "kernel_size" else plural)
    return ", ".join(words)


def table(rows: dict[str, Any], args: argparse.Namespace) -> Sequence[str]:
    """The page."""
    preset = PRESETS[args.preset]
    lines = [
        "# PixelCNN and PixelRNN on binary MNIST",
        "",
        f"Command: `python benchmarks/reproduce/pixel_mnist.py --preset {args.preset}`. Minus the "
        "log-probability of an image in nats, +- standard error over "
        f"{preset.test_images:,} test images. {preset.train_images:,} training images, and "
        f"{preset.valid_images:,} others for the choice of the epoch, at random. Binarisation: "
        f"{FIXED.name}, each pixel drawn once by its grey value. The published figures are for a "
        "file that was drawn so too but is not used here, so that single pixels differ. Adam with "
        "a rate that falls to zero by half a cosine wave over the steps of the planned epochs. "
        "Training stops after its epochs, or after its minutes of the processor (marked budget). "
        "PixelRNN is diagonal; its LSTMs see the image, too, where their states come from. The "
        "size of PixelCNN is the second that was tried: one with smaller kernels had been seen to "
        "its test figure, was worse on validation images too, and is not kept. The published "
        "figures are quoted from memory, not from the table.",
        "",
        "| model | size | test | published | of | validation | as many training images "
        "| parameters | best epoch, of those run | ended | planned epochs | batch | rate | updates "
        "| training: processor min / clock min / load | testing: the same "
        "| 100 draws: processor s |",
        "|" + "---|" * 17,
    ]
    for name, learning in preset.rows.items():
        if name not in rows:
            lines.append(not_run(name, learning))
            continue
        found = rows[name]
        how, cost = found["learning"], Cost(**found["training"])
        lines.append(
            f"| {name} | {sizes_of(how)} | {found['test']:.2f} +- {found['error']:.2f} "
            f"| {how['published']:.2f} | {how['of']} | {found['valid']:.2f} "
            f"| {found['train']:.2f} | {found['parameters']:,} | {cost.best_epoch} of "
            f"{cost.epochs} | {cost.stopped} | {found['planned']} | {how['batch']} "
            f"| {how['rate']:g} | {cost.updates:,} | {cost} | {Cost(**found['testing'])} "
            f"| {found['drawing']['processor']:.1f} |"
        )
    if args.preset == "reproduction":
        lines += [
            not_run(f"{name}, `--preset paper`", learning)
            for name, learning in PRESETS["paper"].rows.items()
        ]
    lines += ["", *sorted({f"Measured on {found['where']}." for found in rows.values()})]
    for name, found in rows.items():
        lines += ["", f"![draws from {name}]({picture(name, args, 'draws')})"]
        lines += ["", f"Lower halves given the upper ones, {found['completion']} draws:"]
        lines += ["", f"![halves by {name}]({picture(name, args)})"]
    return lines


def not_run(name: str, learning: Learning) -> str:
    """The row of a model that has not been run."""
    size = sizes_of(asdict(learning))
    return f"| {name} | {size} | not run | {learning.published:.2f} | {learning.of} |" + " |" * 12


def main(argv: list[str] | None = None) -> None:
    """Run the rows of a preset."""
    shared = pages.arguments(__doc__, NAME, list(CLASSES))
    parser = argparse.ArgumentParser(
        parents=[shared], add_help=False, conflict_handler="resolve", description=shared.description
    )
    parser.add_argument("--preset", choices=list(PRESETS), default="reproduction")
    pages.run_rows(parser.parse_args(argv), list(CLASSES), run, table)


if __name__ == "__main__":
    main()
