# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Test log-likelihood of flows beside zuko's, with equal architecture, data and steps.

    .venv-bench/bin/python benchmarks/reproduce/flow_density.py                   # ten minutes
    .venv-bench/bin/python benchmarks/reproduce/flow_density.py --preset paper    # hours
    python benchmarks/reproduce/flow_density.py --preset smoke --libraries ours   # does it run?

zuko is in the environment of the benchmarks only (``make bench`` makes it). Red wine comes from the
folder that ``PYRO_DEEPGEN_DATA`` names (``red_wine.npz``, array ``x`` of shape (1599, 11)), each
column standardised by the training split. (Its columns are rounded, and 240 of its rows repeat
others, so its densities have no upper bound; they serve to compare the libraries, not to say how
well wine can be modelled.) The toys are two-dimensional.

The flows are masked autoregressive (MAF), affine coupling with alternating masks (RealNVP) and
autoregressive with rational-quadratic splines (NSF, as zuko makes it). Number of layers, hidden
units, order of the variables, bins and bounds of the splines are the same in both libraries; each
has its own start and its own bound on the scale of an affine layer. A seed fixes the split (or the
samples), the order of the batches and the start. Both are trained by the same loop for the same
number of steps, and tested with the parameters of the epoch with the best validation loss. The
differences are paired by seed: the goal is a mean difference not below 0 by more than two of its
standard errors.

Finished runs are kept in ``--folder`` and read back. The table goes to
``benchmarks/reproduce/results/flow-density-PRESET.md``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pyro_deepgen.datasets import TOYS, toy
from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.fit import fit
from pyro_deepgen.transforms import maf, real_nvp, spline_autoregressive

HERE = Path(__file__).parent
FLOWS = ("MAF", "RealNVP", "NSF")
NUM_BINS, BOUND = 8, 5.0


@dataclass(frozen=True)
class Preset:
    """Sizes of flows, data and training."""

    data: tuple[str, ...]
    num_seeds: int
    num_layers: int
    hidden_dims: tuple[int, ...]
    num_steps: int
    num_samples: int


PRESETS = {
    "smoke": Preset(("two_moons",), 2, 2, (8, 8), 20, 500),
    "cpu": Preset(("red_wine", "two_moons", "checkerboard"), 5, 3, (64, 64), 600, 5000),
    "paper": Preset(("red_wine", *TOYS), 5, 5, (128, 128), 10_000, 50_000),
}


class Split(NamedTuple):
    """Training, validation and test data, each of shape ``(N, D)``."""

    train: torch.Tensor
    valid: torch.Tensor
    test: torch.Tensor


def load(name: str, seed: int, num_samples: int) -> Split:
    """Red wine in a random split of 80, 10 and 10 percent, or fresh samples of a toy."""
    if name != "red_wine":
        x = toy(name, 3 * num_samples, seed)
        num_valid = num_samples // 5
        return Split(x[:num_samples], x[-num_valid:], x[num_samples:-num_valid])
    folder = os.environ.get("PYRO_DEEPGEN_DATA")
    path = Path(folder or "") / "red_wine.npz"
    if folder is None or not path.is_file():
        raise FileNotFoundError(
            f"expected red_wine.npz (array x of shape (1599, 11)) in the folder that "
            f"PYRO_DEEPGEN_DATA names, got {folder!r}; set it, or choose other data by --data"
        )
    with np.load(path) as arrays:
        x = torch.from_numpy(arrays["x"])
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]
    tenth = len(x) // 10
    train, valid, test = x[: -2 * tenth], x[-2 * tenth : -tenth], x[-tenth:]
    mean, std = train.mean(0), train.std(0)
    return Split(*((part - mean) / std for part in (train, valid, test)))


class Ours(nn.Module):
    """Minus the log-likelihood of a batch under a flow of this library."""

    def __init__(self, flow: str, num_dims: int, preset: Preset) -> None:
        super().__init__()
        sizes: dict[str, Any] = {"num_layers": preset.num_layers, "hidden_dims": preset.hidden_dims}
        if flow == "MAF":
            transform = maf(num_dims, **sizes)
        elif flow == "RealNVP":
            transform = real_nvp(num_dims, mask="alternating", **sizes)
        else:
            transform = spline_autoregressive(num_dims, num_bins=NUM_BINS, bound=BOUND, **sizes)
        base = dist.Normal(torch.zeros(num_dims), 1.0).to_event(1)
        self.flow = FlowDistribution(base, transform)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Log-densities of ``(N, D)`` points."""
        return self.flow.log_prob(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over the batch."""
        return -self.log_prob(x).sum()


class Zukos(nn.Module):
    """The same under a flow of zuko."""

    def __init__(self, flow: str, num_dims: int, preset: Preset) -> None:
        super().__init__()
        try:
            import zuko
        except ImportError as error:
            raise ImportError(
                "expected zuko, which the environment of the benchmarks has: run this script by "
                ".venv-bench/bin/python (`make bench` makes it), or with --libraries ours"
            ) from error
        options: dict[str, Any] = {"bins": NUM_BINS} if flow == "NSF" else {}
        self.flow = getattr(zuko.flows, flow)(
            num_dims,
            transforms=preset.num_layers,
            hidden_features=preset.hidden_dims,
            **options,
        )

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Log-densities of ``(N, D)`` points."""
        return self.flow().log_prob(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over the batch."""
        return -self.log_prob(x).sum()


LIBRARIES = {"ours": Ours, "zuko": Zukos}


@dataclass
class Run:
    """What one trained flow gave."""

    test: float
    valid: float
    num_parameters: int
    updates: int
    seconds: float


def run(data: str, flow: str, library: str, seed: int, args: argparse.Namespace) -> Run:
    """Train and test one flow, or read it back."""
    preset = PRESETS[args.preset]
    done = args.folder / f"{args.preset}-{args.rate:g}-{data}-{flow}-{library}-{seed}.pt"
    if done.exists():
        return Run(**torch.load(done, weights_only=True))
    split = Split(*(part.to(args.device) for part in load(data, seed, preset.num_samples)))
    pyro.set_rng_seed(seed)
    loss = LIBRARIES[library](flow, split.train.shape[1], preset).to(args.device)
    optimizer = torch.optim.Adam(loss.parameters(), args.rate)
    batch_size = 128 if len(split.train) < 2000 else 256
    steps_per_epoch = -(-len(split.train) // batch_size)
    epochs = max(1, round(preset.num_steps / steps_per_epoch))
    history = fit(
        loss,
        split.train,
        optimizer,
        num_epochs=epochs,
        batch_size=batch_size,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs),
        clip_norm=10.0,
        held_out=split.valid,
        patience=epochs,  # never met: all steps are taken, and the best parameters given back
        seed=seed,
        progress=False,
    )
    with torch.no_grad():
        loss.eval()
        test = float(loss.log_prob(split.test).double().mean())
    result = Run(
        test=test,
        valid=-min(history.held_out),
        num_parameters=sum(p.numel() for p in loss.parameters()),
        updates=history.num_steps,
        seconds=history.seconds,
    )
    torch.save(vars(result), done)
    return result


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """The mean and its standard error."""
    tensor = torch.tensor(values, dtype=torch.float64)
    return float(tensor.mean()), float(tensor.std() / len(tensor) ** 0.5)


Runs = dict[tuple[str, str, str], list[Run]]


def table(runs: Runs, args: argparse.Namespace) -> str:
    """Log-likelihoods beside each other, and their paired differences."""
    preset = PRESETS[args.preset]
    versions = [f"torch {torch.__version__}", f"pyro-ppl {pyro.__version__}"]
    if "zuko" in args.libraries:
        versions.append(f"zuko {importlib.metadata.version('zuko')}")
    device = f"CPU ({platform.machine()}, {args.threads} thread(s))"
    if args.device.type != "cpu":
        device = torch.cuda.get_device_name(args.device)
    lines = [
        "# Density estimation beside zuko",
        "",
        f"Command: `python benchmarks/reproduce/flow_density.py --preset {args.preset}`. Mean "
        f"log-likelihood of held-out data in nats, +- standard error over {preset.num_seeds} "
        f"seeds; red wine in units of its standard deviations. {preset.num_layers} layers, hidden "
        f"units {preset.hidden_dims}, splines of {NUM_BINS} bins on [-{BOUND:g}, {BOUND:g}], Adam "
        f"at {args.rate:g} with cosine decay, parameters of the best validation loss. Differences "
        "(ours minus zuko's) are paired by seed; below is said where the mean is negative by more "
        f"than two standard errors. Device: {device}, {', '.join(versions)}.",
        "",
        "| data | flow | ours | zuko | difference | in s.e. | verdict | parameters, ours and zuko "
        "| updates | training, s a run, ours and zuko |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for data in args.data:
        for flow in FLOWS:
            found = {lib: runs.get((data, flow, lib), []) for lib in LIBRARIES}
            cells = {
                lib: "{:.3f} +- {:.3f}".format(*mean_and_error([r.test for r in of]))
                for lib, of in found.items()
                if of
            }
            if not cells:
                continue
            difference = "| | |"
            if len(cells) == 2:
                pairs = zip(found["ours"], found["zuko"], strict=True)
                mean, error = mean_and_error([a.test - b.test for a, b in pairs])
                verdict = "below" if mean < -2 * error else "not below"
                verdict = "above" if mean > 2 * error else verdict
                difference = f"{mean:+.3f} +- {error:.3f} | {mean / error:+.1f} | {verdict} |"
            some = [of for of in found.values() if of]
            lines.append(
                f"| {data} | {flow} | {cells.get('ours', '')} | {cells.get('zuko', 'not run')} | "
                f"{difference} {', '.join(f'{of[0].num_parameters:,}' for of in some)} | "
                f"{some[0][0].updates:,} | "
                f"{', '.join(f'{np.mean([r.seconds for r in of]):.1f}' for of in some)} |"
            )
    if args.preset != "paper":
        lines += ["", "Not run: `--preset paper`, with larger nets, more steps and all toys."]
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    """Run all data, flows, libraries and seeds of a preset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=list(PRESETS), default="cpu")
    parser.add_argument("--data", help=f"of red_wine and {', '.join(TOYS)}, separated by commas")
    parser.add_argument("--libraries", default="ours,zuko")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=HERE / "checkpoints" / "flow_density")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args(argv)
    preset = PRESETS[args.preset]
    args.data = tuple(args.data.split(",")) if args.data else preset.data
    args.libraries = args.libraries.split(",")
    if not set(args.data) <= {"red_wine", *TOYS}:
        parser.error(f"--data takes some of red_wine, {', '.join(TOYS)}")
    if not set(args.libraries) <= set(LIBRARIES):
        parser.error(f"--libraries takes some of {', '.join(LIBRARIES)}")
    torch.set_num_threads(args.threads)
    pyro.enable_validation(False)
    for folder in (args.folder, args.results):
        folder.mkdir(parents=True, exist_ok=True)
    runs: Runs = {}
    start = time.perf_counter()
    for data in args.data:
        for flow in FLOWS:
            for library in args.libraries:
                of = [run(data, flow, library, seed, args) for seed in range(preset.num_seeds)]
                runs[data, flow, library] = of
                mean, error = mean_and_error([r.test for r in of])
                passed = time.perf_counter() - start
                print(
                    f"{data}, {flow}, {library}: {mean:.3f} +- {error:.3f} ({passed:.0f} s)",
                    flush=True,
                )
    text = table(runs, args)
    print(text)
    (args.results / f"flow-density-{args.preset}.md").write_text(text)


if __name__ == "__main__":
    main()
