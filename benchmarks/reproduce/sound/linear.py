# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Linear prediction of amplitudes, with a law of its errors on the same levels."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import logsigmoid, softplus

from pyro_deepgen.datasets import MuLaw

RIDGE = 1e-7  # of the power, for a system that is nearly singular


def autocorrelation(x: torch.Tensor, order: int) -> torch.Tensor:
    """The sums of ``x_t x_{t-j}`` over pieces ``(N, T)``, for j from 0 to the order."""
    size = x.shape[-1] + order
    total = torch.zeros(order + 1, dtype=torch.float64)
    for part in x.split(64):
        power = torch.fft.rfft(part.double(), size).abs().square().sum(0)
        total += torch.fft.irfft(power, size)[: order + 1]
    return total


def linear_predictor(x: torch.Tensor, order: int) -> torch.Tensor:
    """The weights of the ``order`` values before, by least squares on pieces ``(N, T)``."""
    r = autocorrelation(x, order)
    lags = torch.arange(order)
    matrix = r[(lags[:, None] - lags).abs()]
    matrix.diagonal().add_(RIDGE * r[0])
    return torch.linalg.solve(matrix, r[1:])


def predict(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The prediction of each value of ``(N, T)`` from those before it; before the first are 0."""
    size = x.shape[-1] + len(weights)
    kernel = torch.fft.rfft(weights, size)
    parts = []
    for part in x.split(64):
        whole = torch.fft.irfft(torch.fft.rfft(part.double(), size) * kernel, size)
        parts.append(torch.nn.functional.pad(whole, (1, 0))[:, : x.shape[-1]].float())
    return torch.cat(parts)


class ErrorLaw(nn.Module):
    """A mixture of logistic distributions around a prediction, on the levels of the mu-law.

    Args:
        law: the quantiser.
        num_components: number of components.
        growing: whether a scale is ``a + b |prediction|``, and not ``a``.
    """

    def __init__(self, law: MuLaw, num_components: int, growing: bool) -> None:
        super().__init__()
        ends = torch.tensor([100.0])  # beyond all; infinite ones would make gradients NaN
        self.edges: torch.Tensor
        self.register_buffer("edges", torch.cat([-ends, law.edges(), ends]))
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.base = nn.Parameter(torch.linspace(-7.0, -3.0, num_components + 2)[1:-1])
        start = torch.full((num_components,), -4.0)
        self.slope = nn.Parameter(start) if growing else None

    def log_prob(self, levels: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of levels given predictions, of one shape."""
        scale = (
            softplus(self.base)
            if self.slope is None
            else softplus(self.base) + softplus(self.slope) * prediction.abs().unsqueeze(-1)
        )
        lower, upper = ((self.edges[levels + i] - prediction).unsqueeze(-1) / scale for i in (0, 1))
        # log(sigmoid(u) - sigmoid(l)) without cancellation.
        inner = torch.log(-torch.expm1(lower - upper))
        scores = logsigmoid(upper) + logsigmoid(-lower) + inner
        return torch.logsumexp(self.logits.log_softmax(0) + scores, -1)

    def learn(self, levels: torch.Tensor, prediction: torch.Tensor, steps: int) -> None:
        """Go up the likelihood of ``(n,)`` levels given predictions."""
        optimizer = torch.optim.Adam(self.parameters(), 0.05)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            chosen = torch.randint(len(levels), (min(len(levels), 20_000),))
            optimizer.zero_grad()
            (-self.log_prob(levels[chosen], prediction[chosen]).mean()).backward()
            optimizer.step()
            scheduler.step()
