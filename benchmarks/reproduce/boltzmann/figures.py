# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Average log-probabilities by annealed importance sampling, with all that belongs to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch

from benchmarks.reproduce.runs.training import Cost

HEURISTIC = (
    "The reverse estimate of log Z anneals from the model back to the base. It would be a "
    "stochastic upper bound if it started from exact draws; here it starts from the ends of Gibbs "
    "chains that began at training images, so it is a heuristic; where it lies below the forward "
    "estimate, these chains have missed some of the model's mass. The standard error of log Z is "
    "the jackknife's over chains; that of a test figure is over images alone."
)


@dataclass
class AnnealedFigure:
    """An average log-probability, and the normalising constant it rests on.

    Args:
        log_z: the estimate by annealed importance sampling.
        log_z_error: its standard error.
        lower: the stochastic lower bound of ``log Z``.
        reverse: the estimate in reverse, a heuristic.
        chains: chains of each direction.
        temperatures: temperatures of each direction.
        start_steps: steps of Gibbs sampling from training images to where the reverse one starts.
        test: mean log-probability of the test images, or of a bound of it.
        test_error: its standard error over images.
        train: the same of as many training images.
        train_error: its standard error over images.
        images: how many.
    """

    log_z: float
    log_z_error: float
    lower: float
    reverse: float
    chains: int
    temperatures: int
    start_steps: int
    test: float
    test_error: float
    train: float
    train_error: float
    images: int

    @property
    def test_in_reverse(self) -> float:
        """The test figure that the reverse estimate would give."""
        return self.test + self.log_z - self.reverse


def mean_and_error(scores: torch.Tensor) -> tuple[float, float]:
    """The mean and its standard error over data ``(N,)``."""
    scores = scores.double()
    return float(scores.mean()), float(scores.std() / len(scores) ** 0.5)


@torch.no_grad()
def annealed_figure(
    machine: Any,
    log_prob: Callable[[torch.Tensor], torch.Tensor],
    x_train: torch.Tensor,
    x_test: torch.Tensor,
    *,
    start: torch.Tensor,
    chains: int,
    temperatures: int,
    start_steps: int,
    cost: Cost,
    seed: int = 0,
) -> AnnealedFigure:
    """Estimate ``log Z`` both ways, and the average log-probability of data.

    Args:
        machine: whose ``log Z`` is estimated.
        log_prob: from binary data ``(B, V)`` to ``(B,)``, once it is known.
        x_train: training images ``(N, V)``.
        x_test: test images ``(N, V)``.
        start: states of all the machine's units given training images, ``(C, U)``.
        chains: chains of each direction.
        temperatures: temperatures of each direction.
        start_steps: steps of Gibbs sampling before the reverse direction.
        cost: takes up the time.
        seed: of the chains.
    """
    pyro.set_rng_seed(seed)
    machine.eval()
    with cost.measured():
        start = machine.all_units.transition(start, start_steps)
        found = machine.estimate_log_partition(
            chains, temperatures, reverse_from=start, compile=False
        )
        test = torch.cat([log_prob(part) for part in x_test.split(1000)])
        train = torch.cat([log_prob(part) for part in x_train[: len(x_test)].split(1000)])
    test_mean, test_error = mean_and_error(test)
    train_mean, train_error = mean_and_error(train)
    figure = AnnealedFigure(
        log_z=float(found.value),
        log_z_error=float(found.standard_error),
        lower=float(found.lower),
        reverse=float(found.upper),
        chains=chains,
        temperatures=temperatures,
        start_steps=start_steps,
        test=test_mean,
        test_error=test_error,
        train=train_mean,
        train_error=train_error,
        images=len(x_test),
    )
    print(
        f"log Z {figure.log_z:.2f} +- {figure.log_z_error:.2f} (reverse {figure.reverse:.2f}), "
        f"test {figure.test:.2f} +- {figure.test_error:.2f}, train {figure.train:.2f}",
        flush=True,
    )
    return figure
