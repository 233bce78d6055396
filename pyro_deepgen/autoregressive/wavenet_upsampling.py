# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A context of every so many steps as one of each step."""

from __future__ import annotations

import torch
from torch import nn


class Upsampling(nn.Module):
    r"""Brings frames to the rate of the steps.

    .. math:: y_{r f + i, d} = w_{d i}\, h_{f d}, \qquad i = 0, \dots, r - 1

    A transposed convolution of each feature by itself, whose kernel is as long as its stride. It
    begins as repetition, :math:`w = 1`, and where it is not learned it stays that.

    Args:
        num_features: number of features of a frame.
        rate: number :math:`r` of steps of a frame.
        learned: whether :math:`w` is learned.

    Example:
        >>> import torch
        >>> Upsampling(1, 3, True)(torch.tensor([[1.0], [2.0]]), 5).flatten().tolist()
        [1.0, 1.0, 1.0, 2.0, 2.0]
    """

    def __init__(self, num_features: int, rate: int, learned: bool) -> None:
        super().__init__()
        self.rate = rate
        self.weight = nn.Parameter(torch.ones(rate, num_features)) if learned else None

    def forward(self, frames: torch.Tensor, num_steps: int) -> torch.Tensor:
        """Return ``(*batch, num_steps, D)`` from frames ``(*batch, F, D)``."""
        steps = frames.repeat_interleave(self.rate, -2)[..., :num_steps, :]
        if self.weight is None:
            return steps
        num_frames = frames.shape[-2]
        return steps * self.weight.repeat(num_frames, 1)[:num_steps]
