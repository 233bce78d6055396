# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Neural posterior estimation with a conditional flow, beside the benchmark's own figures.

    python benchmarks/reproduce/flow_posteriors_amortised.py
    python benchmarks/reproduce/flow_posteriors_amortised.py --tasks slcp --sizes 100000

A conditional flow learns ``p(theta | x)`` from simulated pairs, and is asked for the observations
of the benchmark of Lueckmann et al. (2021) in the folder ``sbi`` of the one that
``PYRO_DEEPGEN_DATA`` names. The simulators are written anew, so their own posteriors are held
against the benchmark's draws, too.

Every finished row is kept in ``--folder``, and a run in progress as a checkpoint: the same command
goes on from there, and writes ``benchmarks/reproduce/results/flow_posteriors_amortised.md``.
"""

from __future__ import annotations

import argparse
import bz2
import json
import math
import os
import platform
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.fit import fit
from pyro_deepgen.metrics import c2st
from pyro_deepgen.nn import MLP
from pyro_deepgen.transforms import spline_autoregressive

HERE = Path(__file__).parent
BATCH_SIZE = 500

# Neural posterior estimation with neural spline flows (Lueckmann et al. 2021): the values of the
# paper's repository of results for observations 1 and 2, and the mean over all ten.
PUBLISHED = {
    ("two_moons", 10_000): "0.542, 0.571; ten: 0.606",
    ("two_moons", 100_000): "0.518, 0.515; ten: 0.542",
    ("slcp", 10_000): "0.944, 0.938; ten: 0.901",
    ("slcp", 100_000): "0.915, 0.900; ten: 0.831",
}


def two_moons(theta: Tensor) -> Tensor:
    """A crescent, whose place is a fold of the parameters: ``(*, 2)`` to ``(*, 2)``."""
    angle = math.pi * (torch.rand(theta.shape[:-1]) - 0.5)
    radius = 0.1 + 0.01 * torch.randn(theta.shape[:-1])
    p = torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], -1)
    first, second = theta.unbind(-1)
    fold = torch.stack([-(first + second).abs(), second - first], -1)
    return p + fold / math.sqrt(2)


def exact_two_moons(x: Tensor, num: int) -> Tensor:
    """Draws of the posterior of one observation: both folds of what the crescent leaves."""
    p = two_moons(torch.zeros(20 * num, 2))
    first, second = (math.sqrt(2) * (x - p)).unbind(-1)
    total = first * (2 * torch.randint(0, 2, first.shape) - 1)
    theta = torch.stack([total - second, total + second], -1) / 2
    return theta[(first <= 0) & (theta.abs() <= 1).all(-1)][:num]


def slcp(theta: Tensor) -> Tensor:
    """Four points of a normal distribution: ``(*, 5)`` to ``(*, 8)``."""
    mean, scale, slant = _normal_in_the_plane(theta)
    noise = torch.randn(*theta.shape[:-1], 4, 2)
    correlated = slant * noise[..., 0] + (1 - slant**2).sqrt() * noise[..., 1]
    noise = torch.stack([noise[..., 0], correlated], -1)
    return (mean[..., None, :] + scale[..., None, :] * noise).flatten(-2)


def log_likelihood_slcp(x: Tensor, theta: Tensor) -> Tensor:
    """Log-density of the eight numbers, of the batch shape of the parameters."""
    mean, scale, slant = _normal_in_the_plane(theta)
    a, b = ((x.unflatten(-1, (4, 2)) - mean[..., None, :]) / scale[..., None, :]).unbind(-1)
    rest = 1 - slant**2
    square = (a**2 - 2 * slant * a * b + b**2).sum(-1) / rest[..., 0]
    return -square / 2 - 4 * (scale.log().sum(-1) + rest[..., 0].log() / 2 + math.log(2 * math.pi))


def exact_slcp(x: Tensor, num: int) -> Tensor:
    """Draws of the posterior of one observation, by rejection from the prior."""
    points = x.reshape(4, 2).double()
    determinant = torch.linalg.det((points - points.mean(0)).T @ (points - points.mean(0)) / 4)
    highest = float(-4 - 2 * determinant.log() - 4 * math.log(2 * math.pi))
    kept: list[Tensor] = []
    while sum(map(len, kept)) < num:
        theta = 6 * torch.rand(500_000, 5) - 3
        keep = torch.rand(len(theta)).log() < log_likelihood_slcp(x, theta) - highest
        kept.append(theta[keep])
    return torch.cat(kept)[:num]


def _normal_in_the_plane(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return theta[..., :2], theta[..., 2:4].square(), theta[..., 4:].tanh()


class Task(NamedTuple):
    """A simulator, half the width of its prior's cube, its posterior, and steps of training."""

    simulate: Callable[[Tensor], Tensor]
    num_parameters: int
    bound: float
    exact: Callable[[Tensor, int], Tensor]
    updates: int


TASKS = {
    "two_moons": Task(two_moons, 2, 1.0, exact_two_moons, 3600),
    "slcp": Task(slcp, 5, 3.0, exact_slcp, 7200),
}


class PosteriorEstimate(nn.Module):
    """A conditional flow of the parameters, and the sum of minus its log-density over a batch.

    The parameters are uniform in a cube, so their normal quantiles are standard normal before the
    data are seen: the flow starts there, and no draw leaves the cube.
    """

    def __init__(self, task: Task, x: Tensor, *, width: int, num_layers: int) -> None:
        super().__init__()
        self.register_buffer("center", x.mean(0))
        self.register_buffer("scale", x.std(0))
        self.bound, size = task.bound, task.num_parameters
        self.embed = MLP(x.shape[1], (width, width), width)
        base = dist.Normal(torch.zeros(size), torch.ones(size)).to_event(1)
        self.flow = FlowDistribution(
            base,
            spline_autoregressive(
                size,
                num_layers=num_layers,
                hidden_dims=(width, width),
                num_bins=10,
                context_dim=width,
            ),
            validate_args=False,
        )

    def quantiles(self, theta: Tensor) -> Tensor:
        """Parameters in the cube as points of the whole space."""
        level = (theta / self.bound + 1) / 2
        return torch.special.ndtri(level.clamp(1e-7, 1 - 1e-7))

    def given(self, x: Tensor) -> FlowDistribution:
        """The distribution of the quantiles given observations."""
        return self.flow.condition(self.embed((x - self.center) / self.scale))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """Minus the log-density of the quantiles, summed over the batch."""
        return -self.given(x).log_prob(z).sum()

    @torch.no_grad()
    def draw(self, x: Tensor, num: int) -> Tensor:
        """Draws of the parameters given one observation."""
        z = self.given(x).sample((num,))
        return self.bound * (2 * torch.special.ndtr(z) - 1)


def observations(task: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The number of each observation, its data, and the draws of its reference posterior."""
    folder = Path(os.environ["PYRO_DEEPGEN_DATA"]) / "sbi" / task
    for path in sorted(folder.iterdir(), key=lambda path: int(path.name)):
        x = np.loadtxt(path / "observation.csv", delimiter=",", skiprows=1, dtype=np.float32)
        with bz2.open(path / "reference_posterior_samples.csv.bz2", "rt") as lines:
            reference = np.loadtxt(lines, delimiter=",", skiprows=1, dtype=np.float32)
        yield path.name, torch.from_numpy(x), torch.from_numpy(reference)


def amortised(name: str, size: int, args: argparse.Namespace) -> dict[str, float]:
    """Train on simulations, and ask for every observation."""
    task = TASKS[name]
    pyro.set_rng_seed(0)
    theta = task.bound * (2 * torch.rand(size, task.num_parameters) - 1)
    x = task.simulate(theta)
    held = max(1, size // 10)
    loss = PosteriorEstimate(task, x[held:], width=args.width, num_layers=args.layers)
    z = loss.quantiles(theta)
    # As many steps for each size: small sets are gone through more often.
    updates = args.updates or task.updates
    num_epochs = max(1, updates * BATCH_SIZE // (size - held))
    optimizer = torch.optim.Adam(loss.parameters(), 2e-3)
    history = fit(
        loss,
        (z[held:], x[held:]),
        optimizer,
        num_epochs=num_epochs,
        batch_size=BATCH_SIZE,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_epochs),
        clip_norm=5.0,
        held_out=(z[:held], x[:held]),
        patience=max(10, num_epochs // 10),
        checkpoint=args.folder / f"{name}-{size}-{updates}-{args.width}-{args.layers}.pt",
        compile="recorded",
        label="log-density",
    )
    row = {
        "held_out": -min(history.held_out),
        "epochs": float(len(history.train)),
        "seconds": history.seconds,
    }
    for number, observed, reference in observations(name):
        reference = reference[: args.draws]
        row[f"c2st {number}"] = float(c2st(reference, loss.draw(observed, len(reference))))
    return row


def checked(name: str, args: argparse.Namespace) -> dict[str, float]:
    """The simulator's own posterior against the reference: 0.5 if the simulator is theirs."""
    pyro.set_rng_seed(0)
    row = {}
    for number, observed, reference in observations(name):
        exact = TASKS[name].exact(observed, min(args.draws, 2000))
        row[f"c2st {number}"] = float(c2st(reference[: len(exact)], exact))
    return row


def kept(folder: Path, name: str, compute: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Compute a row, or take it from the folder."""
    path = folder / f"{name}.json"
    if not path.exists():
        print(f"{name} ...", flush=True)
        row = compute()
        path.write_text(json.dumps(row))
        print(f"{name}: {row}", flush=True)
    found: dict[str, float] = json.loads(path.read_text())
    return found


def table(args: argparse.Namespace) -> str:
    """Every task and size, beside the published figures."""
    lines = [
        "# Neural posterior estimation: classifier two-sample tests",
        "",
        "Command: `python benchmarks/reproduce/flow_posteriors_amortised.py`. Device: CPU "
        f"({platform.machine()}, 1 thread), Python {platform.python_version()}, torch "
        f"{torch.__version__}, pyro {pyro.__version__}. Minutes: a busy machine.",
        "",
        f"Autoregressive spline flow of {args.layers} layers, width {args.width}, on the normal "
        "quantiles of the parameters; network of the standardised data; a tenth of the simulations "
        f"held out; batches of {BATCH_SIZE}; the parameters of the best epoch. "
        f"C2ST of {args.draws} draws against the reference posterior of each observation. "
        "Published: Lueckmann et al. 2021, NPE with neural spline flows, observations 1 and 2 and "
        "the mean over ten.",
        "",
        "| task | simulations | C2ST of each observation | mean | published | held-out log-density "
        "of the quantiles | epochs | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task in args.tasks.split(","):
        row = kept(args.folder, f"{task} simulator {args.draws}", partial(checked, task, args))
        lines.append(f"| {task} | the posterior itself | {_each(row)} | | | | |")
        updates = args.updates or TASKS[task].updates
        for size in map(int, args.sizes.split(",")):
            name = f"{task} {size} {updates} {args.width} {args.layers}"
            row = kept(args.folder, name, partial(amortised, task, size, args))
            lines.append(
                f"| {task} | {size:,} | {_each(row)} | {PUBLISHED.get((task, size), '')} "
                f"| {row['held_out']:.3f} | {row['epochs']:.0f} | {row['seconds'] / 60:.1f} |"
            )
    return "\n".join(lines) + "\n"


def _each(row: dict[str, float]) -> str:
    figures = [value for key, value in row.items() if key.startswith("c2st")]
    return f"{', '.join(f'{f:.3f}' for f in figures)} | {sum(figures) / len(figures):.3f}"


def main(arguments: list[str] | None = None) -> None:
    """Measure what is not yet measured, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="two_moons,slcp")
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--draws", type=int, default=10_000, help="at most 10,000")
    parser.add_argument("--updates", type=int, help="most steps; by default those of the task")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=4)
    kept_rows = HERE / "checkpoints" / "flow_posteriors_amortised"
    parser.add_argument("--folder", type=Path, default=kept_rows)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    for folder in (args.folder, args.results):
        folder.mkdir(parents=True, exist_ok=True)
    text = table(args)
    print(text)
    (args.results / "flow_posteriors_amortised.md").write_text(text)


if __name__ == "__main__":
    main()
