# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A logistic density integrated over the quantisation steps of pixel intensities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid


class _Levels(constraints.Constraint):
    """The values ``low, low + step, ..., high``."""

    is_discrete = True
    event_dim = 0

    def __init__(self, low: float, high: float, num_levels: int) -> None:
        self.low, self.high, self.num_levels = low, high, num_levels

    def check(self, value: torch.Tensor) -> torch.Tensor:
        position = (value - self.low) / (self.high - self.low) * (self.num_levels - 1)
        near = (position - position.round()).abs() < 1e-2  # rounding of k / 255 in float32 is less
        return near & (position > -0.5) & (position < self.num_levels - 0.5)

    def __repr__(self) -> str:
        return f"one of {self.num_levels} levels from {self.low} to {self.high}"


class DiscretizedLogistic(TorchDistribution):
    r"""A logistic density summed over each of ``num_levels`` equal steps.

    With levels :math:`x_k = a + k\Delta`, :math:`\Delta = (b - a) / (K - 1)`, and the logistic
    function :math:`\sigma`,

    .. math::
        P(x_k) = \sigma\!\Big(\frac{x_k + \Delta/2 - \mu}{s}\Big)
               - \sigma\!\Big(\frac{x_k - \Delta/2 - \mu}{s}\Big),

    where the lowest level takes all the mass below it and the highest all the mass above, so the
    probabilities of the levels sum to 1. The logarithm is computed without cancellation, as
    :math:`\log\sigma(u) + \log\sigma(-l) + \log(1 - e^{l - u})` for the two arguments
    :math:`u > l`.

    Args:
        loc: :math:`\mu`, in the units of the data; any shape that broadcasts with ``scale``.
        scale: :math:`s > 0`, in the units of the data.
        low: the lowest level :math:`a`.
        high: the highest level :math:`b`.
        num_levels: the number of levels :math:`K`.
        validate_args: whether to check arguments and values; ``None`` follows Pyro's setting.

    Raises:
        ValueError: if ``num_levels < 2`` or ``low >= high``; if a value scored under validation
            is not a level.

    References:
        Improved Variational Inference with Inverse Autoregressive Flow, Kingma, Salimans,
        Jozefowicz, Chen, Sutskever, Welling, 2016, arXiv:1606.04934.
        PixelCNN++, Salimans, Karpathy, Chen, Kingma, 2017, arXiv:1701.05517.

    Example:
        >>> import torch
        >>> d = DiscretizedLogistic(torch.tensor([0.1, 0.9]), torch.tensor([0.05, 3.0]))
        >>> total = d.log_prob(d.enumerate_support()).exp().sum(0)
        >>> bool(torch.allclose(total, torch.ones(2), atol=1e-5))
        True
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    has_enumerate_support = True

    def __init__(
        self,
        loc: torch.Tensor | float,
        scale: torch.Tensor | float,
        low: float = 0.0,
        high: float = 1.0,
        num_levels: int = 256,
        validate_args: bool | None = None,
    ) -> None:
        if num_levels < 2 or low >= high:
            raise ValueError(
                f"expected at least 2 levels between low < high, got {num_levels} levels from "
                f"{low} to {high}"
            )
        self.loc, self.scale = broadcast_all(loc, scale)
        self.low, self.high, self.num_levels = low, high, num_levels
        super().__init__(self.loc.shape, torch.Size(), validate_args=validate_args)

    @property
    def step(self) -> float:
        """The distance of neighbouring levels."""
        return (self.high - self.low) / (self.num_levels - 1)

    def _levels(self, index: torch.Tensor) -> torch.Tensor:
        """Levels by number; rounded as ``k / 255`` is, so that draws equal data bit for bit."""
        return self.low + (self.high - self.low) * index / (self.num_levels - 1)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> _Levels:
        """The levels."""
        return _Levels(self.low, self.high, self.num_levels)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> DiscretizedLogistic:
        """Return the distribution with ``loc`` and ``scale`` expanded to ``batch_shape``."""
        shape = torch.Size(batch_shape)
        return DiscretizedLogistic(
            self.loc.expand(shape),
            self.scale.expand(shape),
            self.low,
            self.high,
            self.num_levels,
            validate_args=False,
        )._with_validation(self._validate_args)

    def _with_validation(self, validate_args: bool) -> DiscretizedLogistic:
        self._validate_args = validate_args
        return self

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Log-probability of levels, of shape ``sample_shape + batch_shape``."""
        if self._validate_args:
            self._validate_sample(value)
        half = self.step / 2
        upper = (value + half - self.loc) / self.scale
        lower = (value - half - self.loc) / self.scale
        log_upper, log_lower = logsigmoid(upper), logsigmoid(-lower)
        inner = log_upper + log_lower + torch.log(-torch.expm1(-self.step / self.scale))
        lowest, highest = value < self.low + half, value > self.high - half
        return torch.where(lowest, log_upper, torch.where(highest, log_lower, inner))

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> torch.Tensor:  # noqa: B008
        """Draw levels, of shape ``sample_shape + batch_shape``."""
        shape = self._extended_shape(torch.Size(sample_shape))
        tiny = torch.finfo(self.loc.dtype).tiny
        uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        logistic = self.loc + self.scale * torch.logit(uniform.clamp(min=tiny))
        position = ((logistic - self.low) / self.step).round()
        return self._levels(position.clamp(0, self.num_levels - 1))

    def enumerate_support(self, expand: bool = True) -> torch.Tensor:
        """All levels, of shape ``(num_levels, *batch_shape)`` (ones where not expanded)."""
        index = torch.arange(self.num_levels, dtype=self.loc.dtype, device=self.loc.device)
        levels = self._levels(index).reshape((-1,) + (1,) * len(self.batch_shape))
        return levels.expand((-1, *self.batch_shape)) if expand else levels

    @property
    def mean(self) -> torch.Tensor:
        """The mean level, summed over all levels."""
        levels = self.enumerate_support(expand=False)
        return (levels * self.log_prob(levels).exp()).sum(0)

    @property
    def variance(self) -> torch.Tensor:
        """The variance of the level, summed over all levels."""
        levels = self.enumerate_support(expand=False)
        return ((levels - self.mean) ** 2 * self.log_prob(levels).exp()).sum(0)
