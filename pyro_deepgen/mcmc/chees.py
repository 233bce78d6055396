# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Hamiltonian Monte Carlo whose trajectory length is learned from all chains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .compiled import compiled
from .state import Info, State, Values, pack
from .target import Target
from .trajectories import Trajectories, Trajectory, steps_of

LEARNING_RATE, SQUARES_DECAY, MAX_CHANGE = 0.025, 0.95, 0.35
LENGTH, LOG_LENGTH, LOG_MEAN = "trajectory_length", "log_length", "log_length_mean"
# How many trajectories each chain has made: the same for all, and part of where they stand.
COUNT = "~count"


class ChEES(Trajectories):
    r"""Hamiltonian Monte Carlo with a trajectory length that suits the target.

    All chains make the same number of steps. The ``t``-th trajectory has the length ``h_t T`` with
    quasi-random ``h_t`` in (0, 1) (the van der Corput sequence), so that no period is met again
    and again. The warm-up climbs, in ``log T``, the change in the estimator of the expected square

    .. math:: \tfrac14 E[(\|z' - E z'\|^2 - \|z - E z\|^2)^2],

    where ``z'`` is the proposal of ``z`` in units of the metric: the mean over chains of
    :math:`(\|z' - \bar z'\|^2 - \|z - \bar z\|^2)\, (z' - \bar z')^T a'\, h_t`, weighted by
    their acceptance. It needs some tens of chains; NUTS suits a few.

    Args:
        target: a Pyro model, a distribution, or a :class:`Target`.
        trajectory_length: the first ``T``, in units of the metric.
        adapt_trajectory_length: whether the warm-up adapts it.
        step_size: the first one.
        adapt_step_size: whether the warm-up adapts it.
        adapt_mass_matrix: whether the warm-up adapts the metric.
        full_mass: whether the metric is dense.
        target_accept_prob: the mean acceptance to adapt to.
        sites: the sites that this kernel moves; all by default.
        compile: see :class:`Kernel`.
        potential_fn: see :class:`Kernel`.

    Raises:
        ValueError: for numbers out of range; at the start of a warm-up with fewer than 4 chains.

    References:
        Matthew D. Hoffman, Alexey Radul, Pavel Sountsov: An Adaptive-MCMC Scheme for Setting
        Trajectory Lengths in Hamiltonian Monte Carlo, AISTATS 2021.

    Example:
        >>> import pyro.distributions as dist, torch
        >>> target = dist.Normal(torch.zeros(3), torch.tensor([0.1, 1.0, 10.0])).to_event(1)
        >>> kernel = ChEES(target, compile=False)
        >>> kernel.setup(60)
        >>> state = kernel.warm_up(kernel.init({"x": torch.randn(32, 3)}), 60)
        >>> scale = kernel.tuning["scale"]
        >>> bool((scale[0] < scale[1]) & (scale[1] < scale[2]))
        True
    """

    def __init__(
        self,
        target: Any = None,
        *,
        trajectory_length: float = 1.0,
        adapt_trajectory_length: bool = True,
        step_size: float = 1.0,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        full_mass: bool = False,
        target_accept_prob: float = 0.75,
        sites: Sequence[str] | None = None,
        compile: bool | str = True,
        potential_fn: Callable[[Values], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(
            target,
            step_size=step_size,
            adapt_step_size=adapt_step_size,
            adapt_mass_matrix=adapt_mass_matrix,
            full_mass=full_mass,
            target_accept_prob=target_accept_prob,
            sites=sites,
            compile=compile,
            potential_fn=potential_fn,
        )
        if not trajectory_length > 0:
            raise ValueError(f"expected a positive trajectory_length, got {trajectory_length}")
        self.jitter = 0.0
        self.trajectory_length = trajectory_length
        self.adapt_trajectory_length = adapt_trajectory_length
        self._share = 1.0  # of the length, in the trajectory under way

    def bind(self, target: Target, sites: Sequence[str] | None = None) -> None:
        """Let the kernel move some sites of a target."""
        super().bind(target, sites)
        length = self.tuning["step_size"] * 0 + self.trajectory_length
        names = {LENGTH: length, LOG_LENGTH: length.log(), LOG_MEAN: length.log()}
        self.load_tuning(names | {"length_squares": length * 0, "length_count": length * 0})

    def init(self, state: State) -> State:
        """Add the potential, its gradient, and the place in the sequence of lengths."""
        # A random one: tempering and annealing begin anew before each step, which must not have
        # the same length each time.
        place = torch.randint(2**16, (), device=self.target.device)
        place = place.expand(len(state[self.sites[0]]))
        return {**super().init(state), COUNT: state.get(COUNT, place)}

    def step(self, state: State) -> tuple[State, Info]:
        """Follow one trajectory in every chain, and accept or reject."""
        moved, info = super().step(state)
        return {**moved, COUNT: state[COUNT] + 1}, info

    def count_steps(self, state: State) -> int:
        """How many leapfrog steps the next trajectory has; looks at its length and step size."""
        values = state[COUNT][0], self.tuning[LENGTH], self.tuning["step_size"]
        count, length, step_size = torch.stack([value.double() for value in values]).tolist()
        self._share = van_der_corput(int(count) + 1)
        return steps_of(self._share * length, step_size)

    def start_warmup(self, state: State, num_steps: int) -> None:
        """Start the first window."""
        chains = len(state[self.sites[0]])
        if num_steps and self.adapt_trajectory_length and chains < 4:
            raise ValueError(
                f"ChEES expected 4 chains or more to learn its trajectory length from, got "
                f"{chains}: run more, or use NUTS, or give trajectory_length and "
                "adapt_trajectory_length=False"
            )
        super().start_warmup(state, num_steps)

    def end_warmup(self) -> None:
        """Keep the averaged trajectory length."""
        if self.adapt_trajectory_length:
            self.tuning[LENGTH].copy_(self.tuning[LOG_MEAN].exp())

    def open_window(self, state: State) -> None:
        """Start the next window, in whose units the length is averaged anew."""
        super().open_window(state)
        self.tuning["length_count"].zero_()

    def look(self, state: State, trajectory: Trajectory, info: Info) -> None:
        """Climb by one trajectory's starts and ends."""
        if self._windows and self.adapt_trajectory_length:
            q = pack(state, self.sites)
            share = q.new_tensor(self._share)
            self._climb(q, trajectory["q"], trajectory["a"], info["accept_prob"], share)

    @compiled
    def _climb(
        self,
        q: torch.Tensor,
        end: torch.Tensor,
        a: torch.Tensor,
        accept_prob: torch.Tensor,
        share: torch.Tensor,
    ) -> torch.Tensor:
        tuning = self.tuning
        start = self.whiten_position(q.mT)
        end = self.whiten_position(end)
        valid = end.isfinite().all(0) & a.isfinite().all(0)
        weight = torch.where(valid, accept_prob, 0.0)
        weight = weight / weight.sum().clamp(min=1e-6)
        end = torch.where(valid, end, start)
        a = torch.where(valid, a, 0.0)
        far = end - (weight * end).sum(-1, keepdim=True)
        near = start - start.mean(-1, keepdim=True)
        change = far.square().sum(0) - near.square().sum(0)
        gradient = share * (weight * change * (far * a).sum(0)).sum()
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        # One step of Adam without momentum.
        count = tuning["length_count"].add_(1)
        squares = tuning["length_squares"]
        squares.mul_(SQUARES_DECAY).add_((1 - SQUARES_DECAY) * gradient.square())
        step = LEARNING_RATE * gradient / (squares.sqrt() + 1e-20)
        log_length = tuning[LOG_LENGTH].add_(step.clamp(-MAX_CHANGE, MAX_CHANGE))
        tuning[LOG_MEAN].lerp_(log_length, (count + 1) ** -0.5)
        tuning[LENGTH].copy_(log_length.exp())
        return gradient


def van_der_corput(index: int) -> float:
    """The ``index``-th number, from 1, of the quasi-random sequence in base 2.

    Its binary digits are those of ``index`` mirrored at the point.

    Example:
        >>> [van_der_corput(index) for index in range(1, 8)]
        [0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875]
    """
    return int(f"{index:b}"[::-1], 2) / (1 << index.bit_length())
