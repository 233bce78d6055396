# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Parzen-window estimates from samples."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi

import torch

from .samples import as_vectors, squared_distances


def parzen_log_likelihood(
    samples: torch.Tensor, x: torch.Tensor, bandwidth: float, *, block: int = 500
) -> torch.Tensor:
    r"""Log-density of data under a Gaussian window on each of a model's samples.

    .. math::
        \log \hat p(x) = \log \frac1S \sum_{s=1}^S N(x; x_s, \sigma^2 I)

    It needs nothing of the model but samples, and is a poor guide in many dimensions: it can rank
    k-means centroids above the true distribution. Quote it only to compare with older papers.

    Args:
        samples: the model's samples, ``(S, ...)``.
        x: data, ``(N, ...)`` with the same event shape.
        bandwidth: :math:`\sigma`, in the units of the data.
        block: data at a time, to bound memory.

    Returns:
        Log-densities in nats, of shape ``(N,)``.

    Raises:
        ValueError: if the event shapes or dtypes differ, the data are not floating-point, there
            are none, or the bandwidth is not positive.

    References:
        A Note on the Evaluation of Generative Models, Theis, van den Oord, Bethge, 2016,
        arXiv:1511.01844.

    Example:
        >>> import torch
        >>> x = torch.linspace(-8, 8, 1601).unsqueeze(-1)
        >>> density = parzen_log_likelihood(torch.randn(20, 1), x, 0.5).exp()
        >>> bool((density.sum() * 0.01 - 1).abs() < 1e-3)
        True
    """
    vectors, data = as_vectors(samples, x)
    if samples.shape[1:] != x.shape[1:] or 0 in (len(samples), len(x)) or not bandwidth > 0:
        raise ValueError(
            "expected samples and data of one event shape and a positive bandwidth, got shapes "
            f"{tuple(samples.shape)} and {tuple(x.shape)}, bandwidth {bandwidth}"
        )
    constant = log(len(vectors)) + data.shape[1] * (0.5 * log(2 * pi) + log(bandwidth))
    parts = []
    for part in data.split(block):
        exponents = -squared_distances(part, vectors) / (2 * bandwidth**2)
        parts.append(exponents.logsumexp(1) - constant)
    return torch.cat(parts)


def parzen_bandwidth(
    samples: torch.Tensor, held_out: torch.Tensor, candidates: Sequence[float]
) -> float:
    """The candidate bandwidth with the highest mean log-density of held-out data.

    Args:
        samples: the model's samples, ``(S, ...)``.
        held_out: data that are not the test data, ``(N, ...)``.
        candidates: bandwidths to try, in the units of the data.

    Returns:
        One of the candidates.

    Raises:
        ValueError: if there are no candidates.

    Example:
        >>> import torch
        >>> parzen_bandwidth(torch.randn(200, 1), torch.randn(200, 1), [1e-3, 0.3, 30.0])
        0.3
    """
    if not candidates:
        raise ValueError("expected at least one candidate bandwidth, got none")
    scores = [float(parzen_log_likelihood(samples, held_out, c).mean()) for c in candidates]
    return candidates[scores.index(max(scores))]
