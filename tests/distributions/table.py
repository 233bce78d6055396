# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The table of distributions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import nn

from pyro_deepgen.distributions import (
    BufferedDistribution,
    DiscretizedLogistic,
    FlowDistribution,
)
from pyro_deepgen.transforms import CholeskyAffine, planar
from tests.autoregressive.rows import AUTOREGRESSIVE_ROWS


@dataclass(frozen=True)
class DistributionRow:
    """A distribution of the batch shape `()`.

    `box` holds all but a negligible part of a continuous distribution, as (low, high) of each of
    its coordinates; a discrete one has none and is enumerated.
    """

    name: str
    cls: type
    make: Callable[[], Any]
    box: tuple[tuple[float, float], ...] | None = None


def buffered_normal() -> BufferedDistribution:
    loc, scale = torch.tensor([0.5, -1.0]), torch.tensor([1.0, 0.4])
    return BufferedDistribution(dist.Normal(loc, scale).to_event(1))


def buffered_mixture() -> BufferedDistribution:
    components = dist.Normal(torch.tensor([-2.0, 1.0]), torch.tensor([0.5, 0.8]))
    weights = dist.Categorical(torch.tensor([0.3, 0.7]))
    return BufferedDistribution(dist.MixtureSameFamily(weights, components))


def buffered_flow() -> BufferedDistribution:
    base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    torch.manual_seed(1)
    flow = dist.transforms.Spline(2, count_bins=4, bound=8.0)
    shift = dist.transforms.AffineTransform(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 2.0]), 1)
    return BufferedDistribution(dist.TransformedDistribution(base, [flow, shift]))


def flow() -> FlowDistribution:
    base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    torch.manual_seed(1)
    tril = torch.tensor([[1.2, 0.0], [-0.5, 0.8]])
    made = FlowDistribution(base, [planar(2), CholeskyAffine(2, scale_tril=tril), planar(2)])
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def positive_flow() -> FlowDistribution:
    """Return a flow in one dimension with parts of PyTorch's and a base that learns."""
    base = dist.Normal(nn.Parameter(torch.tensor(0.3)), torch.tensor(0.5))
    scale = dist.transforms.AffineTransform(torch.tensor(-0.2), torch.tensor(1.5))
    return FlowDistribution(base, [scale, dist.transforms.SoftplusTransform()])


DISTRIBUTIONS = [
    DistributionRow(
        "discretized_logistic",
        DiscretizedLogistic,
        lambda: DiscretizedLogistic(0.4, 0.15, num_levels=8),
    ),
    DistributionRow(
        "discretized_logistic_outside",
        DiscretizedLogistic,
        lambda: DiscretizedLogistic(-0.3, 0.2, low=-1.0, high=2.0, num_levels=5),
    ),
    DistributionRow(
        "buffered_normal", BufferedDistribution, buffered_normal, ((-9.0, 10.0), (-5.0, 3.0))
    ),
    DistributionRow("buffered_mixture", BufferedDistribution, buffered_mixture, ((-8.0, 10.0),)),
    DistributionRow(
        "buffered_flow", BufferedDistribution, buffered_flow, ((-3.0, 5.0), (-14.0, 14.0))
    ),
    DistributionRow("flow", FlowDistribution, flow, ((-9.0, 9.0), (-9.0, 9.0))),
    DistributionRow("flow_positive", FlowDistribution, positive_flow, ((0.0, 6.0),)),
    DistributionRow(
        "buffered_categorical",
        BufferedDistribution,
        lambda: BufferedDistribution(dist.Categorical(torch.tensor([0.2, 0.5, 0.3]))),
    ),
    *(DistributionRow(*row) for row in AUTOREGRESSIVE_ROWS),
]
