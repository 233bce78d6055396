# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Any Pyro distribution as a module, so that its tensors move and are saved."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn

from .module import DistributionModule
from .parts import HoldsParts


class BufferedDistribution(HoldsParts, DistributionModule):
    """A Pyro distribution whose tensor arguments are the buffers of a module.

    ``.to(device)``, ``.double()`` and ``state_dict`` then reach a prior such as
    ``Normal(zeros, ones)``, which as a plain attribute would stay where it was made. Tensors are
    found in nested distributions too (``Independent``, mixtures, transformed distributions);
    an ``nn.Parameter`` among them stays a parameter and a ``TransformModule`` a sub-module. What
    Pyro's transforms remember of their last call is dropped before each use, since it does not
    follow a change of the parameters; so scoring a draw runs the inverse.

    Args:
        distribution: the distribution to hold.

    Raises:
        ValueError: if a tensor argument requires a gradient without being an ``nn.Parameter``,
            since no optimiser would find it (so where a constructor computes from its arguments, as
            those of mixtures do: write a :class:`DistributionModule` that makes the distribution
            anew at each call); if ``distribution`` is a module already.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> prior = BufferedDistribution(dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
        >>> prior.double().sample().dtype
        torch.float64
        >>> sorted(prior.state_dict())
        ['base_dist__loc', 'base_dist__scale']
    """

    def __init__(self, distribution: TorchDistributionMixin) -> None:
        if isinstance(distribution, nn.Module):
            raise ValueError(
                f"expected a distribution that is not a module, got {type(distribution).__name__}, "
                "whose tensors move and are saved already: use it as it is"
            )
        super().__init__(distribution.event_shape, distribution.batch_shape)
        self._hold(distribution)

    @property
    def distribution(self) -> TorchDistributionMixin:
        """The plain distribution on the tensors that the module holds now."""
        plain: TorchDistributionMixin = self._put_together()
        if plain.batch_shape == self.batch_shape:
            return plain
        expanded: TorchDistributionMixin = plain.expand(self.batch_shape)
        return expanded

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether draws carry gradients."""
        return bool(self.distribution.has_rsample)

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        """Whether the support can be enumerated."""
        return bool(self.distribution.has_enumerate_support)

    @property
    def support(self) -> Any:
        """The constraint that draws satisfy."""
        return self.distribution.support

    @property
    def mean(self) -> torch.Tensor:
        """The mean, of shape ``batch_shape + event_shape``."""
        mean: torch.Tensor = self.distribution.mean
        return mean

    @property
    def variance(self) -> torch.Tensor:
        """The variance of every coordinate, of shape ``batch_shape + event_shape``."""
        variance: torch.Tensor = self.distribution.variance
        return variance

    def sample(self, sample_shape: Any = torch.Size()) -> torch.Tensor:  # noqa: B008
        """Draw without gradients, of shape ``sample_shape + batch_shape + event_shape``."""
        draws: torch.Tensor = self.distribution.sample(sample_shape)
        return draws

    def rsample(self, sample_shape: Any = torch.Size()) -> torch.Tensor:  # noqa: B008
        """Draw with gradients to the parameters, where the distribution can."""
        draws: torch.Tensor = self.distribution.rsample(sample_shape)
        return draws

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Log-density of ``value``, of shape ``sample_shape + batch_shape``."""
        log_prob: torch.Tensor = self.distribution.log_prob(value)
        return log_prob

    def enumerate_support(self, expand: bool = True) -> torch.Tensor:
        """All values of a discrete distribution, stacked on the left."""
        values: torch.Tensor = self.distribution.enumerate_support(expand)
        return values
