# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A distribution drawn closer to its mean."""

from __future__ import annotations

from math import log, prod
from typing import Any

import torch

from .bounded import log_prob_anywhere
from .module import DistributionModule


class Tempered(DistributionModule):
    r"""The distribution of :math:`\mu + T (x - \mu)` for :math:`x` with the mean :math:`\mu`.

    Args:
        base: a distribution over the reals with a mean; parameters are shared.
        temperature: :math:`T`.

    Raises:
        ValueError: if the temperature is not positive, or the base has no mean.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from pyro_deepgen.distributions import BufferedDistribution
        >>> normal = dist.Normal(torch.ones(2), 2 * torch.ones(2)).to_event(1)
        >>> cold, x = Tempered(BufferedDistribution(normal), 0.5), torch.randn(5, 2)
        >>> expected = dist.Normal(torch.ones(2), torch.ones(2)).to_event(1).log_prob(x)
        >>> torch.allclose(cold.log_prob(x), expected)
        True
    """

    def __init__(self, base: DistributionModule, temperature: float) -> None:
        if not temperature > 0:
            raise ValueError(f"expected a positive temperature, got {temperature}")
        try:
            _ = base.mean
        except NotImplementedError as error:
            raise ValueError(
                "expected a base with a mean, from which draws keep a distance in proportion to "
                f"the temperature; {type(base).__name__} has none"
            ) from error
        super().__init__(base.event_shape, base.batch_shape)
        self.base = base
        self.temperature = temperature

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether draws carry gradients."""
        return bool(self.base.has_rsample)

    @property
    def support(self) -> Any:
        """The support of the base, in which the tempered one lies if it is convex."""
        return self.base.support

    @property
    def mean(self) -> torch.Tensor:
        """The mean of the base."""
        mean: torch.Tensor = self.base.expand(self.batch_shape).mean
        return mean

    def rsample(self, sample_shape: Any = torch.Size()) -> torch.Tensor:  # noqa: B008
        """Draw with gradients."""
        mean = self.mean
        draws: torch.Tensor = self.base.expand(self.batch_shape).rsample(sample_shape)
        return mean + self.temperature * (draws - mean)

    def sample(self, sample_shape: Any = torch.Size()) -> torch.Tensor:  # noqa: B008
        """Draw without gradients."""
        with torch.no_grad():
            mean = self.mean
            draws: torch.Tensor = self.base.expand(self.batch_shape).sample(sample_shape)
            return mean + self.temperature * (draws - mean)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Log-density of ``(*sample, *batch, *event)`` values."""
        value, mean = self.broadcast(value), self.mean
        log_prob = log_prob_anywhere(self.base, mean + (value - mean) / self.temperature)
        return log_prob - prod(self.event_shape) * log(self.temperature)
