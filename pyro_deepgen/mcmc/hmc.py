# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Hamiltonian Monte Carlo with a fixed number of steps or a fixed trajectory length."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .state import State, Values
from .trajectories import Trajectories, steps_of


class HMC(Trajectories):
    r"""Hamiltonian Monte Carlo.

    Draws a momentum, follows leapfrog steps, as many in all chains, and accepts the end in each
    chain with probability

    .. math:: \min(1, \exp(H(q, p) - H(q', p'))).

    Args:
        target: a Pyro model, a distribution, or a :class:`Target`.
        num_steps: leapfrog steps of a trajectory. Exclusive with ``trajectory_length``.
        trajectory_length: step size times number of steps, in units of the metric (where the
            target's standard deviations are about 1 after a warm-up); ``pi / 2`` by default, which
            is a quarter of a normal target's period and makes its draws independent.
        step_size: the first one.
        adapt_step_size: whether the warm-up adapts it.
        adapt_mass_matrix: whether the warm-up adapts the metric.
        full_mass: whether the metric is dense.
        target_accept_prob: the mean acceptance to adapt to.
        jitter: each trajectory's step size is multiplied by a uniform draw from
            ``(1 - jitter, 1 + jitter)``, the same for all chains, lest chains go round in circles.
        sites: the sites that this kernel moves; all by default.
        compile: see :class:`Kernel`.
        potential_fn: see :class:`Kernel`.

    Raises:
        ValueError: for numbers out of range, or if both or none of the lengths are given.

    References:
        Radford M. Neal: MCMC using Hamiltonian dynamics, 2011, arXiv 1206.1901.

    Example:
        >>> import pyro.distributions as dist, torch
        >>> kernel = HMC(dist.Normal(3.0, 2.0), num_steps=4, step_size=0.5, compile=False)
        >>> kernel.setup(0)
        >>> state, info = kernel.step(kernel.init({"x": torch.full((5,), 3.0)}))
        >>> state["x"].shape, bool((info["accept_prob"] > 0.9).all())
        (torch.Size([5]), True)
    """

    def __init__(
        self,
        target: Any = None,
        *,
        num_steps: int | None = None,
        trajectory_length: float | None = None,
        step_size: float = 1.0,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        full_mass: bool = False,
        target_accept_prob: float = 0.8,
        jitter: float = 0.2,
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
        if num_steps is not None and trajectory_length is not None:
            raise ValueError(
                f"expected num_steps or trajectory_length, got both ({num_steps} and "
                f"{trajectory_length}): their quotient would be the step size, which is adapted"
            )
        if num_steps is not None and num_steps < 1:
            raise ValueError(f"expected num_steps of 1 or more, got {num_steps}")
        if trajectory_length is not None and not trajectory_length > 0:
            raise ValueError(f"expected a positive trajectory_length, got {trajectory_length}")
        if not 0 <= jitter < 1:
            raise ValueError(f"expected jitter in [0, 1), got {jitter}")
        self.num_steps = num_steps
        self.trajectory_length = math.pi / 2 if trajectory_length is None else trajectory_length
        self.jitter = jitter

    def count_steps(self, state: State) -> int:
        """How many leapfrog steps the next trajectory has; looks at the step size."""
        if self.num_steps is not None:
            return self.num_steps
        return steps_of(self.trajectory_length, float(self.tuning["step_size"]))
