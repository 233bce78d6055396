# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""How the time of a leapfrog step grows with the number of chains."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pyro
import torch

from pyro_deepgen.mcmc import HMC, NUTS, Kernel

STEP_SIZE, STEPS, DRAWS = 0.5, 8, 256


@dataclass(frozen=True)
class Growth:
    """The work of one model for more and more chains.

    Args:
        name: name of the table in the README.
        model: a Pyro model.
        data: its arguments.
        chains: numbers of chains.
        draws: draws of each chain in a sample of the time.
        rounds: how many samples are enough.
        compile: whether to compile.
        title: for a person.
    """

    name: str
    model: Callable[..., Any]
    data: Sequence[torch.Tensor]
    chains: Sequence[int]
    draws: int = DRAWS
    rounds: int = 5
    compile: bool = True
    title: str = "Time of a leapfrog step"

    def kernels(self) -> dict[str, Kernel]:
        """With a fixed step size."""
        return {
            "HMC": HMC(
                self.model,
                num_steps=STEPS,
                step_size=STEP_SIZE,
                adapt_step_size=False,
                compile=self.compile,
            ),
            "NUTS": NUTS(
                self.model, step_size=STEP_SIZE, adapt_step_size=False, compile=self.compile
            ),
        }

    def report(self, rounds: int) -> str:
        """Measure, and write a table and how many rounds it took."""
        rounds = min(rounds, self.rounds)
        names = list(self.kernels())
        titles = [f"{n}: us a step of all chains | ns a chain" for n in names]
        lines = ["| chains | " + " | ".join(titles) + " |", "|" + "---|" * (1 + 2 * len(names))]
        for chains in self.chains:
            found = self.microseconds(chains, rounds)
            cells = [f"{median(us):.1f} | {1e3 * median(us) / chains:,.1f}" for us in found]
            lines.append(f"| {chains:,} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + f"\n\n{rounds} rounds of {self.draws} draws"

    @torch.no_grad()
    def microseconds(self, chains: int, rounds: int) -> list[list[float]]:
        """Processor time of one leapfrog step of every chain, a sample a round, by kernel."""
        pyro.set_rng_seed(0)
        made = []
        for kernel in self.kernels().values():
            kernel.setup(0, *self.data)
            state = kernel.init(kernel.target.start(chains))
            state, _, _ = kernel.advance(state, self.draws)
            made.append((kernel, state))
        samples: list[list[float]] = [[] for _ in made]
        for _ in range(rounds):
            for (kernel, state), times in zip(made, samples, strict=True):
                start = time.process_time()
                _, _, info = kernel.advance(state, self.draws)
                seconds = time.process_time() - start
                steps = float(info["num_steps"].double().sum()) / chains
                times.append(1e6 * seconds / steps)
        return samples
