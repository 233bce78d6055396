# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Bounds and gradient estimators against exact answers, in models small enough to have them.

    python benchmarks/reproduce/estimators.py

takes about a minute on one CPU core, in float64, needs no data, and writes
``benchmarks/reproduce/results/estimators.md``: bounds on the evidence of a linear-Gaussian VAE; the
encoder's gradient by each estimator; its signal-to-noise ratio as the particles grow; and the loss
of a subsampled plate.
"""

from __future__ import annotations

import argparse
import math
import time
from itertools import combinations
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import RenyiELBO
from torch import nn

from pyro_deepgen.infer import ImportanceWeightedELBO
from pyro_deepgen.latent import VAE, GaussianLikelihood
from pyro_deepgen.metrics import log_likelihood, naive_log_likelihood

HERE = Path(__file__).parent


def linear_gaussian(off: float) -> tuple[VAE, torch.Tensor, torch.Tensor]:
    """A VAE with linear networks, data from it, and the exact evidence of each datum.

    The guide's mean is that of the posterior plus ``off``; its standard deviation is the
    posterior's times ``1 + off`` (the posterior is diagonal by the choice of the decoder).
    """
    weight = torch.zeros(5, 2)
    weight[:3, 0] = torch.tensor([1.0, -0.5, 0.8])
    weight[3:, 1] = torch.tensor([1.5, 0.7])
    bias, noise = torch.linspace(-1, 1, 5), 0.5
    precision = torch.eye(2) + weight.T @ weight / noise**2
    covariance = torch.linalg.inv(precision)
    encoder, decoder = nn.Linear(5, 4), nn.Linear(2, 5)
    with torch.no_grad():
        decoder.weight.copy_(weight)
        decoder.bias.copy_(bias)
        encoder.weight[:2] = covariance @ weight.T / noise**2
        encoder.bias[:2] = -encoder.weight[:2] @ bias + off
        encoder.weight[2:] = 0
        encoder.bias[2:] = (covariance.diagonal().sqrt() * (1 + off)).log()
    pair = VAE(encoder, decoder, 2, likelihood=GaussianLikelihood(scale=noise))
    x = pair.sample(200)
    evidence = dist.MultivariateNormal(bias, weight @ weight.T + noise**2 * torch.eye(5))
    return pair, x, evidence.log_prob(x)


def bounds() -> list[str]:
    """Bounds and estimates beside the exact evidence."""
    lines = [
        "## Linear-Gaussian VAE: 5 dimensions, 2 latents, 200 data, mean over the data",
        "",
        "The guide is off by 0.3 in mean and by a factor 1.3 in scale, but in the first row, where "
        "it is the posterior. The standard error is of the Monte Carlo draws (20 repetitions).",
        "",
        "| figure | estimate | s.e. | exact evidence | difference in s.e. |",
        "|---|---|---|---|---|",
    ]

    def row(name: str, draw, exact: torch.Tensor) -> None:
        draws = torch.stack([draw().mean() for _ in range(20)])
        mean, error = float(draws.mean()), float(draws.std() / math.sqrt(len(draws)))
        gap = mean - float(exact.mean())
        ratio = f"{gap / error:+.1f}" if error > 1e-12 else f"{gap:+.1e} nats, no spread"
        lines.append(f"| {name} | {mean:.6f} | {error:.1e} | {float(exact.mean()):.6f} | {ratio} |")

    pair, x, exact = linear_gaussian(0.0)
    row(
        "ELBO, guide = posterior",
        lambda: -ImportanceWeightedELBO(1).loss(pair.model, pair.guide, x) / len(x),
        exact,
    )
    pair, x, exact = linear_gaussian(0.3)
    for k in (1, 10, 100, 1000):
        objective = ImportanceWeightedELBO(k)
        row(
            f"bound, {k} particles",
            lambda o=objective: -o.loss(pair.model, pair.guide, x) / len(x),
            exact,
        )
    row(
        "log_likelihood, 5,000 particles",
        lambda: log_likelihood(pair.model, pair.guide, x, num_particles=5000),
        exact,
    )
    row(
        "naive_log_likelihood, 5,000 draws of the prior",
        lambda: naive_log_likelihood(pair.model, x, num_particles=5000),
        exact,
    )
    return lines


class Toy:
    """z ~ N(0, 1), x | z ~ N(z, 1), x = 1; guide N(mean, scale) with one mean for each replicate.

    Replicates are the data of one plate, so the gradient of the loss with respect to the vector of
    means is a sample of the estimator for each.
    """

    def __init__(self, num_replicates: int, mean: float, scale: float) -> None:
        self.size, self.scale = num_replicates, scale
        self.mean = torch.full((num_replicates,), mean, requires_grad=True)
        self.x = torch.ones(num_replicates)

    def model(self) -> None:
        """The joint distribution."""
        with pyro.plate("data", self.size):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=self.x)

    def guide(self) -> None:
        """The approximate posterior."""
        with pyro.plate("data", self.size):
            pyro.sample("z", dist.Normal(self.mean, self.scale))

    def gradients(self, objective: ImportanceWeightedELBO) -> torch.Tensor:
        """One gradient of the bound with respect to the mean for each replicate."""
        loss = objective.differentiable_loss(self.model, self.guide)
        (gradient,) = torch.autograd.grad(loss, [self.mean])
        return -gradient

    def bound_gradient(self, k: int, num_draws: int, step: float = 1e-2) -> tuple[float, float]:
        """Central difference of the bound, with common random numbers, and its standard error."""
        noise = torch.randn(k, num_draws)
        sides = []
        for sign in (1, -1):
            q = dist.Normal(self.mean[0].detach() + sign * step, self.scale)
            z = q.loc + self.scale * noise
            log_p = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(self.x[0])
            sides.append((log_p - q.log_prob(z)).logsumexp(0))
        slopes = (sides[0] - sides[1]) / (2 * step)
        return float(slopes.mean()), float(slopes.std() / math.sqrt(num_draws))


def gradients(num_replicates: int) -> list[str]:
    """The expected gradient by each estimator."""
    lines = [
        "## The encoder's gradient",
        "",
        "z ~ N(0, 1), x | z ~ N(z, 1), x = 1; guide N(m, 0.9^2) at m = 1.2; derivative of the "
        f"bound by m, mean of {num_replicates:,} draws; reference: central difference of the bound "
        "with common random numbers.",
        "",
        "| K | reference | iwae | stl | dreg |",
        "|---|---|---|---|---|",
    ]
    for k in (1, 2, 5, 20):
        toy = Toy(num_replicates, 1.2, 0.9)
        reference, error = toy.bound_gradient(k, num_replicates)
        cells = [f"{reference:.4f} +- {error:.4f}"]
        for gradient in ("iwae", "stl", "dreg"):
            draws = toy.gradients(ImportanceWeightedELBO(k, gradient, max_plate_nesting=1))
            cells.append(f"{draws.mean():.4f} +- {draws.std() / math.sqrt(len(draws)):.4f}")
        lines.append(f"| {k} | " + " | ".join(cells) + " |")
    return lines


def signal_to_noise(num_replicates: int) -> list[str]:
    """The signal-to-noise ratio of the encoder's gradient."""
    lines = [
        "## Signal-to-noise ratio of the encoder's gradient",
        "",
        "The same toy; |mean| / standard deviation of the gradient over "
        f"{num_replicates:,} draws. The mean of the plain estimator vanishes like 1/K and drowns "
        "in its spread, so its signal is taken from the other, which has the same expectation.",
        "",
        "| K | iwae | dreg |",
        "|---|---|---|",
    ]
    ratios = []
    sizes = (1, 10, 100, 1000)
    for k in sizes:
        toy = Toy(num_replicates, 1.2, 0.9)
        plain = toy.gradients(ImportanceWeightedELBO(k, "iwae", max_plate_nesting=1))
        doubly = toy.gradients(ImportanceWeightedELBO(k, "dreg", max_plate_nesting=1))
        signal = doubly.mean().abs()
        ratios.append((float(signal / plain.std()), float(signal / doubly.std())))
        lines.append(f"| {k} | {ratios[-1][0]:.4f} | {ratios[-1][1]:.4f} |")
    slopes = [
        math.log(ratios[-1][i] / ratios[1][i]) / math.log(sizes[-1] / sizes[1]) for i in (0, 1)
    ]
    lines += ["", f"Slope in log-log from K = 10: iwae {slopes[0]:+.2f}, dreg {slopes[1]:+.2f}."]
    return lines


def subsampling(num_draws: int) -> list[str]:
    """The expected loss of a subsampled plate."""
    x = torch.tensor([-2.0, 0.0, 1.0, 4.0])

    def model(batch: torch.Tensor | None = None) -> None:
        size = None if batch is None else len(x)
        with pyro.plate("data", size or len(x), subsample=batch) as i:
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x[i])

    def guide(batch: torch.Tensor | None = None) -> None:
        with pyro.plate("data", len(x), subsample=batch) as i:
            pyro.sample("z", dist.Normal(0.5 * x[i], 1.0))

    subsets = [torch.tensor(pair) for pair in combinations(range(4), 2)]
    lines = [
        "## A subsampled plate: 4 data, all batches of 2, K = 10",
        "",
        f"Mean loss over {num_draws:,} draws. A batch must estimate the full loss without bias.",
        "",
        "| objective | full batch | mean over the batches |",
        "|---|---|---|",
    ]
    for name, objective in (
        ("ImportanceWeightedELBO", ImportanceWeightedELBO(10, max_plate_nesting=1)),
        ("pyro.infer.RenyiELBO(alpha=0)", _renyi()),
    ):
        full = torch.tensor([float(objective.loss(model, guide)) for _ in range(num_draws)])
        part = torch.tensor(
            [
                sum(float(objective.loss(model, guide, s)) for s in subsets) / len(subsets)
                for _ in range(num_draws)
            ]
        )
        cells = [f"{d.mean():.3f} +- {d.std() / math.sqrt(num_draws):.3f}" for d in (full, part)]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return lines


def _renyi() -> RenyiELBO:
    return RenyiELBO(alpha=0, num_particles=10, vectorize_particles=True, max_plate_nesting=1)


def main() -> None:
    """Measure everything and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=400_000)
    args = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    pyro.set_rng_seed(0)
    pyro.enable_validation(False)
    start = time.perf_counter()
    parts = [
        bounds(),
        gradients(args.replicates),
        signal_to_noise(max(10, args.replicates // 20)),
        subsampling(max(10, args.replicates // 1000)),
    ]
    header = [
        "# Bounds and gradient estimators against exact answers",
        "",
        "Command: `python benchmarks/reproduce/estimators.py`. Device: CPU, one thread, float64, "
        f"torch {torch.__version__}, {time.perf_counter() - start:.0f} s.",
    ]
    text = "\n".join(header) + "\n\n" + "\n\n".join("\n".join(part) for part in parts) + "\n"
    print(text)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "estimators.md").write_text(text)


if __name__ == "__main__":
    main()
