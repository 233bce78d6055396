# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Train a Bernoulli VAE with Pyro's SVI on handwritten digits; pictures go to ``demo/``.

Run by ``make demo``. The digits are the 1,797 images of 8 x 8 pixels that scikit-learn brings.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import pyro
import torch
from matplotlib.figure import Figure
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import ClippedAdam
from tqdm.auto import tqdm

from pyro_deepgen import plots
from pyro_deepgen.datasets import Dataset, digits
from pyro_deepgen.infer import MeanFieldELBO
from pyro_deepgen.latent import VAE, vae
from pyro_deepgen.metrics import LikelihoodFigure, active_units, log_likelihood


def train(pair: VAE, data: Dataset, num_epochs: int, title: str) -> None:
    """Train a pair with plain SVI."""
    batch_size, num_data = 64, len(data.x_train)
    num_steps = num_epochs * math.ceil(num_data / batch_size)
    decay = 0.05 ** (1 / num_steps)  # the learning rate ends at a twentieth of its start
    svi = SVI(pair.model, pair.guide, ClippedAdam({"lr": 3e-3, "lrd": decay}), Trace_ELBO())
    with tqdm(total=num_steps, desc=title, unit="step") as bar:
        for _ in range(num_epochs):
            loss = 0.0
            for batch in data.x_train[torch.randperm(num_data)].split(batch_size):
                loss += svi.step(batch)
                bar.update()
            bar.set_postfix_str(f"ELBO {-loss / num_data:.2f} nats")


def table(pair: VAE, x_test: torch.Tensor, scale: str) -> str:
    """Test bounds and active dimensions."""
    with torch.no_grad():
        elbo = -float(MeanFieldELBO(100).loss(pair.model, pair.guide, x_test)) / len(x_test)
    lines = [f"test ELBO                     {elbo:.3f} nats ({scale})"]
    for k in (1, 50, 5000):
        bound = log_likelihood(pair.model, pair.guide, x_test, num_particles=k)
        lines.append(f"importance-weighted, k = {k:<4} {LikelihoodFigure.nats(bound, scale)}")
    units = active_units(pair.guide, x_test)
    lines.append(f"active latent dimensions      {units.num_active} of {pair.latent_dim}")
    return "\n".join(lines)


def pictures(pair: VAE, flat: VAE, data: Dataset, x_test: torch.Tensor) -> dict[str, Figure]:
    """The pictures of the demo: ``pair`` has many latent dimensions, ``flat`` has two."""
    with torch.no_grad():
        codes = flat.encode(x_test).mean
        values = torch.linspace(-2.5, 2.5, 9)
        order = active_units(pair.guide, x_test).variance.argsort(descending=True)[:5].tolist()
        start = pair.encode(x_test[0]).mean
        travelled = pair.decode(plots.traversal_codes(start, values, order)).mean
        grid, positions = plots.manifold_codes(12)
        manifold = flat.decode(grid).mean
    return {
        "reconstructions": plots.reconstructions(
            x_test[:10], pair.reconstruct(x_test[:10]), "Test digits and their reconstructions"
        ),
        "samples": plots.sample_grid(pair.sample(64, mean=True), "Samples from the prior (means)"),
        "latent_map": plots.latent_map(codes, data.y_test, "Test digits in a 2-D latent space"),
        "manifold": plots.manifold(manifold, positions, "The 2-D latent space, decoded"),
        "traversal": plots.traversal(travelled, values, order, "One latent dimension at a time"),
    }


def main() -> None:
    """Train, print the table and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=Path("demo"))
    args = parser.parse_args()
    start = time.perf_counter()
    pyro.set_rng_seed(0)
    pyro.enable_validation(False)
    data = digits("threshold")
    print(data)
    pair = vae((1, 8, 8), latent_dim=10, hidden_dims=(128, 128))
    flat = vae((1, 8, 8), latent_dim=2, hidden_dims=(128, 128))
    train(pair, data, args.epochs, "VAE, 10 latent dimensions")
    train(flat, data, args.epochs, "VAE, 2 latent dimensions")
    print(table(pair, data.x_test, f"{data.name}, {data.protocol}"))
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures(pair, flat, data, data.x_test).items():
        figure.savefig(args.folder / f"{name}.png", dpi=120)
        print(f"wrote {args.folder / name}.png")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
