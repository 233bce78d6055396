# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Chains that are replaced by copies of others with more weight."""

from __future__ import annotations

import torch

from .ais_result import effective_sample_size


def systematic(log_weights: torch.Tensor) -> torch.Tensor:
    r"""Draw as many chains as there are, each as often as its weight says, up to rounding.

    Chain ``k`` of normalised weight :math:`W_k` is drawn :math:`\lfloor K W_k \rfloor` or
    :math:`\lceil K W_k \rceil` times, :math:`K W_k` on average.

    Args:
        log_weights: ``(G, K)``, of each of ``G`` groups.

    Returns:
        Numbers of the chains drawn ``(G, K)``, not falling.

    References:
        Monte Carlo filter and smoother for non-Gaussian nonlinear state space models, Genshiro
        Kitagawa, 1996.

    Example:
        >>> import torch
        >>> systematic(torch.tensor([[0.5, 0.25, 0.25, 0.0]]).log()).tolist()
        [[0, 0, 1, 2]]
    """
    groups, num = log_weights.shape
    cumulative = log_weights.softmax(-1).cumsum(-1)
    start = torch.rand(groups, 1, dtype=log_weights.dtype, device=log_weights.device)
    marks = (torch.arange(num, device=log_weights.device) + start) / num
    # By its own last value, which rounding keeps from being 1.
    marks = marks * cumulative[:, -1:]
    return torch.searchsorted(cumulative, marks, right=True).clamp(max=num - 1)


def resample_poor(log_weights: torch.Tensor, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Which chains go on, in groups whose effective sample size has become small.

    Args:
        log_weights: ``(G, K)``.
        threshold: the fraction of ``K`` below which a group is resampled.

    Returns:
        Numbers of the chains that go on ``(G, K)``, and which groups are resampled ``(G,)``.
    """
    num = log_weights.shape[-1]
    poor = effective_sample_size(log_weights) < threshold * num
    same = torch.arange(num, device=log_weights.device).expand_as(log_weights)
    return torch.where(poor[:, None], systematic(log_weights), same), poor
