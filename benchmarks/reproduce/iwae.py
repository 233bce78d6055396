# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Test log-likelihoods of VAE and IWAE on MNIST beside table 1 of Burda et al. (2016).

    python benchmarks/reproduce/iwae.py                  # two CPU cores: 3 rows, within an hour
    python benchmarks/reproduce/iwae.py --preset paper   # all 12 rows and epochs, for a GPU

MNIST comes from the folder that ``PYRO_DEEPGEN_DATA`` names. Training images are binarised anew at
each presentation, test images once (``fixed``). Every row has a checkpoint in ``--folder``: the
script resumes where it was stopped, and finished rows are read back. It prints the table, and
writes it to ``benchmarks/reproduce/results/iwae-PRESET.md``.

A row is trained by Adam (batch 20, eps 1e-4 as in the paper). The preset ``paper`` has the paper's
3,280 epochs and learning rates (1e-3 * 10^(-i/7) for 3^i epochs, i = 0 ... 7); the preset ``cpu``
has the same few epochs for each row and lowers the rate from 1e-3 to 1e-4 by a cosine.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import pyro
import torch
from torch import nn

from pyro_deepgen.datasets import Binarize, mnist
from pyro_deepgen.fit import fit
from pyro_deepgen.infer import ImportanceWeightedELBO, MeanFieldELBO
from pyro_deepgen.latent import VAE, HierarchicalVAE, hierarchical_vae, vae
from pyro_deepgen.metrics import active_units, log_likelihood

HERE = Path(__file__).parent
PAPER_EPOCHS = 3280
# Negative test log-likelihood, Burda et al. 2016, table 1, MNIST: (objective, layers, particles).
PAPER = {
    ("VAE", 1, 1): 86.76,
    ("VAE", 1, 5): 86.47,
    ("VAE", 1, 50): 86.35,
    ("IWAE", 1, 1): 86.76,
    ("IWAE", 1, 5): 85.54,
    ("IWAE", 1, 50): 84.78,
    ("VAE", 2, 1): 85.33,
    ("VAE", 2, 5): 85.01,
    ("VAE", 2, 50): 84.78,
    ("IWAE", 2, 1): 85.33,
    ("IWAE", 2, 5): 83.89,
    ("IWAE", 2, 50): 82.90,
}
CPU_ROWS = [("VAE", 1, 1), ("IWAE", 1, 5), ("IWAE", 1, 50)]


@dataclass
class Row:
    """What one trained model gave."""

    epochs: int
    updates: int
    train_minutes: float
    test_minutes: float
    active: str
    log_likelihood: torch.Tensor


def make_pair(layers: int, mean: torch.Tensor) -> VAE | HierarchicalVAE:
    """The paper's architecture, with output biases that start at the mean image."""
    pair: VAE | HierarchicalVAE
    if layers == 1:
        pair = vae((1, 28, 28), 50, (200, 200), activation=nn.Tanh)
        output = pair.decoder.layers[-1]
    else:
        pair = hierarchical_vae((1, 28, 28))
        output = pair.decoders[0].layers[-1]
    with torch.no_grad():
        output.bias.copy_(torch.logit(mean.flatten().clamp(1e-3, 1 - 1e-3)))
    return pair


def paper_rate(epoch: int) -> float:
    """The paper's learning rate relative to 1e-3: 3^i epochs at 10^(-i/7)."""
    stage, passed = 0, 1
    while epoch >= passed and stage < 7:
        stage += 1
        passed += 3**stage
    return 10 ** (-stage / 7)


def run_row(key: tuple[str, int, int], args: argparse.Namespace) -> Row:
    """Train and evaluate one row, or read it back."""
    objective, layers, particles = key
    name = f"{objective}-{layers}-{particles}-{args.epochs}"
    done = args.folder / f"{name}.result.pt"
    if done.exists():
        return Row(**torch.load(done, weights_only=True))
    pyro.set_rng_seed(args.seed)
    data = mnist(protocol="gray")
    pair = make_pair(layers, data.x_train.mean(0)).to(args.device)
    elbo = MeanFieldELBO if objective == "VAE" else ImportanceWeightedELBO
    loss = elbo(particles)(pair.model, pair.guide)
    optimizer = torch.optim.Adam(loss.parameters(), 1e-3, eps=1e-4, fused=True)
    cosine = lambda e: 0.55 + 0.45 * math.cos(math.pi * e / args.epochs)  # noqa: E731
    rate = paper_rate if args.preset == "paper" else cosine
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    history = fit(
        loss,
        data.x_train.to(args.device),
        optimizer,
        num_epochs=args.epochs,
        batch_size=20,
        transform=Binarize("dynamic", validate_args=False),
        scheduler=scheduler,
        checkpoint=args.folder / f"{name}.pt",
        checkpoint_every=args.checkpoint_every,
        label=f"{objective} k={particles}, bound",
    )
    x_test = Binarize("fixed")(data.x_test[: args.test_images]).to(args.device)
    start = time.perf_counter()
    test = log_likelihood(pair.model, pair.guide, x_test, num_particles=5000).cpu()
    sites = ["z"] if layers == 1 else ["z1", "z2"]
    active = [active_units(pair.guide, x_test, site=s).num_active for s in sites]
    row = Row(
        epochs=len(history),
        updates=history.num_steps,
        train_minutes=history.seconds / 60,
        test_minutes=(time.perf_counter() - start) / 60,
        active=" + ".join(map(str, active)),
        log_likelihood=test,
    )
    torch.save(vars(row), done)
    return row


def table(rows: dict[tuple[str, int, int], Row], args: argparse.Namespace) -> str:
    """The table, and the paired differences within each number of layers."""
    device = "CPU" if args.device.type == "cpu" else torch.cuda.get_device_name()
    lines = [
        "# VAE and IWAE on MNIST",
        "",
        f"Command: `python benchmarks/reproduce/iwae.py --preset {args.preset}`. Negative test "
        f"log-likelihood in nats of the first {args.test_images} test images by 5,000 particles, "
        f"dynamic binarisation (test images: {Binarize('fixed').name}). Device: {device} "
        f"({platform.machine()}, {args.threads} thread(s)), torch {torch.__version__}. Published: "
        "Burda, Grosse, Salakhutdinov 2016, table 1 (3,280 epochs, 10,000 test images).",
        "",
        "| objective | stochastic layers | k | test NLL | s.e. | published | active units | epochs "
        "| updates | training, min | testing, min |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key in PAPER:
        objective, layers, particles = key
        published = f"{PAPER[key]:.2f}"
        if key not in rows:
            lines.append(
                f"| {objective} | {layers} | {particles} | not run | | {published} | | | | | |"
            )
            continue
        row = rows[key]
        nll = -row.log_likelihood.double()
        lines.append(
            f"| {objective} | {layers} | {particles} | {nll.mean():.2f} | "
            f"{nll.std() / len(nll) ** 0.5:.2f} | {published} | {row.active} | {row.epochs} | "
            f"{row.updates:,} | {row.train_minutes:.1f} | {row.test_minutes:.1f} |"
        )
    lines += [
        "",
        "Paired differences of test log-likelihood over the same images (second minus first), with "
        "their standard error over images; an order is claimed beyond two of them:",
        "",
    ]
    keys = [k for k in PAPER if k in rows]
    for i, a in enumerate(keys):
        for b in keys[i + 1 :]:
            if a[1] == b[1]:
                gap = (rows[b].log_likelihood - rows[a].log_likelihood).double()
                error = float(gap.std() / len(gap) ** 0.5)
                mean = float(gap.mean())
                verdict = "no order"
                if abs(mean) > 2 * error:
                    verdict = "second better" if mean > 0 else "first better"
                lines.append(
                    f"- {a[0]} k={a[2]} and {b[0]} k={b[2]}, {a[1]} layer(s): "
                    f"{mean:+.2f} +- {error:.2f} nats: {verdict}"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the rows of a preset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=["cpu", "paper"], default="cpu")
    parser.add_argument("--epochs", type=int, help="default: 15 (cpu), 3280 (paper)")
    parser.add_argument("--test-images", type=int, help="default: 1000 (cpu), 10000 (paper)")
    parser.add_argument("--device", type=torch.device, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-every", type=int, default=1000, help="in updates")
    parser.add_argument("--folder", type=Path, default=HERE / "checkpoints" / "iwae")
    parser.add_argument("--only", help='rows such as "IWAE-1-50", separated by commas')
    args = parser.parse_args()
    paper = args.preset == "paper"
    args.epochs = args.epochs or (PAPER_EPOCHS if paper else 15)
    args.test_images = args.test_images or (10_000 if paper else 1000)
    args.device = args.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(args.threads)
    pyro.enable_validation(False)
    args.folder.mkdir(parents=True, exist_ok=True)
    keys = list(PAPER) if paper else CPU_ROWS
    if args.only:
        wanted = {tuple(r.split("-")) for r in args.only.split(",")}
        keys = [k for k in PAPER if tuple(map(str, k)) in wanted]
        if len(keys) != len(wanted):
            parser.error(f"--only takes rows of {['-'.join(map(str, k)) for k in PAPER]}")
    rows = {}
    for key in keys:
        print(f"{key[0]}, {key[1]} stochastic layer(s), k = {key[2]}", flush=True)
        rows[key] = run_row(key, args)
    text = table(rows, args)
    print(text)
    if not args.only:
        results = HERE / "results"
        results.mkdir(exist_ok=True)
        (results / f"iwae-{args.preset}.md").write_text(text)


if __name__ == "__main__":
    main()
