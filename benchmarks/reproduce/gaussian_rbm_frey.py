# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Density of Frey faces by an RBM with Gaussian visible units, beside normal distributions.

    python benchmarks/reproduce/gaussian_rbm_frey.py                  # for one CPU core
    python benchmarks/reproduce/gaussian_rbm_frey.py --preset short   # seconds: does it run?

The Frey faces come from the folder that ``PYRO_DEEPGEN_DATA`` names. Grey levels are dequantised
once and standardised pixel by pixel; figures are of the grey levels again. No published figure has
this protocol: the comparison is with two normal distributions fitted in closed form, one with
independent pixels, one with all covariances.

Variances of the visible units are learned. Rows learn by Pyro's ``Trace_ELBO`` with an empty guide:
with persistent chains (PCD), and with one step from the data (CD-1). Adam, the learning rate falls
to 0 by a straight line.

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
import pyro.distributions as dist
import torch

if not __package__:  # started as a file: the shared parts are found from the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.reproduce.boltzmann import pictures
from benchmarks.reproduce.boltzmann.figures import HEURISTIC, AnnealedFigure, annealed_figure
from benchmarks.reproduce.boltzmann.learning import boltzmann_learning
from benchmarks.reproduce.runs import pages
from benchmarks.reproduce.runs.training import Cost, linearly_to_zero, train
from pyro_deepgen.datasets import frey_faces
from pyro_deepgen.energy import (
    RBM,
    ContrastiveDivergence,
    NegativePhase,
    PersistentChains,
    gaussian_rbm,
)
from pyro_deepgen.metrics import bits_per_dimension

NAME = "gaussian_rbm_frey"
SHAPE = (28, 20)
NUM_PIXELS = SHAPE[0] * SHAPE[1]
ROWS = ("PCD", "CD-1")


@dataclass(frozen=True)
class Preset:
    """What distinguishes a quick run from a full one."""

    hidden: int
    epochs: int
    rate: float
    chains: int
    temperatures: int
    start_steps: int
    picture_steps: tuple[int, ...]


PRESETS = {
    "short": Preset(
        hidden=32,
        epochs=2,
        rate=1e-3,
        chains=20,
        temperatures=50,
        start_steps=10,
        picture_steps=(0, 1, 10),
    ),
    "reproduction": Preset(
        hidden=200,
        epochs=600,
        rate=2e-3,
        chains=100,
        temperatures=3_000,
        start_steps=2_000,
        picture_steps=(0, 1, 10, 100, 1000, 2000),
    ),
}


class Standardized:
    """Dequantised faces ``(N, 560)``, standardised pixel by pixel."""

    def __init__(self, device: torch.device) -> None:
        data = frey_faces("dequantized")
        x_train, x_test = data.x_train.flatten(1), data.x_test.flatten(1)
        assert data.scale.bin_width is not None
        self.bin_width = data.scale.bin_width
        self.mean, self.scale = x_train.mean(0).to(device), x_train.std(0).to(device)
        self.train = (x_train.to(device) - self.mean) / self.scale
        self.test = (x_test.to(device) - self.mean) / self.scale

    def faces(self, z: torch.Tensor) -> torch.Tensor:
        """Grey values of standardised ones."""
        return self.mean + self.scale * z

    def bits(self, score: float) -> float:
        """Bits per dimension of the grey levels, of a density of standardised values in nats."""
        density = torch.tensor(score - float(self.scale.log().sum()), dtype=torch.float64)
        return float(bits_per_dimension(density, NUM_PIXELS, self.bin_width))


def normal_scores(data: Standardized) -> dict[str, float]:
    """Test log-densities under normal distributions fitted by maximum likelihood."""
    z = data.train.double()
    test = data.test.double()
    covariance = z.mT @ z / len(z) - torch.outer(z.mean(0), z.mean(0))
    laws = {
        "normal, independent pixels": dist.Normal(z.mean(0), covariance.diag().sqrt()).to_event(1),
        "normal, all covariances": dist.MultivariateNormal(z.mean(0), covariance),
    }
    return {name: float(law.log_prob(test).mean()) for name, law in laws.items()}


def run(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train one machine, measure it and draw pictures."""
    preset, data = PRESETS[args.preset], Standardized(args.device)
    pyro.set_rng_seed(args.seed)
    phase: NegativePhase
    phase = PersistentChains(preset.chains) if name == "PCD" else ContrastiveDivergence(1)
    rbm = gaussian_rbm(NUM_PIXELS, preset.hidden, negative_phase=phase, validate_args=False)
    rbm.to(args.device)
    loss = boltzmann_learning(rbm)
    optimizer = torch.optim.Adam(loss.parameters(), preset.rate, fused=True)
    epochs = args.epochs or preset.epochs
    training = train(
        loss,
        data.train,
        optimizer,
        epochs=epochs,
        checkpoint=args.folder / f"{name}.pt",
        minutes=args.minutes,
        every=100,
        batch_size=100,
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, linearly_to_zero(epochs)),
    )
    rbm.set_base(data.train)
    testing = Cost()
    figure = annealed_figure(
        rbm,
        rbm.log_prob,
        data.train,
        data.test,
        start=data.train[: preset.chains],
        chains=preset.chains,
        temperatures=preset.temperatures,
        start_steps=preset.start_steps,
        cost=testing,
        seed=args.seed,
    )
    draw(rbm, name, data, args)
    variance = rbm.visible.get_parameter("log_variance").detach().exp()
    return {
        "hidden": preset.hidden,
        "figure": asdict(figure),
        "bits": data.bits(figure.test),
        "variance": [float(variance.min()), float(variance.mean()), float(variance.max())],
        "normal": normal_scores(data),
        "normal_bits": {law: data.bits(v) for law, v in normal_scores(data).items()},
        "training": asdict(training),
        "testing": asdict(testing),
    }


def draw(rbm: RBM, name: str, data: Standardized, args: argparse.Namespace) -> None:
    """Write the pictures of one machine."""
    times = PRESETS[args.preset].picture_steps
    pyro.set_rng_seed(args.seed)
    what, stem = f"Gaussian RBM by {name}", args.results / f"{NAME}-{args.preset}-{name.lower()}"
    with torch.no_grad():
        start = rbm.path_start().sample((12,))
    pictures.draw_filters(
        rbm.weight,
        SHAPE,
        Path(f"{stem}-filters.png"),
        f"{what}: the 100 filters of the largest norm",
    )
    pictures.draw_chains(
        rbm.transition,
        lambda v: data.faces(rbm.visible.mean(rbm.visible_field(rbm.sample_hidden(v)))),
        start,
        SHAPE,
        Path(f"{stem}-chains.png"),
        f"{what}: chains from independent pixels, means given the hidden units",
        times,
    )

    def impute(x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        z = (x - data.mean) / data.scale
        filled = rbm.impute(z, known, times[-1] // 2)
        mean = rbm.visible.mean(rbm.visible_field(rbm.sample_hidden(filled)))
        return torch.where(known, x, data.faces(mean))

    pictures.draw_halves(
        impute,
        data.faces(data.test[:12]),
        SHAPE,
        Path(f"{stem}-halves.png"),
        f"{what}: right halves given left ones, means given drawn hidden units, test faces",
    )


def table(rows: dict[str, Any], args: argparse.Namespace) -> list[str]:
    """The page."""
    preset = PRESETS[args.preset]
    lines = [
        "# Gaussian RBM on Frey faces",
        "",
        f"Command: `python benchmarks/reproduce/gaussian_rbm_frey.py --preset {args.preset}`. "
        "Average log-density in nats of 400 test faces of standardised, once dequantised pixels, "
        "+- its standard error over faces, and bits per dimension of the 256 grey levels. 1,565 "
        "training faces in batches of 100, Adam through Pyro's `Trace_ELBO` with an empty guide; "
        f"560 visible units with learned variances, {preset.hidden} hidden units. The frames are "
        "of one video, so that most test frames have a near twin in the training data. log Z by "
        f"annealed importance sampling, {preset.chains} chains and {preset.temperatures:,} "
        f"temperatures in each direction. {HEURISTIC}",
        "",
        "| model | test | bits per dimension | train | log Z | log Z in reverse (heuristic) "
        "| variances: least, mean, largest | epochs | training: processor min / clock min / load "
        "| testing: the same |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in ROWS:
        if name not in rows:
            lines.append(f"| {name} | not run | | | | | | | | |")
            continue
        row = rows[name]
        figure, training = AnnealedFigure(**row["figure"]), Cost(**row["training"])
        lines.append(
            f"| Gaussian RBM, {name} | {figure.test:.1f} +- {figure.test_error:.1f} "
            f"| {row['bits']:.3f} | {figure.train:.1f} +- {figure.train_error:.1f} "
            f"| {figure.log_z:.2f} +- {figure.log_z_error:.2f} | {figure.reverse:.2f} "
            f"| {', '.join(f'{v:.2f}' for v in row['variance'])} | {training.epochs} "
            f"| {training} | {Cost(**row['testing'])} |"
        )
    row = next(iter(rows.values()))
    for law, score in row["normal"].items():
        lines.append(f"| {law} | {score:.1f} | {row['normal_bits'][law]:.3f} | | | | | | | |")
    lines += ["", *sorted({f"Measured on {row['where']}." for row in rows.values()})]
    for name in rows:
        for kind in ("filters", "chains", "halves"):
            file = f"{NAME}-{args.preset}-{name.lower()}-{kind}.png"
            lines += ["", f"![{kind} of the machine trained by {name}]({file})"]
    return lines


def main(argv: list[str] | None = None) -> None:
    """Run the rows of a preset."""
    args = pages.arguments(__doc__, NAME, ROWS).parse_args(argv)
    pages.run_rows(args, ROWS, run, table)


if __name__ == "__main__":
    main()
