# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A negative phase that keeps many chains and moves some."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .negative_phase import NegativePhase

if TYPE_CHECKING:
    from .machine import Machine


class ReplayBuffer(NegativePhase):
    """Chains that go on from draws of a buffer, or now and then from the machine's start.

    Args:
        num_chains: chains moved for each gradient.
        num_steps: steps for each gradient.
        size: draws kept.
        refresh: the probability of a chain to start anew.

    References:
        Implicit Generation and Generalization in Energy-Based Models, Yilun Du and Igor Mordatch,
        2019, arXiv 1903.08689.

    Example:
        >>> import torch
        >>> from pyro_deepgen.energy import RBM
        >>> rbm = RBM(3, 2, negative_phase=ReplayBuffer(10, size=50))
        >>> before = rbm.negative_phase.kept.clone()
        >>> rbm.negative_phase(rbm, torch.ones(4, 3)).shape
        torch.Size([10, 3])
        >>> bool((before != rbm.negative_phase.kept).any(-1).sum() <= 10)
        True
    """

    kept: torch.Tensor

    def __init__(
        self, num_chains: int = 100, num_steps: int = 20, size: int = 10_000, refresh: float = 0.05
    ) -> None:
        super().__init__(num_steps)
        if not 1 <= num_chains <= size or not 0 <= refresh <= 1:
            raise ValueError(
                f"expected from 1 to {size} chains (size) and a probability to refresh, got "
                f"{num_chains} and {refresh}"
            )
        self.num_chains, self.size, self.refresh = num_chains, size, refresh

    def prepare(self, machine: Machine) -> None:
        """Fill the buffer with starts."""
        super().prepare(machine)
        self.register_buffer("kept", machine.start(self.size))

    @torch.no_grad()
    def forward(self, machine: Machine, state: torch.Tensor) -> torch.Tensor:
        """Move some chains on."""
        chosen = torch.randperm(self.size, device=self.kept.device)[: self.num_chains]
        anew = torch.rand(self.num_chains, device=self.kept.device) < self.refresh
        anew = anew.reshape(-1, *[1] * (self.kept.dim() - 1))
        start = torch.where(anew, machine.start(self.num_chains), self.kept[chosen])
        moved = self.moved(machine, start)
        self.kept[chosen] = moved
        return moved
