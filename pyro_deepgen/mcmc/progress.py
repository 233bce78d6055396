# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a run of chains shows while it runs."""

from __future__ import annotations

import time
from typing import Any

import torch
from tqdm.auto import tqdm

from .state import Info

# Seconds between two looks at figures that lie on the device.
_EVERY = 0.5


class Progress:
    """A bar over the steps of the warm-up and the draws, with acceptance and divergences.

    Args:
        show: whether there is a bar at all.
        num_chains: how many chains each step moves.
        warmup_steps: steps of the warm-up.
        num_draws: draws a chain.
        compiles: whether the first step must wait for the compiler.
    """

    def __init__(
        self, show: bool, num_chains: int, warmup_steps: int, num_draws: int, compiles: bool
    ) -> None:
        self.bar: Any = tqdm(
            total=warmup_steps + num_draws, disable=not show, unit="step", dynamic_ncols=True
        )
        self.num_chains = num_chains
        self.stage = "warm-up" if warmup_steps else "draws"
        self.divergences: torch.Tensor | int = 0
        self.last_look = 0.0
        if show and compiles:
            self.bar.set_description_str(f"{num_chains} chains, compiling")

    def start_draws(self) -> None:
        """Count from now on what belongs to the draws."""
        self.stage, self.divergences, self.last_look = "draws", 0, 0.0

    def report(self, num_steps: int, info: Info) -> None:
        """Count steps.

        Args:
            num_steps: steps since the last report.
            info: of these steps, ``(C,)`` or ``(num_steps, C)``.
        """
        if self.bar.disable:
            return
        if "diverging" in info:
            # Summed up on the device, which a step must not wait for.
            self.divergences = self.divergences + info["diverging"].sum()
        now = time.monotonic()
        if now - self.last_look >= _EVERY:
            self.last_look = now
            self.show(info)
        self.bar.update(num_steps)

    def show(self, info: Info) -> None:
        """Look at the figures."""
        self.bar.set_description_str(f"{self.num_chains} chains, {self.stage}", refresh=False)
        figures = []
        if "accept_prob" in info:
            figures.append(f"acceptance {float(info['accept_prob'].mean()):.2f}")
        if "diverging" in info:
            figures.append(f"{int(self.divergences)} divergences")
        self.bar.set_postfix_str(", ".join(figures), refresh=False)

    def close(self, info: Info | None = None) -> None:
        """Show the last figures, and leave the bar."""
        if info is not None and not self.bar.disable:
            self.show(info)
        self.bar.close()
