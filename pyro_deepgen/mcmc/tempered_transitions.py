# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Transitions that go up to a high temperature and down again."""

from __future__ import annotations

import torch

from .compiled import compiled
from .metropolis import choose
from .state import Info, State
from .tempering import Tempering


class TemperedTransitions(Tempering):
    r"""Proposals that rise through the temperatures and come down again.

    With the densities :math:`p_0, \dots, p_n`, powers of the target or points of a path to a base,
    a kernel moves each chain once at every temperature upwards, :math:`\hat x_0, \dots,
    \hat x_n`, and once at every temperature downwards, from :math:`\check x_n` to
    :math:`\check x_0`, which is accepted with the probability

    .. math::
        \min\Bigl(1, \prod_{i=0}^{n-1}
        \frac{p_{i+1}(\hat x_i)}{p_i(\hat x_i)} \cdot
        \frac{p_i(\check x_i)}{p_{i+1}(\check x_i)}\Bigr).

    Each chain's proposal is independent of the others', and needs no other replica; but the
    acceptance falls with the gaps between the temperatures, of which there must be many. The kernel
    must be reversible, as those of Metropolis, Langevin with acceptance, Hamilton and slices are; a
    Gibbs sweep in a fixed order is not.

    Args:
        kernel: of the target.
        temperatures: rising from 1.
        base: as in :class:`ParallelTempering`.

    Raises:
        ValueError: for temperatures that do not rise from 1; later, for a base with other sites.

    References:
        Sampling from multimodal distributions using tempered transitions, Radford M. Neal, 1996.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> from pyro_deepgen.mcmc.random_walk import RandomWalk
        >>> two = dist.MixtureOfDiagNormals(
        ...     torch.tensor([[-8.0], [8.0]]), torch.ones(2, 1), torch.tensor([0.3, 0.7]).log()
        ... )
        >>> ladder = [1.8**i for i in range(7)]
        >>> kernel = TemperedTransitions(RandomWalk(two, compile=False), ladder)
        >>> kernel.setup(50)
        >>> state = kernel.init({"x": torch.full((200, 1), -8.0)})  # all in the smaller mode
        >>> state, draws, _ = kernel.advance(kernel.warm_up(state, 50), num_draws=20)
        >>> bool(((draws["x"][-1] > 0).float().mean() - 0.7).abs() < 4 * (0.21 / 200) ** 0.5)
        True
    """

    def inner(self, state: State) -> State:
        """The state of the kernel at the lowest temperature but that of the target."""
        self.tempered.set(self.betas[1], self.step_scales[1])
        return self.kernel.init(self.tempered.seen(self.values(state)))

    def step(self, state: State) -> tuple[State, Info]:
        """Rise and come down in every chain, and accept or reject the end."""
        betas, rungs = self.betas, range(1, self.num_temperatures)
        values = self.values(state)
        log_ratio = self.tempered.difference(values, betas[0], betas[1])
        inner, info = self._move(values, 1)
        for rung in rungs[1:]:
            values = self._actual(inner)
            log_ratio = log_ratio + self.tempered.difference(values, betas[rung - 1], betas[rung])
            inner, info = self._move(values, rung)
        probs: list[torch.Tensor] = []
        for rung in reversed(rungs):
            inner, info = self._move(self._actual(inner), rung)
            values = self._actual(inner)
            log_ratio = log_ratio + self.tempered.difference(values, betas[rung], betas[rung - 1])
            if "accept_prob" in info:
                probs.insert(0, info["accept_prob"].mean())
        # The kernel never moves at temperature 1: the next one is the measure of the others.
        self.note(inner, info, torch.stack([probs[0], *probs]) if probs else None)
        return self._choose(log_ratio, values, self.values(state))

    @compiled
    def _choose(self, log_ratio: torch.Tensor, proposed: State, state: State) -> tuple[State, Info]:
        return choose(log_ratio, proposed, state)

    def _actual(self, inner: State) -> State:
        return self.tempered.actual(self.kernel.values(inner))

    def _move(self, values: State, rung: int) -> tuple[State, Info]:
        self.tempered.set(self.betas[rung], self.step_scales[rung])
        return self.kernel.step(self.kernel.init(self.tempered.seen(values)))
