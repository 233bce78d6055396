# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The choice between a proposal and the present state."""

from __future__ import annotations

import torch

from .state import Info, State


def choose(log_ratio: torch.Tensor, proposed: State, state: State) -> tuple[State, Info]:
    r"""Accept the proposal in each chain with the probability of Metropolis and Hastings.

    .. math:: \alpha = \min\Bigl(1, \frac{p(q') \, g(q | q')}{p(q) \, g(q' | q)}\Bigr)

    for a proposal :math:`q'` from :math:`g(\cdot | q)`. It is what the ``step`` of a kernel of
    one's own may end with.

    Args:
        log_ratio: the logarithm of the fraction ``(C,)``; a proposal where it is not a number is
            rejected.
        proposed: what changes if it is accepted, tensors ``(C, *shape)``.
        state: the present state.

    Returns:
        The next state, and ``accept_prob`` ``(C,)`` as info.

    References:
        Monte Carlo sampling methods using Markov chains and their applications, W. K. Hastings,
        1970.

    Example:
        >>> import torch
        >>> here, there = {"x": torch.zeros(3)}, {"x": torch.ones(3)}
        >>> moved, info = choose(torch.tensor([9.0, -torch.inf, torch.nan]), there, here)
        >>> moved["x"].tolist(), info["accept_prob"].tolist()
        ([1.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    """
    accept_prob = log_ratio.exp().clamp(max=1.0).nan_to_num(0.0)
    accepted = torch.rand_like(accept_prob) < accept_prob
    moved = {
        name: torch.where(accepted.reshape(-1, *[1] * (value.dim() - 1)), value, state[name])
        for name, value in proposed.items()
    }
    return {**state, **moved}, {"accept_prob": accept_prob}
