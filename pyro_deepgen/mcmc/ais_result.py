# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What annealed importance sampling gives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .state import Values


@dataclass(frozen=True)
class AISResult:
    """Estimates of a normalising constant from ``K`` annealed chains.

    With ``groups=G`` of :func:`ais`, all results have a leading dimension ``G``.

    Args:
        log_z: the estimate ``()``; the log of an unbiased one, so lower than ``log Z`` on average.
        standard_error: of ``log_z``, ``()``, by the jackknife over chains, or over the ancestors of
            resampled ones; infinite where one chain has all the weight.
        lower: a stochastic lower bound of ``log Z``, ``()``: the mean log weight, whose expectation
            is at most ``log Z``; ``log_z`` itself where chains are resampled.
        upper: a stochastic upper bound ``()``, likewise from reverse chains; or ``None``.
        reverse_log_z: the estimate from reverse chains ``()``, too high on average; or ``None``.
        ess: effective sample size of the weights ``()``, at most ``K``.
        log_weights: of all chains ``(K,)``, with the base's ``log Z`` in them.
        samples: the last, constrained values ``(K, *shape)`` of every site; with weights
            ``log_weights`` they represent the target.
        betas: the inverse temperatures ``(num_steps + 1,)``.
        accept_prob: the kernel's mean acceptance at each temperature ``(num_steps,)``, if it says.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> from pyro_deepgen.mcmc.ais import ais
        >>> from pyro_deepgen.mcmc.random_walk import RandomWalk
        >>> target, base = dist.Normal(1.0, 1.0), dist.Normal(0.0, 2.0)
        >>> kernel = RandomWalk(target, compile=False)
        >>> result = ais(target, base, kernel, num_steps=10, reverse_from=1 + torch.randn(1000))
        >>> bool(result.lower < result.log_z), bool(result.lower < 0 < result.upper)
        (True, True)
    """

    log_z: torch.Tensor
    standard_error: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor | None
    reverse_log_z: torch.Tensor | None
    ess: torch.Tensor
    log_weights: torch.Tensor
    samples: Values
    betas: torch.Tensor
    accept_prob: torch.Tensor | None


def log_mean_exp(log_weights: torch.Tensor) -> torch.Tensor:
    """The log of the mean weight, from ``(..., K)`` to ``(...)``."""
    return log_weights.logsumexp(-1) - math.log(log_weights.shape[-1])


def effective_sample_size(log_weights: torch.Tensor) -> torch.Tensor:
    r"""The number of equal weights that would be worth as much, from ``(..., K)`` to ``(...)``.

    .. math:: \Bigl(\sum_k w_k\Bigr)^2 \Bigm/ \sum_k w_k^2

    Example:
        >>> import torch
        >>> float(effective_sample_size(torch.tensor([0.0, 0.0, -torch.inf])))
        2.0
    """
    return (2 * log_weights.logsumexp(-1) - (2 * log_weights).logsumexp(-1)).exp()


def jackknife_error(log_weights: torch.Tensor, ancestors: torch.Tensor | None) -> torch.Tensor:
    r"""The standard error of the log of the mean weight.

    .. math::
        \sqrt{\frac{K - 1}{K} \sum_a (\theta_a - \bar\theta)^2}, \quad
        \theta_a = \log \frac{1}{K - 1} \sum_{k: a_k \ne a} w_k

    Chains with the same ancestor :math:`a_k` are not independent and are left out together.

    Args:
        log_weights: ``(..., K)``.
        ancestors: the number of the first chain from which each stems ``(..., K)``; ``None`` if
            none were resampled.

    Returns:
        ``(...)``; infinite if all weight is that of one ancestor.

    Example:
        >>> import torch
        >>> w = torch.rand(10_000, dtype=torch.float64) + 1
        >>> error, known = jackknife_error(w.log(), None), w.std() / w.mean() / 100
        >>> bool((error / known - 1).abs() < 1e-3)
        True
    """
    num = log_weights.shape[-1]
    weights = (log_weights - log_weights.amax(-1, keepdim=True)).exp()
    if ancestors is not None:
        weights = torch.zeros_like(weights).scatter_add(-1, ancestors, weights)
    rest = (weights.sum(-1, keepdim=True) - weights).clamp(min=0) / max(num - 1, 1)
    without = rest.log()
    spread = (without - without.mean(-1, keepdim=True)).square().sum(-1)
    return (spread * (num - 1) / num).sqrt().nan_to_num(torch.inf, posinf=torch.inf)
