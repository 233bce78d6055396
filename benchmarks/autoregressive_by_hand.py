# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""NADE as its equations read: one variable after another, in plain PyTorch."""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from pyro_deepgen.autoregressive import NADE, AutoregressiveDistribution

from .flows_contestants import Flow, Parameter


def nade_by_hand(ours: AutoregressiveDistribution) -> Flow:
    """A loop over the variables with a running sum, of ours' parameters."""
    assert isinstance(ours, NADE)
    weight, bias = ours.in_weight, ours.in_bias  # (D, 1, H) and (H)
    out_weight, out_bias = ours.out_weight, ours.out_bias  # (D, H, 1) and (D, 1)

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        sums, logits = bias.expand(len(x), -1), []
        for d in range(x.shape[-1]):
            logits.append(sums.sigmoid() @ out_weight[d] + out_bias[d])
            sums = sums + x[:, d : d + 1] * weight[d]
        every = torch.cat(logits, -1)
        return -binary_cross_entropy_with_logits(every, x, reduction="none").sum(-1)

    def sample(size: int) -> torch.Tensor:
        # The numbers that ours draws: all at once, for each variable in turn.
        noise = torch.rand(len(weight), size, 1, device=weight.device)
        sums, values = bias.expand(size, -1), []
        for d in range(len(weight)):
            probability = (sums.sigmoid() @ out_weight[d] + out_bias[d]).sigmoid()
            values.append((noise[d] < probability).to(sums.dtype))
            sums = sums + values[-1] * weight[d]
        return torch.cat(values, -1)

    def draw(size: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = sample(size)
        return x, log_prob(x)

    return Flow([Parameter(p) for p in ours.parameters()], log_prob, sample, draw)
