# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A bound of the test log-probability of a deep Boltzmann machine on MNIST beside published ones.

    python benchmarks/reproduce/dbm_mnist.py                  # for one CPU core
    python benchmarks/reproduce/dbm_mnist.py --preset short   # seconds: does it run?

MNIST comes from the folder that ``PYRO_DEEPGEN_DATA`` names. Training images are binarised anew at
each presentation, test images once (``fixed``).

The machine has hidden layers of 500 and 1,000 units and learns by Pyro's ``Trace_ELBO`` with an
empty guide: mean field given the data, persistent chains for the model, the gradient that of
centred units, and a small weight cost. It starts in one of two ways. ``from an RBM``: the first
layer is the machine that ``rbm_mnist.py`` trains with persistent chains (it is trained here if that
script has not run), under a second layer of small weights, so that it starts as the same
distribution. ``from pretraining``: layer by layer by ``DeepBoltzmannMachine.stages()``, with
doubled weights, as published.

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

from benchmarks.reproduce import rbm_mnist
from benchmarks.reproduce.boltzmann import pictures
from benchmarks.reproduce.boltzmann.figures import HEURISTIC, AnnealedFigure, annealed_figure
from benchmarks.reproduce.boltzmann.learning import boltzmann_learning
from benchmarks.reproduce.runs import pages
from benchmarks.reproduce.runs.training import Cost, linearly_to_zero, train
from pyro_deepgen.datasets import Binarize
from pyro_deepgen.energy import DeepBoltzmannMachine, MeanField, PersistentChains

NAME = "dbm_mnist"
SHAPE = (28, 28)
# Training images for the means of all units, from which offsets and annealing start.
SOME_IMAGES = 5_000
# Salakhutdinov and Hinton 2009, 500-1000; a reproduction by others has reached -86.4.
PUBLISHED = -84.62
ROWS = ("from an RBM", "from pretraining")


@dataclass(frozen=True)
class Preset:
    """What distinguishes a quick run from a full one; the rest is that of ``rbm_mnist.py``."""

    top: int
    epochs: dict[str, int]
    rates: dict[str, float]
    chains: int
    steps: int
    batch: int
    mean_field_steps: int
    test_mean_field_steps: int
    stage_epochs: int
    stage_rate: float
    temperatures: int


PRESETS = {
    "short": Preset(
        top=24,
        epochs=dict.fromkeys(ROWS, 1),
        rates=dict.fromkeys(ROWS, 0.01),
        chains=20,
        steps=1,
        batch=50,
        mean_field_steps=3,
        test_mean_field_steps=3,
        stage_epochs=1,
        stage_rate=0.05,
        temperatures=50,
    ),
    "reproduction": Preset(
        top=1000,
        epochs={"from an RBM": 14, "from pretraining": 12},
        rates={"from an RBM": 0.02, "from pretraining": 0.08},
        chains=100,
        steps=1,
        batch=50,
        mean_field_steps=5,
        test_mean_field_steps=25,
        stage_epochs=5,
        stage_rate=0.05,
        temperatures=16_000,
    ),
}


def start_from_rbm(machine: DeepBoltzmannMachine, args: argparse.Namespace) -> Cost:
    """Take the first layer from the machine of ``rbm_mnist.py``."""
    rbm, cost = rbm_mnist.trained("PCD", args, args.rbm_folder / args.preset)
    with torch.no_grad():
        for name, value in (
            ("weight1", rbm.weight),
            ("bias0", rbm.visible_bias),
            ("bias1", rbm.hidden_bias),
        ):
            getattr(machine, name).copy_(value)
    return cost


def pretrain(machine: DeepBoltzmannMachine, grey: torch.Tensor, args: argparse.Namespace) -> Cost:
    """Pretrain layer by layer."""
    preset, total = PRESETS[args.preset], Cost()
    binarize = Binarize("dynamic", validate_args=False)
    for place, stage in enumerate(machine.stages(), start=1):
        optimizer = torch.optim.SGD(stage.loss.parameters(), preset.stage_rate)
        epochs = preset.stage_epochs
        transform = stage.transform
        cost = train(
            stage.loss,
            grey,
            optimizer,
            epochs=epochs,
            checkpoint=args.folder / f"stage {place}.pt",
            minutes=args.minutes,
            batch_size=100,
            transform=lambda x, transform=transform: transform(binarize(x)),
            scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, linearly_to_zero(epochs)),
        )
        total.add(cost)
    return total


@torch.no_grad()
def centre(machine: DeepBoltzmannMachine, x: torch.Tensor) -> None:
    """Start the offsets at the means given data: the first steps are large where they are far."""
    rate, machine.offset_rate = machine.offset_rate, 1.0
    machine.observe(machine.all_units.join([x, *machine.infer(x)]))
    machine.offset_rate = rate


def run(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train one machine, measure it and draw pictures."""
    preset, common = PRESETS[args.preset], rbm_mnist.PRESETS[args.preset]
    grey, binary, test = rbm_mnist.load(common, args.device)
    pyro.set_rng_seed(args.seed)
    machine = DeepBoltzmannMachine(
        grey.shape[1],
        (common.hidden, preset.top),
        centred=True,
        mean_field=MeanField(preset.mean_field_steps),
        negative_phase=PersistentChains(preset.chains, preset.steps),
        validate_args=False,
    ).to(args.device)
    with torch.no_grad():
        pixels = grey.mean(0).clamp(1e-3, 1 - 1e-3).logit()
        machine.get_parameter("bias0").copy_(pixels)
    before = start_from_rbm(machine, args) if name == ROWS[0] else pretrain(machine, grey, args)
    centre(machine, binary[:SOME_IMAGES])
    chains: Any = machine.negative_phase
    with torch.no_grad():  # chains of the machine as it starts
        binarized = Binarize("dynamic", validate_args=False)(grey[: preset.chains])
        state = machine.all_units.transition(machine.complete(binarized), 10)
        chains.chains.copy_(state)
    loss = boltzmann_learning(machine)
    named = dict(machine.named_parameters())
    groups = [
        {"params": [p for n, p in named.items() if n.startswith(kind)], "weight_decay": cost}
        for kind, cost in (("weight", rbm_mnist.WEIGHT_COST), ("bias", 0.0))
    ]
    optimizer = torch.optim.SGD(groups, preset.rates[name])
    epochs = args.epochs or preset.epochs[name]
    training = train(
        loss,
        grey,
        optimizer,
        epochs=epochs,
        checkpoint=args.folder / f"{name}.pt",
        minutes=args.minutes,
        every=5,
        batch_size=preset.batch,
        transform=Binarize("dynamic", validate_args=False),
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, linearly_to_zero(epochs)),
    )
    machine.eval()
    machine.mean_field = MeanField(preset.test_mean_field_steps)
    testing = Cost()
    with torch.no_grad():
        start = machine.complete(binary[: common.chains])
    machine.set_base(binary[:SOME_IMAGES])
    figure = annealed_figure(
        machine,
        machine.bound,
        binary,
        test,
        start=start,
        chains=common.chains,
        temperatures=preset.temperatures,
        start_steps=common.start_steps,
        cost=testing,
        seed=args.seed,
    )
    draw(machine, name, figure, test, args)
    return {
        "sizes": list(machine.sizes),
        "figure": asdict(figure),
        "off": float(log_weight_when_off(machine)),
        "spread": [float(mean.std(0).mean()) for mean in machine.infer(test[:SOME_IMAGES])],
        "before": asdict(before),
        "training": asdict(training),
        "testing": asdict(testing),
    }


@torch.no_grad()
def log_weight_when_off(machine: DeepBoltzmannMachine) -> torch.Tensor:
    """The log-weight of the state of the first hidden layer in which all its units are off.

    It is a lower bound of log Z. Chains from data do not come to it, nor does annealing from their
    means, so that a machine may put its mass there unseen.
    """
    odd = machine.odd_layers
    return -odd.energy(machine.get_parameter("bias1").new_zeros(odd.event_shape))


def draw(
    machine: DeepBoltzmannMachine,
    name: str,
    figure: AnnealedFigure,
    test: torch.Tensor,
    args: argparse.Namespace,
) -> None:
    """Write the pictures of one machine."""
    times = rbm_mnist.PRESETS[args.preset].picture_steps
    pyro.set_rng_seed(args.seed)
    what = f"DBM {name}, bound {figure.test:.1f} nats"
    layers: Any = machine.all_units
    with torch.no_grad():
        start = layers.path_start().sample((12,))
        second = machine.get_parameter("weight1") @ machine.get_parameter("weight2")

    def means(state: torch.Tensor) -> torch.Tensor:
        first = state[:, machine.sizes[0] :][:, : machine.sizes[1]]
        field = first @ machine.get_parameter("weight1").mT + machine.get_parameter("bias0")
        return machine.visible.mean(field)

    pictures.draw_chains(
        layers.transition,
        means,
        start,
        SHAPE,
        picture(args, name, "chains"),
        f"{what}: chains from independent units, means given the hidden units",
        times,
    )
    pictures.draw_halves(
        lambda x, known: machine.impute(x, known, times[-1] // 5),
        test[:12],
        SHAPE,
        picture(args, name, "halves"),
        f"{what}: right halves drawn given left ones, test images",
    )
    pictures.draw_filters(
        second,
        SHAPE,
        picture(args, name, "filters"),
        f"{what}: what the second layer's units add to the pixels' fields, through the first",
    )


def picture(args: argparse.Namespace, name: str, kind: str) -> Path:
    """The file of a picture."""
    return Path(f"{args.results / NAME}-{args.preset}-{name.split()[-1].lower()}-{kind}.png")


def table(rows: dict[str, Any], args: argparse.Namespace) -> list[str]:
    """The page."""
    preset, common = PRESETS[args.preset], rbm_mnist.PRESETS[args.preset]
    lines = [
        "# Deep Boltzmann machine on MNIST",
        "",
        f"Command: `python benchmarks/reproduce/dbm_mnist.py --preset {args.preset}`. Average "
        f"mean-field bound of the log-probability in nats of {common.test_images:,} test images, "
        f"+- its standard error over images, of a machine of 784-{common.hidden}-{preset.top} "
        f"units, trained on {common.train_images:,} images in batches of {preset.batch} through "
        "Pyro's `Trace_ELBO` with an empty guide: gradients of centred units, "
        f"{preset.mean_field_steps} mean-field steps, "
        f"{preset.chains} persistent chains that move {preset.steps} step(s) an update, the "
        f"learning rate falls to 0 by a straight line, a weight cost of {rbm_mnist.WEIGHT_COST:g}. "
        f"Binarisation: each training pixel anew by its own probability at each presentation "
        f"(dynamic), test images once ({Binarize('fixed').name}). Bounds take "
        f"{preset.test_mean_field_steps} mean-field steps. log Z by annealed importance sampling "
        f"of the first hidden layer, from units as they are on the average of "
        f"{min(SOME_IMAGES, common.train_images):,} training images, {common.chains} chains and "
        f"{preset.temperatures:,} temperatures in each direction. {HEURISTIC} The state in which "
        "the first hidden layer is off has a log-weight of its own, a lower bound of log Z, which "
        "chains among digits do not see. Spread: the standard deviation over "
        f"{min(SOME_IMAGES, common.test_images):,} test images of the mean-field means of a "
        "layer's units, on the average of its units; a layer whose spread is near 0 takes no part. "
        "Published: Salakhutdinov and Hinton 2009, a bound too.",
        "",
        "| start | bound | bound, with log Z in reverse | bound, training images | log Z | log Z "
        "in reverse (heuristic) | log-weight, first layer off | spread, both layers | epochs "
        "| updates | before: processor min / clock min / load | training: the same | testing: the "
        "same |",
        "|" + "---|" * 13,
    ]
    for name in ROWS:
        if name not in rows:
            lines.append(f"| {name} | not run" + " |" * 12)
            continue
        row = rows[name]
        figure, training = AnnealedFigure(**row["figure"]), Cost(**row["training"])
        lines.append(
            f"| {name}, rate {preset.rates[name]:g} | {figure.test:.2f} +- {figure.test_error:.2f} "
            f"| {figure.test_in_reverse:.2f} | {figure.train:.2f} +- {figure.train_error:.2f} "
            f"| {figure.log_z:.2f} +- {figure.log_z_error:.2f} "
            f"| {figure.reverse:.2f} | {row['off']:.2f} "
            f"| {' and '.join(f'{spread:.4f}' for spread in row['spread'])} "
            f"| {training.epochs} | {training.updates:,} "
            f"| {Cost(**row['before'])} | {training} | {Cost(**row['testing'])} |"
        )
    lines += [
        f"| 784-500-1000, published | {PUBLISHED}" + " |" * 12,
        "",
        *sorted({f"Measured on {row['where']}." for row in rows.values()}),
    ]
    for name in rows:
        for kind in ("chains", "halves", "filters"):
            file = picture(args, name, kind).name
            lines += ["", f"![{kind} of the machine {name}]({file})"]
    return lines


def main(argv: list[str] | None = None) -> None:
    """Run the rows of a preset."""
    parser = pages.arguments(__doc__, NAME, ROWS)
    parser.add_argument("--rbm-folder", type=Path, default=pages.HERE / "checkpoints" / "rbm_mnist")
    args = parser.parse_args(argv)
    pages.run_rows(args, ROWS, run, table)


if __name__ == "__main__":
    main()
