# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The choice between a proposal and the present state."""

from __future__ import annotations

import torch

from .state import Info, State


def choose(log_ratio: torch.Tensor, proposed: State, state: State) -> tuple[State, Info]:
    """Accept the proposal in each chain with the probability of Metropolis and Hastings.

    Args:
        log_ratio: ``log p(q') q(q | q') - log p(q) q(q' | q)`` ``(C,)``; a proposal where it is not
            a number is rejected.
        proposed: what changes if it is accepted, tensors ``(C, *shape)``.
        state: the present state.

    Returns:
        The next state, and ``accept_prob``.
    """
    accept_prob = log_ratio.exp().clamp(max=1.0).nan_to_num(0.0)
    accepted = torch.rand_like(accept_prob) < accept_prob
    moved = {
        name: torch.where(accepted.reshape(-1, *[1] * (value.dim() - 1)), value, state[name])
        for name, value in proposed.items()
    }
    return {**state, **moved}, {"accept_prob": accept_prob}
