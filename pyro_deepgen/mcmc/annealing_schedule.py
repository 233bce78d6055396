# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Which temperatures annealed chains pass, and how far they step at each."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .annealing import POOR, Annealing
from .path import Difference
from .resampling import resample_poor
from .state import Values

ACCEPT_PROB = 0.4
BISECTIONS = 40
MAX_LEVELS = 2000
MOVES_AT_BASE, MOVES_AT_LEVEL = 20, 4


def fixed_schedule(schedule: str | Sequence[float] | torch.Tensor, num_steps: int) -> torch.Tensor:
    r"""Inverse temperatures ``(num_steps + 1,)`` by name, or those given.

    ``"linear"`` has equal steps; ``"sigmoid"`` has small ones at both ends:

    .. math:: \beta_k \propto \sigma(4 (2 k / n - 1)) - \sigma(-4)

    Raises:
        ValueError: for an unknown name, or numbers that do not rise from 0 to 1.

    References:
        On the quantitative analysis of decoder-based generative models, Yuhuai Wu, Yuri Burda,
        Ruslan Salakhutdinov and Roger Grosse, 2016, arXiv 1611.04273 (the sigmoid schedule).

    Example:
        >>> fixed_schedule("linear", 4).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if isinstance(schedule, str):
        if schedule not in ("linear", "sigmoid"):
            raise ValueError(
                'expected a schedule "adaptive", "linear" or "sigmoid", or inverse temperatures '
                f"from 0 to 1, got {schedule!r}"
            )
        linear = torch.linspace(0.0, 1.0, num_steps + 1, dtype=torch.float64)
        if schedule == "linear":
            return linear
        bent = torch.sigmoid(4.0 * (2.0 * linear - 1.0))
        return ((bent - bent[0]) / (bent[-1] - bent[0])).clamp(0.0, 1.0)
    betas = torch.as_tensor(schedule, dtype=torch.float64).detach().cpu()
    ends = betas.dim() == 1 and len(betas) >= 2 and betas[0] == 0 and betas[-1] == 1
    if not ends or not bool((betas[1:] >= betas[:-1]).all()):
        raise ValueError(
            f"expected inverse temperatures that rise from 0 to 1, got {betas.tolist()}"
        )
    return betas


def resample_schedule(knots: torch.Tensor, num_steps: int) -> torch.Tensor:
    """Put ``num_steps`` steps where a schedule has others, each knot an equal part of the way.

    Example:
        >>> import torch
        >>> resample_schedule(torch.tensor([0.0, 0.5, 1.0]), 4).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    knots = knots.double()
    at = torch.linspace(0.0, len(knots) - 1, num_steps + 1, dtype=torch.float64)
    left = at.floor().long().clamp(max=len(knots) - 2)
    return torch.lerp(knots[left], knots[left + 1], at - left)


def explore(
    annealing: Annealing, values: Values, ess_fraction: float, tune: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Go from the base to the target once, to find temperatures and step sizes.

    The next inverse temperature is the largest that keeps the conditional effective sample size
    at a fraction of the chains,

    .. math::
        \frac{(\sum_k W_k w_k)^2}{\sum_k W_k w_k^2} \ge \rho, \quad
        w_k = \exp(U_\beta(x_k) - U_{\beta'}(x_k)),

    with :math:`W_k` the weights so far, by bisection; poor chains are resampled. At each
    temperature the factor of the step size is raised or lowered to the acceptance that is wanted.

    Args:
        annealing: the chains, whose estimate this is not: it would be biased.
        values: draws from the base ``(C, *shape)``.
        ess_fraction: :math:`\rho`.
        tune: whether the kernel has a step size to find.

    Returns:
        Inverse temperatures from 0 to 1 ``(n + 1,)``, and factors of the step size there.

    Raises:
        ValueError: if the way is too long, or the weights are not numbers.

    References:
        Toward automatic model comparison: an adaptive sequential Monte Carlo approach, Yan Zhou,
        Adam M. Johansen and John A. D. Aston, 2016, arXiv 1303.3123.
    """
    tempered = annealing.tempered
    wanted = float(getattr(annealing.kernel, "target_accept_prob", ACCEPT_PROB))
    beta = torch.zeros((), dtype=torch.float64, device=tempered.device)
    log_scale = torch.zeros_like(beta)

    def moved(values: Values, times: int) -> tuple[Values, torch.Tensor]:
        log = log_scale
        for i in range(times if tune else 1):
            values, prob = annealing.move(values, beta, log.exp())
            if tune and prob is not None:  # a gain that falls, lest it swings about the rate
                log = (log + (prob.double() - wanted) / (i + 1) ** 0.6).clamp(-12.0, 12.0)
        return values, log

    values, log_scale = moved(values, MOVES_AT_BASE)
    betas, logs = [beta], [log_scale]
    log_weights = annealing.grouped(
        torch.zeros(len(next(iter(values.values()))), device=beta.device)
    )
    while float(beta) < 1:
        if len(betas) > MAX_LEVELS:
            raise ValueError(
                f"the base is too far from the target: after {MAX_LEVELS} temperatures the inverse "
                f"temperature is {float(beta):.3g}; choose a base nearer to the target"
            )
        difference = tempered.path.differences(values)
        following = _next_beta(annealing, difference, log_weights, beta, ess_fraction)
        log_weights = log_weights + annealing.grouped(difference(beta, following))
        if not bool(log_weights.logsumexp(-1).isfinite().all()):
            raise ValueError(
                "no chain from the base has a finite density under the target (or one has an "
                "infinite one): the base must cover the target's support"
            )
        beta = following
        chosen, poor = resample_poor(log_weights, POOR)
        log_weights = log_weights.masked_fill(poor[:, None], 0.0)
        values, log_scale = moved(annealing.chosen(values, chosen), MOVES_AT_LEVEL)
        betas.append(beta)
        logs.append(log_scale)
    return torch.stack(betas).cpu(), torch.stack(logs).exp().cpu()


def _next_beta(
    annealing: Annealing,
    difference: Difference,
    log_weights: torch.Tensor,
    beta: torch.Tensor,
    ess_fraction: float,
) -> torch.Tensor:
    def keeps_enough(to: torch.Tensor) -> torch.Tensor:
        steps = annealing.grouped(difference(beta, to))
        weights = log_weights.log_softmax(-1)
        log_ess = 2 * (weights + steps).logsumexp(-1) - (weights + 2 * steps).logsumexp(-1)
        return log_ess.exp().nan_to_num(0.0).mean() >= ess_fraction

    one = torch.ones_like(beta)
    low, high = beta, one
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        enough = keeps_enough(middle)
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    # At least a little further, or the way would never end.
    low = torch.maximum(low, beta + 1e-12 + 1e-3 * beta).clamp(max=1.0)
    return torch.where(keeps_enough(one), one, low)
