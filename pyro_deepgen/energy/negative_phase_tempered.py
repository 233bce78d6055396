# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A negative phase that crosses between modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .negative_phase import NegativePhase

if TYPE_CHECKING:
    from .machine import Machine


class TemperedChains(NegativePhase):
    r"""Persistent chains with replicas on the way to independent units, which change places.

    Replica :math:`t` moves at the inverse temperature :math:`\beta_t` of the machine's path, from
    its base (0) to itself (1). Then neighbours change places with probability

    .. math:: \min(1, \exp(E_t(x_t) + E_{t+1}(x_{t+1}) - E_t(x_{t+1}) - E_{t+1}(x_t))),

    even and odd pairs in turn. The draws are the replicas at :math:`\beta = 1`. It costs as much as
    ``num_chains * num_temperatures`` persistent chains, and pays where these stay in a few modes.

    Args:
        num_chains: ``M``.
        num_temperatures: ``T``, at equal distances.
        num_steps: steps for each gradient.

    References:
        Tempered Markov Chain Monte Carlo for training of Restricted Boltzmann Machines, Guillaume
        Desjardins, Aaron Courville, Yoshua Bengio, Pascal Vincent and Olivier Delalleau, 2010.
        Parallel Tempering is Efficient for Learning Restricted Boltzmann Machines, KyungHyun Cho,
        Tapani Raiko and Alexander Ilin, 2010.

    Example:
        >>> import torch
        >>> from pyro_deepgen.energy import RBM
        >>> rbm = RBM(3, 2, negative_phase=TemperedChains(10, num_temperatures=4))
        >>> rbm.negative_phase(rbm, torch.ones(4, 3)).shape, rbm.negative_phase.chains.shape
        (torch.Size([10, 3]), torch.Size([4, 10, 3]))
    """

    chains: torch.Tensor
    betas: torch.Tensor
    partners: torch.Tensor
    odd: torch.Tensor
    swap_probs: torch.Tensor

    def __init__(
        self, num_chains: int = 100, num_temperatures: int = 10, num_steps: int = 1
    ) -> None:
        super().__init__(num_steps)
        if num_chains < 1 or num_temperatures < 2:
            raise ValueError(
                f"expected 1 chain or more at 2 temperatures or more, got {num_chains} and "
                f"{num_temperatures}"
            )
        self.num_chains, self.num_temperatures = num_chains, num_temperatures
        last = num_temperatures - 1
        # Who changes places with whom, in even and in odd steps; the ends may stay alone.
        pairs = [[t ^ 1 for t in range(last + 1)], [((t - 1) ^ 1) + 1 for t in range(last + 1)]]
        partners = [[u if 0 <= u <= last else t for t, u in enumerate(row)] for row in pairs]
        self.register_buffer("partners", torch.tensor(partners))
        self.register_buffer("betas", torch.linspace(0, 1, num_temperatures))
        self.register_buffer("odd", torch.zeros((), dtype=torch.long))
        # How often neighbours changed places at the last step: should not be near 0.
        self.register_buffer("swap_probs", torch.full((num_temperatures,), torch.nan))

    def prepare(self, machine: Machine) -> None:
        """Start the chains."""
        super().prepare(machine)
        start = machine.start(self.num_temperatures * self.num_chains)
        self.register_buffer("chains", start.unflatten(0, (self.num_temperatures, -1)))

    @torch.no_grad()
    def forward(self, machine: Machine, state: torch.Tensor) -> torch.Tensor:
        """Move all replicas, and let neighbours change places."""
        here = torch.arange(self.num_temperatures, device=self.chains.device)
        there = self.partners[self.odd]
        beta = self.betas.repeat_interleave(self.num_chains)
        other = self.betas[there].repeat_interleave(self.num_chains)
        at_beta = machine.bridge(beta)
        moved: torch.Tensor = self.moved(at_beta, self.chains.flatten(0, 1))
        loss = at_beta.energy(moved) - machine.bridge(other).energy(moved)
        loss = loss.unflatten(0, (self.num_temperatures, -1))
        prob = (loss + loss[there]).exp().clamp(max=1.0)
        # One uniform number a pair, that of its member nearer to the base.
        uniform = torch.rand_like(prob)[torch.minimum(here, there)]
        source = torch.where(uniform < prob, there[:, None], here[:, None])
        chain = torch.arange(self.num_chains, device=source.device)
        moved = moved.unflatten(0, (self.num_temperatures, -1))[source, chain]
        self.chains.copy_(moved)
        self.swap_probs.copy_(torch.where(here == there, self.swap_probs, prob.mean(1)))
        self.odd.copy_(1 - self.odd)
        return moved[-1]
