# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a kernel remembers while ``pyro.infer.MCMC`` runs one chain of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .state import Info, State, Values


@dataclass
class OneChain:
    """Where the chain stands, and what a person wants to know of it.

    Args:
        warmup_steps: steps of the warm-up.
        num_steps: steps done, those of the warm-up included.
        params: the values that the last step returned, which tell whether the state is theirs.
        state: the state after the last step.
        info: of the last step.
        accepted: sum of the acceptance probabilities after the warm-up.
        divergences: which draws came from a trajectory that diverged, counted from 0.
    """

    warmup_steps: int
    num_steps: int = 0
    params: Values = field(default_factory=dict)
    state: State | None = None
    info: Info = field(default_factory=dict)
    accepted: float = 0.0
    divergences: list[int] = field(default_factory=list)

    def count(self, info: Info) -> None:
        """Take a step into account."""
        self.num_steps += 1
        self.info = info
        if self.num_steps <= self.warmup_steps:
            return
        # MCMC's bar looks at the info of every step, so that looking costs nothing more.
        if "accept_prob" in info:
            self.accepted += float(info["accept_prob"].sum())
        if "diverging" in info and bool(info["diverging"].any()):
            self.divergences.append(self.num_steps - self.warmup_steps - 1)

    def diagnostics(self) -> dict[str, Any]:
        """What Pyro's own kernels tell: the mean acceptance and the draws that diverged."""
        found: dict[str, Any] = {}
        if "accept_prob" in self.info and self.num_steps > self.warmup_steps:
            found["acceptance rate"] = self.accepted / (self.num_steps - self.warmup_steps)
        if "diverging" in self.info:
            found["divergences"] = self.divergences
        return found
