# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Whether draws follow a law that is known."""

from __future__ import annotations

import torch
from scipy.stats import chi2

# Of one test on right draws.
FAILURE_RATE = 1e-6


def p_value(observed: torch.Tensor, probs: torch.Tensor) -> float:
    """The p-value of Pearson's test; cells that expect fewer than 10 are joined."""
    expected = probs.detach() * observed.sum()
    rest = expected < 10
    e = torch.cat([expected[~rest], expected[rest].sum().reshape(1)])
    o = torch.cat([observed[~rest], observed[rest].sum().reshape(1)])
    if e[-1] < 10:
        e, o = e[:-1], o[:-1]
    return float(chi2.sf(float(((o - e) ** 2 / e).sum()), len(e) - 1))


def counts_of(draws: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """How often each of the values ``(S, ...)`` is among the draws ``(N, ...)``."""
    equal = (draws.flatten(1)[:, None] == values.flatten(1)).all(-1)
    assert bool(equal.any(-1).all()), "a draw that is no value"
    return equal.sum(0).double()


def moments_agree(draws: torch.Tensor, values: torch.Tensor, probs: torch.Tensor) -> bool:
    """Whether first and second moments of draws are within 4 standard errors of the exact ones."""
    probs = probs.detach()
    for power in (1, 2):
        seen, exact = draws.flatten(1) ** power, probs @ values.flatten(1) ** power
        error = seen.std(0) / len(seen) ** 0.5
        if bool(((seen.mean(0) - exact).abs() > 4 * error).any()):
            return False
    return True


def follows(draws: torch.Tensor, values: torch.Tensor, probs: torch.Tensor, finite: bool) -> bool:
    """Whether draws follow the law of ``probs`` over ``values``, or over the cells of a grid."""
    if not finite:
        return moments_agree(draws, values, probs)
    return p_value(counts_of(draws, values), probs) > FAILURE_RATE
