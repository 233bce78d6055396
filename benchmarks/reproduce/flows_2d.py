# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Flows fitted to the two-dimensional energies of Rezende and Mohamed (2015), figure 3.

    python benchmarks/reproduce/flows_2d.py                  # 4,000 steps a fit, one CPU thread
    python benchmarks/reproduce/flows_2d.py --preset quick   # 300 steps, nothing compiled
    python benchmarks/reproduce/flows_2d.py --preset long    # 50,000 steps

Needs no data. Writes ``flows_2d.md`` and ``flows_2d.png`` to ``--folder``, by default
``benchmarks/reproduce/results``; another preset than the default one adds its name to the files.

The energies are Pyro models, a flat site and a factor; the guides draw from flows, and
``CompiledSVI`` descends on KL(q || p). As in the paper the energy comes in slowly: it is multiplied
by ``min(1, 0.01 + t / T)``. Here T is half of the steps, and Adam's rate falls by a cosine.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from torch import nn
from torch.distributions import constraints

from pyro_deepgen.datasets import potential
from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.infer import CompiledSVI
from pyro_deepgen.plots import density_grid
from pyro_deepgen.transforms import (
    Transform,
    cholesky_affine,
    nice,
    planar,
    real_nvp,
    spline_coupling,
)

HERE = Path(__file__).parent
ENERGIES = ("U1", "U2", "U3", "U4")
WALL = 0.4  # softness of the walls at |z1| = 4
BOX = ((-7.0, 7.0), (-8.0, 6.0))  # all of each target but 1e-10 is in here
PRESETS = {"quick": 300, "cpu": 4_000, "long": 50_000}
# The coupling flows have about as many parameters as 32 planar layers, 160.
FLOWS: dict[str, Callable[[], list[Transform]]] = {
    "Gaussian": lambda: [],
    "planar, K = 2": lambda: [planar(2) for _ in range(2)],
    "planar, K = 8": lambda: [planar(2) for _ in range(8)],
    "planar, K = 32": lambda: [planar(2) for _ in range(32)],
    "NICE": lambda: [nice(2, num_layers=4, hidden_dims=(13,), activation=nn.Tanh)],
    "RealNVP": lambda: [real_nvp(2, num_layers=4, hidden_dims=(10,), activation=nn.Tanh)],
    "spline": lambda: [
        spline_coupling(2, num_layers=2, hidden_dims=(5,), num_bins=4, activation=nn.Tanh)
    ],
}


class Target:
    """A density of the paper's table 1, made proper.

    U2, U3 and U4 have waves without an end, so that no best approximation exists. Half a Gaussian
    of standard deviation ``WALL`` ends them on either side of ``|z1| <= 4``. The integral over z2
    is the same for all z1, so the walls multiply Z by ``1 + WALL * sqrt(2 pi) / 8``.
    """

    def __init__(self, name: str) -> None:
        self.energy = potential(name)
        self.endless = math.isfinite(self.energy.z1_limit)
        walls = math.log1p(WALL * math.sqrt(2 * math.pi) / 8) if self.endless else 0.0
        self.log_normalizer = self.energy.log_normalizer + walls

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """The log density without log Z."""
        value = self.energy(z)
        if not self.endless:
            return value
        beyond = (z[..., 0].abs() - self.energy.z1_limit).clamp_min(0)
        return value - 0.5 * (beyond / WALL).square()


class Model(nn.Module):
    """One of the energies, which an argument chooses: one compiled graph then serves them all."""

    def __init__(self) -> None:
        super().__init__()
        self.targets = [Target(name) for name in ENERGIES]

    def forward(self, beta: torch.Tensor, chosen: torch.Tensor) -> None:
        """The energy, times ``beta`` of shape ``()``, that the row ``chosen`` of I names."""
        z = pyro.sample("z", dist.ImproperUniform(constraints.real_vector, (), (2,)))
        log_p = torch.stack([target(z) for target in self.targets], -1) @ chosen
        pyro.factor("energy", beta * log_p)


class Guide(nn.Module):
    """A flow from a Gaussian whose mean and covariance are learned."""

    def __init__(self, transforms: list[Transform]) -> None:
        super().__init__()
        base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
        self.flow = FlowDistribution(base, [cholesky_affine(2), *transforms])

    def forward(self, beta: torch.Tensor, chosen: torch.Tensor) -> None:
        """Draw from the flow."""
        pyro.sample("z", self.flow)


@dataclass
class Fit:
    """A trained flow and what came of it; divergences in nats."""

    flow: FlowDistribution
    num_parameters: int
    first: float  # seconds of the first two steps, with the compilation
    step: float  # milliseconds of a later step
    kl: float = math.nan
    error: float = math.nan
    kl_grid: float = math.nan
    apart: float = math.nan  # of draws and grid, in standard errors
    forward_kl: float = math.nan
    mass: float = math.nan
    ess: float = math.nan
    log_z: float = math.nan


def train(name: str, args: argparse.Namespace) -> list[Fit]:
    """Fit one flow to each energy, from the same start."""
    pyro.set_rng_seed(args.seed)
    model, guide = Model(), Guide(FLOWS[name]()).to(args.device)
    start = copy.deepcopy(guide.state_dict())
    optimizer = torch.optim.Adam(guide.parameters(), args.rate)
    elbo = Trace_ELBO(num_particles=args.batch, vectorize_particles=True, max_plate_nesting=0)
    backend = None if args.backend == "none" else args.backend
    svi = CompiledSVI(model, guide, optimizer, elbo, as_tensor=True, backend=backend)
    beta = torch.ones((), device=args.device)
    energies = torch.eye(len(ENERGIES), device=args.device)
    clock = time.perf_counter()
    for _ in range(2):  # the optimiser makes its state in the first, the second is compiled
        svi.step(beta, energies[0])
    first = time.perf_counter() - clock
    fits = []
    for chosen in energies:
        # The graph holds these tensors: a fresh start is a change in place.
        guide.load_state_dict(start)
        for state in optimizer.state.values():
            for value in state.values():
                value.zero_()
        clock = time.perf_counter()
        for step in range(args.steps):
            # From the full rate to a fiftieth of it.
            cosine = 0.51 + 0.49 * math.cos(math.pi * step / args.steps)
            optimizer.param_groups[0]["lr"] = args.rate * cosine
            svi.step(beta.fill_(min(1.0, 0.01 + step / (0.5 * args.steps))), chosen)
        seconds = time.perf_counter() - clock
        flow = copy.deepcopy(guide.flow).cpu().double().eval()
        size = sum(p.numel() for p in flow.parameters())
        fits.append(Fit(flow, size, first, 1e3 * seconds / args.steps))
    return fits


def grid(step: float) -> torch.Tensor:
    """The midpoints of squares of side ``step`` that fill the box, in double precision."""
    axes = [
        low + step * (torch.arange(round((high - low) / step), dtype=torch.float64) + 0.5)
        for low, high in BOX
    ]
    return torch.cartesian_prod(*axes)


@torch.no_grad()
def assess(fit: Fit, target: Target, draws: int, spacing: float) -> None:
    """Both divergences, by draws and by quadrature, and what importance sampling makes of q."""
    z = fit.flow.sample((draws,))
    log_weights = target(z) - target.log_normalizer - fit.flow.log_prob(z)
    weights = log_weights.softmax(0)
    fit.kl, fit.error = float(-log_weights.mean()), float(log_weights.std() / math.sqrt(draws))
    fit.ess = float(100 / weights.square().sum() / draws)
    fit.log_z = float(log_weights.logsumexp(0) - math.log(draws))
    points = grid(spacing)
    log_q = torch.cat([fit.flow.log_prob(part) for part in points.split(20_000)])
    log_p = target(points) - target.log_normalizer
    q, p = log_q.exp() * spacing**2, log_p.exp() * spacing**2
    fit.mass = float(q.sum())
    fit.kl_grid = float((q * (log_q - log_p)).sum())
    fit.forward_kl = float((p * (log_p - log_q)).sum())
    low, high = torch.tensor(BOX, dtype=z.dtype).unbind(-1)
    terms = torch.where(((z > low) & (z < high)).all(-1), -log_weights, 0.0)
    fit.apart = float((terms.mean() - fit.kl_grid) / terms.std()) * math.sqrt(draws)


def normalizers(spacing: float) -> list[str]:
    """Log Z of each target by quadrature beside its value."""
    lines = [
        "| energy | log Z used | quadrature | difference | change when the step is doubled |",
        "|---|---|---|---|---|",
    ]
    for name in ENERGIES:
        target = Target(name)
        fine, coarse = (
            float(target(grid(step)).logsumexp(0)) + 2 * math.log(step)
            for step in (spacing, 2 * spacing)
        )
        gap = fine - target.log_normalizer
        lines.append(
            f"| {name} | {target.log_normalizer:.8f} | {fine:.8f} | {gap:+.0e} | "
            f"{coarse - fine:+.0e} |"
        )
    return lines


def fits_figure(fits: dict[str, list[Fit]], path: Path) -> None:
    """The paper's figure 3: the energies, the fits by planar layers, and those by other flows."""
    names = [name for name in fits if name != "Gaussian"]
    rows = [
        [Target(energy), *(_in_double(fits[name][i].flow) for name in names)]
        for i, energy in enumerate(ENERGIES)
    ]
    labels = [f"$U_{energy[1]}$" for energy in ENERGIES]
    boxes = [((-5.0, 5.0), (-6.5, 3.5) if e == "U4" else (-5.0, 5.0)) for e in ENERGIES]
    title = "Energies of Rezende and Mohamed (2015) and flows fitted to them"
    density_grid(rows, boxes, labels, ["target", *names], title).savefig(path, dpi=90)


def _in_double(flow: FlowDistribution) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda z: flow.log_prob(z.double())


def report(fits: dict[str, list[Fit]], args: argparse.Namespace, seconds: float) -> str:
    """The page of results."""
    everything = [fit for row in fits.values() for fit in row]
    apart = max(abs(fit.apart) for fit in everything)
    leak = max(abs(fit.mass - 1) for fit in everything)
    device = "CPU" if args.device.type == "cpu" else torch.cuda.get_device_name()
    compiled = sum(row[0].first for row in fits.values())
    head = " | ".join(f"{e}: KL(q,p), nats | ESS, %" for e in ENERGIES)
    lines = [
        "# Flows on the two-dimensional energies of Rezende and Mohamed (2015)",
        "",
        f"Command: `python benchmarks/reproduce/flows_2d.py --preset {args.preset} --steps "
        f"{args.steps} --seed {args.seed}`. Device: {device} ({platform.machine()}, {args.threads} "
        f"thread(s)), torch {torch.__version__}, pyro {pyro.__version__}. {seconds / 60:.1f} "
        f"minutes in all, {compiled / 60:.1f} of them compilation (backend {args.backend}), while "
        f"the machine's load was {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores.",
        "",
        f"Each fit: {args.steps:,} steps of {args.batch} draws, Adam at {args.rate:g} with a "
        f"cosine down to a fiftieth, the energy times min(1, 0.01 + t / {args.steps // 2}), one "
        "seed. (The paper: 500,000 steps of 100 draws with RMSprop at 1e-5.) "
        "All flows start from a Gaussian with learned mean and covariance, which is the row "
        f"`Gaussian`. U2, U3 and U4 are improper; beyond |z1| = 4 they have walls of standard "
        f"deviation {WALL}, and log Z counts them. The coupling flows have about the number of "
        "parameters of 32 planar layers.",
        "",
        f"![The energies and the fits](flows_2d{_suffix(args.preset)}.png)",
        "",
        f"| flow | parameters | {head} |",
        "|---|---" + "|---" * 2 * len(ENERGIES) + "|",
    ]
    for name, row in fits.items():
        cells = " | ".join(f"{f.kl:.3f} +- {f.error:.3f} | {f.ess:.1f}" for f in row)
        lines.append(f"| {name} | {row[0].num_parameters} | {cells} |")
    lines += [
        "",
        f"Means over {args.draws:,} draws of q with their standard errors; the effective sample "
        "size is that of the same draws as importance samples, in percent of their number. Where q "
        "misses a part of the target, a few large weights make it, and other draws of the same fit "
        "may give a very different size: rely on sizes near 90 % and above only.",
        "",
        "A divergence under the integral of q says little about what q misses. On a grid, with the "
        "inverse of each flow, the other one is measured as well; and the importance weights of "
        "the draws estimate log Z:",
        "",
        "| flow | "
        + " | ".join(f"{e}: KL(p,q) | log Z error" for e in ENERGIES)
        + " | ms a step |",
        "|---" + "|---" * 2 * len(ENERGIES) + "|---|",
    ]
    for name, row in fits.items():
        cells = " | ".join(f"{f.forward_kl:.3f} | {f.log_z:+.3f}" for f in row)
        lines.append(f"| {name} | {cells} | {sum(f.step for f in row) / len(row):.2f} |")
    lines += [
        "",
        f"KL(q,p) by the draws within z1 in {BOX[0]}, z2 in {BOX[1]}, scored by the pass that drew "
        f"them, and by quadrature of step {args.spacing:g} over this box, scored by inverses, "
        f"differ by at most {apart:.1f} standard errors over the {len(everything)} fits; q "
        f"integrates over the box to 1 within {leak:.0e}.",
        "",
        "Log Z by quadrature (midpoints, the same grid):",
        "",
        *normalizers(args.spacing),
    ]
    return "\n".join(lines) + "\n"


def _suffix(preset: str) -> str:
    return "" if preset == "cpu" else f"-{preset}"


def main() -> None:
    """Fit everything, draw the pictures and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--steps", type=int, help="instead of the preset's")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1e-2)
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--spacing", type=float, default=0.04, help="step of the quadrature")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", help="of torch.compile, or none")
    parser.add_argument("--device", type=torch.device, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=HERE / "results")
    args = parser.parse_args()
    args.device = args.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.steps = args.steps or PRESETS[args.preset]
    args.backend = args.backend or ("none" if args.preset == "quick" else "inductor")
    torch.set_num_threads(args.threads)
    pyro.enable_validation(False)
    pyro.settings.set(module_local_params=True)
    clock = time.perf_counter()
    fits: dict[str, list[Fit]] = {}
    for name in FLOWS:
        fits[name] = train(name, args)
        for fit, energy in zip(fits[name], ENERGIES, strict=True):
            assess(fit, Target(energy), args.draws, args.spacing)
            print(f"{name} on {energy}: KL {fit.kl:.3f}, ESS {fit.ess:.1f} %", flush=True)
    seconds = time.perf_counter() - clock
    args.folder.mkdir(parents=True, exist_ok=True)
    stem = f"flows_2d{_suffix(args.preset)}"
    fits_figure(fits, args.folder / f"{stem}.png")
    text = report(fits, args, seconds)
    print(text)
    (args.folder / f"{stem}.md").write_text(text, encoding="utf8")


if __name__ == "__main__":
    main()
