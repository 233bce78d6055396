# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Replicas at several temperatures that change places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .compiled import compiled
from .kernel import Kernel
from .state import Info, State, Values
from .target import Target
from .tempering import Tempering

REPLICA, ODD, ORIGIN = "~replica.", "~odd", "~origin"


class ParallelTempering(Tempering):
    r"""Replicas of every chain at rising temperatures, which exchange their states.

    Each of ``C`` chains has ``T`` replicas with the invariant densities

    .. math:: p_t(q) \propto \exp(-U_0(q) (1 - 1 / \tau_t) - U(q) / \tau_t)

    with a base's potential :math:`U_0`, or :math:`U_0 = 0`, the powers of the target. All ``C x T``
    replicas take a step of the kernel as one batch; then neighbours :math:`t, t + 1`, even ones and
    odd ones in turn, change places with the probability

    .. math:: \min(1, \exp(U_t(q_t) + U_{t+1}(q_{t+1}) - U_t(q_{t+1}) - U_{t+1}(q_t))).

    The replica at temperature 1 is the chain's draw. A hot replica crosses what separates the modes
    of the target, and the swaps bring it down. In the warm-up the kernel adapts itself over all
    replicas, and each temperature gets a factor of its step size.

    Info has the kernel's for the replica at temperature 1, ``swap_accept_prob``, the mean of the
    pairs tried, which should not fall below 0.2 or so, and ``origin``, the number of the replica
    that is at temperature 1 now, which should go through all of them.

    Args:
        kernel: of the target; may be ``Gibbs`` of several, but not itself a part of one.
        temperatures: :math:`\tau`, rising from 1.
        base: ``None`` for powers of the target, ``"prior"`` for a Pyro model whose likelihood alone
            is tempered, or see :func:`ais`.

    Raises:
        ValueError: for temperatures that do not rise from 1; later, for a base with other sites.

    References:
        Replica Monte Carlo simulation of spin glasses, R. H. Swendsen and J.-S. Wang, 1986.
        Non-reversible parallel tempering, Saifuddin Syed, Alexandre Bouchard-Cote, George
        Deligiannidis and Arnaud Doucet, 2019, arXiv 1905.02939 (even and odd swaps in turn).

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> from pyro_deepgen.mcmc.random_walk import RandomWalk
        >>> two = dist.MixtureOfDiagNormals(
        ...     torch.tensor([[-8.0], [8.0]]), torch.ones(2, 1), torch.tensor([0.3, 0.7]).log()
        ... )
        >>> kernel = ParallelTempering(RandomWalk(two, compile=False), [1.0, 3.0, 9.0, 30.0])
        >>> kernel.setup(100)
        >>> state = kernel.init({"x": torch.full((200, 1), -8.0)})  # all in the smaller mode
        >>> state, draws, _ = kernel.advance(kernel.warm_up(state, 100), num_draws=50)
        >>> bool(((draws["x"][-1] > 0).float().mean() - 0.7).abs() < 4 * (0.21 / 200) ** 0.5)
        True
    """

    def __init__(self, kernel: Kernel, temperatures: Sequence[float], *, base: Any = None) -> None:
        super().__init__(kernel, temperatures, base=base)
        num = self.num_temperatures
        # Who changes places with whom, in even and in odd steps; the ends may stay alone.
        pairs = [[t ^ 1 for t in range(num)], [((t - 1) ^ 1) + 1 for t in range(num)]]
        self._pairs = [[u if 0 <= u < num else t for t, u in enumerate(row)] for row in pairs]

    def bind(self, target: Target, sites: Sequence[str] | None = None) -> None:
        """Put replicas of all sites of a target at the temperatures."""
        super().bind(target, sites)
        self.partners = torch.tensor(self._pairs, device=target.device)

    def init(self, state: State) -> State:
        """Add the replicas: those in the state, or copies of its values."""
        moved: State = self.values(state)
        num, chains = self.num_temperatures, next(iter(moved.values())).shape[0]
        for name, value in list(moved.items()):
            replicas = state.get(REPLICA + name)
            if replicas is None:
                replicas = value.unsqueeze(1).expand(chains, num, *value.shape[1:])
            moved[REPLICA + name] = torch.cat([value.unsqueeze(1), replicas[:, 1:]], 1)
        numbers = torch.arange(num, device=self.target.device)
        moved[ODD] = state.get(ODD, numbers.new_zeros(chains, dtype=torch.bool))
        moved[ORIGIN] = state.get(ORIGIN, numbers.expand(chains, num))
        return moved

    def step(self, state: State) -> tuple[State, Info]:
        """Move all replicas, and let neighbours change places."""
        inner, info = self.kernel.step(self.inner(state))
        probs = info.get("accept_prob")
        chains_by_replicas = state[ORIGIN].shape
        self.note(inner, info, None if probs is None else probs.view(chains_by_replicas).mean(0))
        actual = self.tempered.actual(self.kernel.values(inner))
        swapped, swaps = self._swap(actual, state[ODD], state[ORIGIN])
        cold = {name: value.unflatten(0, chains_by_replicas)[:, 0] for name, value in info.items()}
        return swapped, {**cold, **swaps}

    def inner(self, state: State) -> State:
        """The state of the kernel: all replicas side by side."""
        chains = state[ODD].shape[0]
        self.tempered.set(self.betas.repeat(chains), self.step_scales.repeat(chains))
        replicas = {name: state[REPLICA + name].flatten(0, 1) for name in self.target.sites}
        return self.kernel.init(self.tempered.seen(replicas))

    @compiled
    def _swap(self, actual: Values, odd: torch.Tensor, origin: torch.Tensor) -> tuple[State, Info]:
        chains, num = origin.shape
        here = torch.arange(num, device=origin.device).expand(chains, num)
        there = self.partners[odd.long()]
        beta = self.betas.expand(chains, num)
        loss = self.tempered.difference(actual, beta.flatten(), beta.gather(1, there).flatten())
        loss = loss.unflatten(0, (chains, num))
        prob = (loss + loss.gather(1, there)).exp().clamp(max=1.0).nan_to_num(0.0)
        # One uniform number a pair, that of its colder member.
        uniform = torch.rand_like(prob).gather(1, torch.minimum(here, there))
        source = torch.where(uniform < prob, there, here)
        row = torch.arange(chains, device=origin.device)[:, None]
        state: State = {}
        for name, value in actual.items():
            replicas = value.unflatten(0, (chains, num))[row, source]
            state[name], state[REPLICA + name] = replicas[:, 0], replicas
        state[ODD] = ~odd if num > 2 else odd
        state[ORIGIN] = origin.gather(1, source)
        tried = (there > here).to(prob.dtype)
        info = {
            "swap_accept_prob": (prob * tried).sum(1) / tried.sum(1),
            "origin": state[ORIGIN][:, 0],
        }
        return state, info
