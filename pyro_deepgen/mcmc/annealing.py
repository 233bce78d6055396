# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Chains that move while the temperature changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from .ais_result import log_mean_exp
from .kernel import Kernel
from .resampling import resample_poor
from .state import Values
from .tempered_target import TemperedTarget

# Groups with less of their chains' worth of weight are resampled.
POOR = 0.5


class Forward(NamedTuple):
    """What a forward run ends with.

    Args:
        values: ``(C, *shape)`` of every site.
        log_weights: ``(G, K)``.
        ancestors: number of the first chain from which each stems ``(G, K)``, if resampled.
        accept_probs: mean acceptance at each temperature ``(n,)``, if the kernel has one.
    """

    values: Values
    log_weights: torch.Tensor
    ancestors: torch.Tensor | None
    accept_probs: torch.Tensor | None


class Annealing:
    """A kernel on a path of densities.

    Args:
        kernel: bound to ``tempered``.
        tempered: the path.
        groups: how many groups of chains there are, weighed each for itself.
        kernel_steps: steps of the kernel at each temperature.
    """

    def __init__(
        self, kernel: Kernel, tempered: TemperedTarget, groups: int, kernel_steps: int
    ) -> None:
        self.kernel, self.tempered = kernel, tempered
        self.groups, self.kernel_steps = groups, kernel_steps

    def move(
        self, values: Values, beta: torch.Tensor, scale: torch.Tensor
    ) -> tuple[Values, torch.Tensor | None]:
        """Move all chains at one temperature.

        Args:
            values: ``(C, *shape)``.
            beta: the inverse temperature ``()``.
            scale: the factor of the step size ``()``.

        Returns:
            The values, and the mean acceptance ``()`` if the kernel has one.
        """
        self.tempered.set(beta, scale)
        state = self.kernel.init(self.tempered.seen(values))
        probs = []
        for _ in range(self.kernel_steps):
            state, info = self.kernel.step(state)
            if "accept_prob" in info:
                probs.append(info["accept_prob"].mean())
        moved = self.tempered.actual(self.kernel.values(state))
        return moved, torch.stack(probs).mean() if probs else None

    def grouped(self, of_chains: torch.Tensor) -> torch.Tensor:
        """From ``(C,)`` to ``(G, K)``, in double precision."""
        return of_chains.double().reshape(self.groups, -1)

    def forward(
        self,
        values: Values,
        betas: torch.Tensor,
        scales: torch.Tensor,
        levels: Iterable[int],
        resample: bool,
    ) -> Forward:
        """From the base to the target.

        Args:
            values: draws from the base ``(C, *shape)``.
            betas: inverse temperatures ``(n + 1,)``, from 0 to 1.
            scales: factors of the step size ``(n + 1,)``.
            levels: 1 to ``n``.
            resample: whether to resample poor groups.
        """
        start = next(iter(values.values()))
        log_weights = self.grouped(torch.zeros(len(start), device=start.device))
        log_z = log_weights[:, 0]
        num = torch.arange(log_weights.shape[1], device=start.device)
        ancestors = num.expand_as(log_weights)
        probs = []
        for level in levels:
            rise = self.tempered.difference(values, betas[level - 1], betas[level])
            log_weights = log_weights + self.grouped(rise)
            if resample:
                chosen, poor = resample_poor(log_weights, POOR)
                log_z = torch.where(poor, log_z + log_mean_exp(log_weights), log_z)
                log_weights = log_weights.masked_fill(poor[:, None], 0.0)
                ancestors = ancestors.gather(1, chosen)
                values = self.chosen(values, chosen)
            values, prob = self.move(values, betas[level], scales[level])
            if prob is not None:
                probs.append(prob)
        return Forward(
            values,
            log_weights + log_z[:, None],
            ancestors if resample else None,
            torch.stack(probs) if probs else None,
        )

    def backward(
        self, values: Values, betas: torch.Tensor, scales: torch.Tensor, levels: Iterable[int]
    ) -> torch.Tensor:
        """From the target to the base.

        Args:
            values: exact draws from the target ``(C, *shape)``.
            betas: inverse temperatures ``(n + 1,)``, from 0 to 1.
            scales: factors of the step size ``(n + 1,)``.
            levels: ``n`` to 1.

        Returns:
            The log weights ``(G, K)`` that a forward run on the same way would have had.
        """
        log_weights: torch.Tensor | float = 0.0
        for level in levels:
            values, _ = self.move(values, betas[level], scales[level])
            rise = self.tempered.difference(values, betas[level - 1], betas[level])
            log_weights = log_weights + self.grouped(rise)
        assert isinstance(log_weights, torch.Tensor)
        return log_weights

    def chosen(self, values: Values, chosen: torch.Tensor) -> Values:
        """The values of some chains of each group, whose numbers are ``(G, K)``."""
        first = torch.arange(len(chosen), device=chosen.device)[:, None] * chosen.shape[1]
        index = (first + chosen).flatten()
        return {name: value[index] for name, value in values.items()}
