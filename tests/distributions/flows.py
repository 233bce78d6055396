# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Flows for the tests: one that counts its inverse passes, and affine ones with known laws."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import nn

from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.transforms import CholeskyAffine, Planar, planar

LOC = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
TRIL = torch.tensor([[1.5, 0, 0], [0.7, 0.5, 0], [-0.4, 0.3, 2.0]], dtype=torch.float64)


def standard_normal(size: int) -> Any:
    return dist.Normal(torch.zeros(size), torch.ones(size)).to_event(1)


def affine_flow() -> FlowDistribution:
    """Return the normal distribution of mean `LOC` and Cholesky factor `TRIL`."""
    return FlowDistribution(standard_normal(3), CholeskyAffine(3, loc=LOC, scale_tril=TRIL))


def known_normal() -> Any:
    return dist.MultivariateNormal(LOC, scale_tril=TRIL)


class Counting(Planar):
    """A planar flow that counts its inverse passes."""

    inverses = 0

    def inverse_and_log_det(self, y: Any, context: Any = None) -> Any:
        self.inverses += 1
        return super().inverse_and_log_det(y, context)


def counting_flow(context_dim: int = 0) -> FlowDistribution:
    """Return a flow in two dimensions that counts, with a base that learns and a buffer."""
    counting = Counting(2, context_dim=context_dim, hidden_dims=(8,))
    scale = dist.transforms.AffineTransform(torch.tensor([0.5, -0.5]), torch.tensor([1.5, 0.7]), 1)
    base = dist.Normal(nn.Parameter(torch.tensor([0.3, -0.2])), torch.ones(2)).to_event(1)
    flow = FlowDistribution(base, [planar(2), counting, scale])
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return flow


def inverses(flow: FlowDistribution) -> int:
    """Tell how many inverse passes the flow ran."""
    (counting,) = [part for part in flow.modules() if isinstance(part, Counting)]
    return counting.inverses


def by_inverse(flow: FlowDistribution, y: torch.Tensor) -> torch.Tensor:
    """Score by the inverse of the transforms, without the flow's `log_prob`."""
    x, log_det = flow.transform.inverse_and_log_det(y)
    score: torch.Tensor = flow.base.log_prob(x) + log_det
    return score
