# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Bits per dimension of RealNVP and Glow on MNIST beside published ones.

    python benchmarks/reproduce/flow_images.py                  # small nets, one CPU core
    python benchmarks/reproduce/flow_images.py --preset paper   # the papers' nets, for a GPU
    python benchmarks/reproduce/flow_images.py --preset smoke   # seconds: does it run?

MNIST comes from the folder that ``PYRO_DEEPGEN_DATA`` names. The flow ends in the sigmoid (with
alpha = 0.05, as in the RealNVP paper) and in uniform dequantisation, with fresh noise at each
presentation, so the figure is an upper bound of the bits of the 256 grey levels. The test figure
has one draw of the noise for each test image.

Neither paper has MNIST; the published figures are those of table 2 of Grathwohl et al. (2019),
"FFJORD", who trained both. The preset ``paper`` has the widths and depths that the papers give for
32 x 32 images, on two scales (28 pixels can be halved twice). The preset ``cpu`` has small nets and
few epochs, so it shows that the parts work together, not how good the models can get.

A run has a checkpoint in ``--folder`` and resumes where it was stopped; a finished one is read
back. The table goes to ``benchmarks/reproduce/results/flow-images-PRESET.md``, samples beside it.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pyro_deepgen.datasets import mnist
from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.fit import fit
from pyro_deepgen.metrics import LikelihoodFigure
from pyro_deepgen.plots import sample_grid
from pyro_deepgen.transforms import Dequantize, Logit, glow, real_nvp

HERE = Path(__file__).parent
SHAPE = (1, 28, 28)
NUM_LEVELS = 256
# Bits per dimension, Grathwohl et al. 2019 (arXiv:1810.01367), table 2, MNIST.
PUBLISHED = {"real_nvp": 1.06, "glow": 1.05}


@dataclass(frozen=True)
class Preset:
    """What distinguishes a quick run from a full one."""

    sizes: dict[str, dict[str, int]]
    epochs: int
    batch_size: int
    train_images: int
    test_images: int


PRESETS = {
    "smoke": Preset(
        sizes={
            "real_nvp": {"num_levels": 1, "hidden_channels": 4, "num_blocks": 1},
            "glow": {"num_levels": 2, "num_steps": 1, "hidden_channels": 4},
        },
        epochs=1,
        batch_size=20,
        train_images=100,
        test_images=40,
    ),
    "cpu": Preset(
        sizes={
            "real_nvp": {"num_levels": 2, "hidden_channels": 12, "num_blocks": 1},
            "glow": {"num_levels": 2, "num_steps": 6, "hidden_channels": 32},
        },
        epochs=2,
        batch_size=50,
        train_images=60_000,
        test_images=10_000,
    ),
    "paper": Preset(
        sizes={
            "real_nvp": {"num_levels": 2, "hidden_channels": 64, "num_blocks": 8},
            "glow": {"num_levels": 2, "num_steps": 32, "hidden_channels": 512},
        },
        epochs=250,
        batch_size=64,
        train_images=60_000,
        test_images=10_000,
    ),
}


class NegativeLogLikelihood(nn.Module):
    """Minus the log-probability of a batch of grey levels, a bound by one draw of the noise."""

    def __init__(self, flow: FlowDistribution) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        """Sum over the batch, in nats."""
        return -self.flow.log_prob(levels).sum()


@dataclass
class Row:
    """What one trained model gave."""

    bits: float
    standard_error: float
    train_bits: float
    num_parameters: int
    epochs: int
    updates: int
    train_minutes: float
    test_minutes: float
    device: str
    versions: str


def make_flow(model: str, sizes: dict[str, int]) -> FlowDistribution:
    """Grey levels from 784 normal variables."""
    make = {"real_nvp": real_nvp, "glow": glow}[model]
    base = dist.Normal(torch.zeros(math.prod(SHAPE)), 1.0).to_event(1)
    parts = [make(SHAPE, **sizes), Logit(0.05), Dequantize(SHAPE, NUM_LEVELS)]
    return FlowDistribution(base, parts, validate_args=False)


@torch.no_grad()
def log_likelihood(flow: FlowDistribution, levels: torch.Tensor) -> torch.Tensor:
    """Bounds of the log-probabilities of test images, one draw of the noise for each."""
    flow.eval()
    return torch.cat([flow.log_prob(part) for part in levels.split(500)]).cpu()


def bits(log_prob: torch.Tensor) -> LikelihoodFigure:
    """Bits per dimension of probabilities of grey levels, whose bins are 1 wide."""
    return LikelihoodFigure.bits(log_prob, math.prod(SHAPE), 1.0, "probabilities of grey levels")


def grey_levels(images: torch.Tensor) -> torch.Tensor:
    """The levels 0 to 255 of grey values from 0 to 1, as floating-point numbers."""
    return (images * (NUM_LEVELS - 1)).round()


def run(model: str, args: argparse.Namespace) -> Row:
    """Train and evaluate one model and draw samples, or read back what a finished run gave."""
    preset = PRESETS[args.preset]
    name = f"{model}-{args.preset}-{args.epochs}-{args.seed}"
    done = args.folder / f"{name}.result.pt"
    if done.exists():
        return Row(**torch.load(done, weights_only=True))
    pyro.set_rng_seed(args.seed)
    data = mnist(protocol="gray")
    x_train = grey_levels(data.x_train[: preset.train_images]).to(args.device)
    x_test = grey_levels(data.x_test[: preset.test_images]).to(args.device)
    flow = make_flow(model, preset.sizes[model]).to(args.device)
    loss = NegativeLogLikelihood(flow)
    with torch.no_grad():
        loss(x_train[:500])  # activation normalisation takes its start from these
    optimizer = torch.optim.Adam(loss.parameters(), args.rate, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    history = fit(
        loss,
        x_train,
        optimizer,
        num_epochs=args.epochs,
        batch_size=preset.batch_size,
        scheduler=decay,
        clip_norm=100.0,
        checkpoint=args.folder / f"{name}.pt",
        checkpoint_every=args.checkpoint_every,
        compile=args.compile,
        label=f"{model}, log-likelihood",
    )
    start = time.perf_counter()
    pyro.set_rng_seed(args.seed)
    figure = bits(log_likelihood(flow, x_test))
    nats_to_bits = math.prod(SHAPE) * math.log(2)
    row = Row(
        bits=figure.value,
        standard_error=figure.standard_error,
        train_bits=history.train[-1] / nats_to_bits,
        num_parameters=sum(p.numel() for p in flow.parameters()),
        epochs=len(history),
        updates=history.num_steps,
        train_minutes=history.seconds / 60,
        test_minutes=(time.perf_counter() - start) / 60,
        device=_device(args),
        versions=f"torch {torch.__version__}, pyro-ppl {pyro.__version__}",
    )
    draw_samples(flow, args.results / f"flow-images-{args.preset}-{model}.png", model, row)
    if history.stopped == "finished":
        torch.save(asdict(row), done)
    return row


@torch.no_grad()
def draw_samples(flow: FlowDistribution, path: Path, model: str, row: Row) -> None:
    """Write a picture of 64 samples."""
    images = flow.sample((64,)).cpu() / (NUM_LEVELS - 1)
    title = f"{model} after {row.epochs} epochs, {row.bits:.2f} bits per dimension"
    sample_grid(images, title).savefig(path, dpi=100)


def _device(args: argparse.Namespace) -> str:
    if args.device.type != "cpu":
        return torch.cuda.get_device_name(args.device)
    return f"CPU ({platform.machine()}, {args.threads} thread(s))"


def table(rows: dict[str, Row], args: argparse.Namespace) -> str:
    """The table of the models of a preset."""
    preset = PRESETS[args.preset]
    lines = [
        "# RealNVP and Glow on MNIST",
        "",
        f"Command: `python benchmarks/reproduce/flow_images.py --preset {args.preset}`. Bits per "
        f"dimension of {preset.test_images:,} test images, 256 grey levels, uniform dequantisation "
        "(one draw of the noise for each image, so an upper bound of the bits of the levels); "
        f"+- standard error over the images. {preset.train_images:,} training images, batches of "
        f"{preset.batch_size}, Adam at {args.rate:g} with cosine decay, seed {args.seed}. "
        "Published: Grathwohl et al. 2019 (arXiv:1810.01367), table 2, multi-scale models trained "
        "by them; checked against a transcription of that table, not the paper itself. Neither "
        "the RealNVP nor the Glow paper has MNIST.",
        "",
        "| model | sizes | parameters | test bits | published | training bits, last epoch | epochs "
        "| updates | training, min | testing, min | device |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model, published in PUBLISHED.items():
        sizes = ", ".join(f"{k.removeprefix('num_')} {v}" for k, v in preset.sizes[model].items())
        sizes = sizes.replace("_", " ")
        if model not in rows:
            lines.append(f"| {model} | {sizes} | | not run | {published} | | | | | | |")
            continue
        row = rows[model]
        lines.append(
            f"| {model} | {sizes} | {row.num_parameters:,} | {row.bits:.3f} +- "
            f"{row.standard_error:.3f} | {published} | {row.train_bits:.3f} | {row.epochs} | "
            f"{row.updates:,} | {row.train_minutes:.1f} | {row.test_minutes:.1f} | {row.device}, "
            f"{row.versions} |"
        )
    if args.preset != "paper":
        lines += [
            "",
            "The nets are far smaller than those of the published figures, and so is the number of "
            "epochs. Not run: `--preset paper`.",
        ]
    lines += [
        "",
        *(f"![samples of {m}](flow-images-{args.preset}-{m}.png)" for m in rows),
    ]
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    """Run the models of a preset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=list(PRESETS), default="cpu")
    parser.add_argument("--models", default=",".join(PUBLISHED), help="separated by commas")
    parser.add_argument("--epochs", type=int, help="default: that of the preset")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--device", type=torch.device, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="compile loss and gradient")
    parser.add_argument("--checkpoint-every", type=int, default=200, help="in updates")
    parser.add_argument("--folder", type=Path, default=HERE / "checkpoints" / "flow_images")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args(argv)
    args.epochs = args.epochs or PRESETS[args.preset].epochs
    args.device = args.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models = args.models.split(",")
    if not set(models) <= set(PUBLISHED):
        parser.error(f"--models takes some of {', '.join(PUBLISHED)}")
    torch.set_num_threads(args.threads)
    pyro.enable_validation(False)
    for folder in (args.folder, args.results):
        folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Row] = {}
    for model in models:
        print(f"{model}: {PRESETS[args.preset].sizes[model]}", flush=True)
        rows[model] = run(model, args)
        text = table(rows, args)
        (args.results / f"flow-images-{args.preset}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
