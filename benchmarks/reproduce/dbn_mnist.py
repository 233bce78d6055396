# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A bound of the test log-probability of a deep belief net on MNIST beside published figures.

    python benchmarks/reproduce/dbn_mnist.py                  # for one CPU core
    python benchmarks/reproduce/dbn_mnist.py --preset short   # seconds: does it run?

MNIST comes from the folder that ``PYRO_DEEPGEN_DATA`` names. Training images are binarised anew at
each presentation, test images once (``fixed``).

The first layer is the RBM that ``rbm_mnist.py`` trains with persistent chains (it is trained here
if that script has not run). The top learns by ``DeepBeliefNet.stages()`` on hidden units drawn
given images. With as many units as there are pixels it starts as the first machine turned upside
down, so that the net starts as the same distribution.

Checkpoints in ``--folder``: the script resumes where it was stopped. Table, numbers and pictures go
to ``benchmarks/reproduce/results``.
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
from benchmarks.reproduce.boltzmann.figures import (
    HEURISTIC,
    AnnealedFigure,
    annealed_figure,
    mean_and_error,
)
from benchmarks.reproduce.runs import pages
from benchmarks.reproduce.runs.training import Cost, linearly_to_zero, train
from pyro_deepgen.datasets import Binarize
from pyro_deepgen.energy import RBM, DeepBeliefNet, PersistentChains

NAME = "dbn_mnist"
SHAPE = (28, 28)
# Murray and Salakhutdinov 2009: an estimate of the log-probability, not a bound of it.
PUBLISHED = -84.55


@dataclass(frozen=True)
class Preset:
    """What distinguishes a quick run from a full one; the rest is that of ``rbm_mnist.py``."""

    top: int
    epochs: int
    rate: float
    chains: int
    num_draws: int
    temperatures: int
    impute_steps: int


PRESETS = {
    "short": Preset(
        top=784, epochs=1, rate=0.02, chains=20, num_draws=2, temperatures=50, impute_steps=5
    ),
    "reproduction": Preset(
        top=784,
        epochs=15,
        rate=0.02,
        chains=100,
        num_draws=20,
        temperatures=4_000,
        impute_steps=300,
    ),
}


def make_net(rbm: RBM, preset: Preset) -> DeepBeliefNet:
    """A net over the sizes of a first machine."""
    sizes = rbm.hidden.num_units, preset.top
    net = DeepBeliefNet(rbm.visible.num_units, sizes, num_draws=preset.num_draws)
    phase = PersistentChains(preset.chains)
    net.top = RBM(*sizes, centred=True, negative_phase=phase, validate_args=False)
    return net.to(rbm.weight.device)


def train_net(
    net: DeepBeliefNet, rbm: RBM, grey: torch.Tensor, args: argparse.Namespace
) -> tuple[Cost, torch.Tensor]:
    """Give the net its first layer, and train the top or put back what it learned.

    Returns:
        The cost, and the machine's own hidden units given some images, ``(N, H)``.
    """
    preset = PRESETS[args.preset]
    cost, binarize = Cost(), Binarize("dynamic", validate_args=False)
    for stage in net.stages(lambda: PersistentChains(preset.chains)):
        if stage.name != "top":  # trained already: one fit less
            machine: Any = stage.loss.distribution
            with torch.no_grad():
                for name, parameter in machine.named_parameters():
                    parameter.copy_(rbm.get_parameter(name))
            continue
        chains: Any = net.top.negative_phase
        with torch.no_grad():  # chains of the machine as it starts
            start = net.recognize(binarize(grey[: preset.chains]))[-1]
            chains.chains.copy_(net.top.transition(start, 10))
        optimizer = torch.optim.SGD(stage.loss.parameters(), preset.rate)
        epochs = args.epochs or preset.epochs
        transform = stage.transform
        cost = train(
            stage.loss,
            grey,
            optimizer,
            epochs=epochs,
            checkpoint=args.folder / "top.pt",
            minutes=args.minutes,
            every=5,
            batch_size=100,
            transform=lambda x, transform=transform: transform(binarize(x)),
            scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, linearly_to_zero(epochs)),
        )
    return cost, net.recognize(binarize(grey[:10_000]))[-1]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train the net, measure it and draw pictures."""
    preset, common = PRESETS[args.preset], rbm_mnist.PRESETS[args.preset]
    grey, binary, test = rbm_mnist.load(common, args.device)
    rbm, _ = rbm_mnist.trained("PCD", args, args.rbm_folder / args.preset)
    pyro.set_rng_seed(args.seed)
    net = make_net(rbm, preset)
    training, hidden = train_net(net, rbm, grey, args)
    net.eval()
    net.top.set_base(hidden)
    testing = Cost()
    print("the bound:")
    figure = annealed_figure(
        net.top,
        net.bound,
        binary,
        test,
        start=net.recognize(binary[: common.chains])[-1],
        chains=common.chains,
        temperatures=preset.temperatures,
        start_steps=common.start_steps,
        cost=testing,
        seed=args.seed,
    )
    with testing.measured(), torch.no_grad():
        scores = torch.cat([net.log_prob(part) for part in test.split(1000)])
    tighter, tighter_error = mean_and_error(scores)
    print(f"by {preset.num_draws} importance weights: {tighter:.2f} +- {tighter_error:.2f}")
    draw(net, tighter, test, args)
    return {
        "sizes": list(net.sizes),
        "figure": asdict(figure),
        "tighter": tighter,
        "tighter_error": tighter_error,
        "training": asdict(training),
        "testing": asdict(testing),
    }


def draw(net: DeepBeliefNet, score: float, test: torch.Tensor, args: argparse.Namespace) -> None:
    """Write the pictures of the net."""
    preset, common = PRESETS[args.preset], rbm_mnist.PRESETS[args.preset]
    pyro.set_rng_seed(args.seed)
    what, stem = f"Deep belief net, {score:.1f} nats", args.results / f"{NAME}-{args.preset}"
    layer: Any = net.layers[0]
    with torch.no_grad():
        start = net.top.path_start().sample((12,))
    pictures.draw_chains(
        net.top.transition,
        lambda h: layer.units.mean(layer.field_below(h)),
        start,
        SHAPE,
        Path(f"{stem}-chains.png"),
        f"{what}: chains of the top from independent units, means of the pixels given them",
        common.picture_steps,
    )
    pictures.draw_halves(
        lambda x, known: net.impute(x, known, preset.impute_steps),
        test[:12],
        SHAPE,
        Path(f"{stem}-halves.png"),
        f"{what}: right halves drawn given left ones, test images",
    )


def table(row: dict[str, Any], args: argparse.Namespace) -> list[str]:
    """The page."""
    preset, common = PRESETS[args.preset], rbm_mnist.PRESETS[args.preset]
    figure = AnnealedFigure(**row["figure"])
    training, testing = Cost(**row["training"]), Cost(**row["testing"])
    sizes = "-".join(map(str, row["sizes"]))
    return [
        "# Deep belief net on MNIST",
        "",
        f"Command: `python benchmarks/reproduce/dbn_mnist.py --preset {args.preset}`. Average "
        f"bounds of the log-probability in nats of {common.test_images:,} test images, +- their "
        "standard error over images: the variational bound by one draw of the hidden units for "
        f"each image, and the logarithm of the mean of {preset.num_draws} importance weights, "
        "which is a bound in expectation too and lies nearer. The first layer is the machine of "
        "`rbm_mnist.py` (PCD); the top learned on hidden units drawn given "
        f"{common.train_images:,} images, binarised anew at each presentation (dynamic); test "
        f"images binarised once ({Binarize('fixed').name}). log Z of the top by annealed "
        f"importance sampling, {common.chains} chains and {preset.temperatures:,} temperatures in "
        f"each direction. {HEURISTIC} Published: Murray and Salakhutdinov 2009, an estimate of the "
        "log-probability itself, of a net with 2,000 units at the top.",
        "",
        "| net | bound | by importance weights | that, with log Z in reverse | bound, training "
        "images | log Z of the top | in reverse (heuristic) | epochs of the top | updates "
        "| training of the top: processor min / clock min / load | testing: the same |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        f"| {sizes} | {figure.test:.2f} +- {figure.test_error:.2f} | {row['tighter']:.2f} +- "
        f"{row['tighter_error']:.2f} | {row['tighter'] - figure.reverse + figure.log_z:.2f} "
        f"| {figure.train:.2f} +- {figure.train_error:.2f} "
        f"| {figure.log_z:.2f} +- {figure.log_z_error:.2f} | {figure.reverse:.2f} "
        f"| {training.epochs} | {training.updates:,} | {training} | {testing} |",
        f"| 784-500-2000, published | {PUBLISHED} (estimate) | | | | | | | | | |",
        "",
        f"Measured on {row['where']}.",
        "",
        f"![chains of the net]({NAME}-{args.preset}-chains.png)",
        "",
        f"![halves filled in by the net]({NAME}-{args.preset}-halves.png)",
    ]


def main(argv: list[str] | None = None) -> None:
    """Run a preset."""
    parser = pages.arguments(__doc__, NAME)
    parser.add_argument("--rbm-folder", type=Path, default=pages.HERE / "checkpoints" / "rbm_mnist")
    args = parser.parse_args(argv)
    pages.prepare(args)
    row = pages.kept(args, "net", lambda: run(args))
    pages.write(args, NAME, row, table(row, args))


if __name__ == "__main__":
    main()
