# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Distributions of the data given a decoder's output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn
from torch.nn.functional import softplus

from ..distributions import DiscretizedLogistic
from .conditional import Conditional, check_width


def _softplus_inverse(y: float) -> float:
    return y + math.log(-math.expm1(-y))


class BernoulliLikelihood(Conditional):
    r"""Independent binary variables, :math:`p(x_i = 1) = \sigma(a_i)` with logits :math:`a`.

    The decoder's output has the shape of the data. Data are 0 or 1, in floating point: binarise
    grey images first.

    Example:
        >>> import torch
        >>> d = BernoulliLikelihood().condition(torch.zeros(4))
        >>> d.mean.tolist()
        [0.5, 0.5, 0.5, 0.5]
    """

    def params_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """One logit a variable."""
        return tuple(event_shape)

    def condition(self, context: torch.Tensor) -> TorchDistributionMixin:
        """Logits ``(*batch, *data)`` to a Bernoulli distribution."""
        bernoulli: TorchDistributionMixin = dist.Bernoulli(logits=context)
        return bernoulli


class GaussianLikelihood(Conditional):
    r"""Independent Gaussian variables, :math:`x_i \sim N(\mu_i, \sigma_i^2)`.

    With a learned variance, :math:`\sigma = \sigma_{\min} + \mathrm{softplus}(r)`. The floor
    :math:`\sigma_{\min}` is needed: where a pixel never changes, its density grows without bound
    as :math:`\sigma \to 0`, and so does the whole likelihood. When learned standard deviations
    come within a tenth of the floor, the floor, and not the data, decides the likelihood;
    :meth:`report` says so (``fit`` shows it as a warning), and the figure must not be quoted
    without its floor.

    Args:
        variance: ``"fixed"`` (``scale`` for all), ``"shared"`` (one learned number) or
            ``"decoded"`` (one learned number a variable and datum: the decoder's output has a
            last dimension of 2, for :math:`\mu` and :math:`r`).
        scale: the fixed standard deviation, or the initial shared one, in the units of the data.
        floor: :math:`\sigma_{\min} > 0`, in the units of the data.

    Raises:
        ValueError: if ``variance`` is unknown, or if ``scale <= floor`` or ``floor <= 0``.

    Example:
        >>> import torch
        >>> likelihood = GaussianLikelihood("shared", scale=0.5, floor=0.01)
        >>> round(float(likelihood.condition(torch.zeros(3)).stddev[0].detach()), 6)
        0.5
    """

    fixed_scale: torch.Tensor
    _share_at_floor: torch.Tensor

    def __init__(
        self,
        variance: Literal["fixed", "shared", "decoded"] = "fixed",
        *,
        scale: float = 1.0,
        floor: float = 1e-2,
    ) -> None:
        super().__init__()
        if variance not in ("fixed", "shared", "decoded"):
            raise ValueError(f'expected variance "fixed", "shared" or "decoded", got {variance!r}')
        if floor <= 0 or (variance != "decoded" and scale <= floor):
            raise ValueError(
                f"expected 0 < floor < scale, got floor={floor} and scale={scale}; both are "
                "standard deviations in the units of the data"
            )
        self.variance, self.floor = variance, floor
        if variance == "fixed":
            self.register_buffer("fixed_scale", torch.tensor(scale))
        elif variance == "shared":
            self.raw_scale = nn.Parameter(torch.tensor(_softplus_inverse(scale - floor)))
        self.register_buffer("_share_at_floor", torch.tensor(0.0), persistent=False)

    def params_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the data, with a last dimension of 2 for a decoded variance."""
        shape = tuple(event_shape)
        return (*shape, 2) if self.variance == "decoded" else shape

    def condition(self, context: torch.Tensor) -> TorchDistributionMixin:
        """Means, or means and raw scales in a last dimension of 2, to a normal distribution."""
        if self.variance == "decoded":
            check_width(context, 2, 'GaussianLikelihood("decoded")', "the mean and the raw scale")
        if self.variance == "fixed":
            return dist.Normal(context, self.fixed_scale)
        if self.variance == "shared":
            loc, excess = context, softplus(self.raw_scale)
        else:
            loc, excess = context[..., 0], softplus(context[..., 1])
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                share = (excess < 0.1 * self.floor).to(self._share_at_floor.dtype).mean()
                self._share_at_floor.copy_(torch.maximum(self._share_at_floor, share))
        return dist.Normal(loc, self.floor + excess)

    def report(self) -> str | None:
        """Say whether the floor was reached since the last report (synchronises once)."""
        share = float(self._share_at_floor)
        self._share_at_floor.zero_()
        if share == 0:
            return None
        return (
            f"the floor {self.floor:g} of the Gaussian likelihood's standard deviation was reached "
            f"by up to {share:.1%} of the variables of a batch: the likelihood there is set by the "
            "floor, not by the data; raise the floor to the noise you believe in, add noise to the "
            "data (dequantise), or drop variables that never change"
        )


class CategoricalLikelihood(Conditional):
    r"""Independent variables with ``num_classes`` values, :math:`p(x_i = k) \propto e^{a_{ik}}`.

    The decoder's output has a last dimension of ``num_classes``; data are whole numbers in
    ``{0, ..., num_classes - 1}`` (of any dtype).

    Args:
        num_classes: number of values.

    Raises:
        ValueError: if ``num_classes < 2``.

    Example:
        >>> import torch
        >>> CategoricalLikelihood(3).condition(torch.zeros(4, 3)).probs.sum(-1).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"expected at least 2 classes, got {num_classes}")
        self.num_classes = num_classes

    def params_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the data and a last dimension of ``num_classes``."""
        return (*event_shape, self.num_classes)

    def condition(self, context: torch.Tensor) -> TorchDistributionMixin:
        """Logits ``(*batch, *data, num_classes)`` to a categorical distribution."""
        check_width(context, self.num_classes, "CategoricalLikelihood", "the logits")
        return dist.Categorical(logits=context)


class DiscretizedLogisticLikelihood(Conditional):
    r"""Independent grey levels, a logistic density summed over each level.

    The decoder's output has a last dimension of 2: the location, and the logarithm of the scale
    in units of the range ``high - low``, which starts at ``initial_scale``. The scale is bounded
    below by a tenth of a level, where the distribution is a single level.

    Args:
        low: the lowest level.
        high: the highest level.
        num_levels: number of levels.
        initial_scale: scale for an output of 0, as a share of ``high - low``.

    Raises:
        ValueError: if ``num_levels < 2``, ``low >= high`` or ``initial_scale <= 0``.

    Example:
        >>> import torch
        >>> likelihood = DiscretizedLogisticLikelihood(num_levels=17)
        >>> d = likelihood.condition(torch.zeros(4, 2))
        >>> torch.allclose(d.log_prob(d.enumerate_support()).exp().sum(0), torch.ones(4))
        True
    """

    def __init__(
        self,
        low: float = 0.0,
        high: float = 1.0,
        num_levels: int = 256,
        initial_scale: float = 0.1,
    ) -> None:
        super().__init__()
        if num_levels < 2 or not low < high or not initial_scale > 0:
            raise ValueError(
                "expected num_levels of 2 or more, low < high and initial_scale > 0, got "
                f"num_levels={num_levels}, low={low}, high={high} and "
                f"initial_scale={initial_scale}"
            )
        self.low, self.high, self.num_levels = low, high, num_levels
        self.initial_scale = initial_scale

    def params_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the data and a last dimension of 2."""
        return (*event_shape, 2)

    def condition(self, context: torch.Tensor) -> TorchDistributionMixin:
        """Locations and log-scales ``(*batch, *data, 2)`` to a discretised logistic."""
        check_width(context, 2, "DiscretizedLogisticLikelihood", "the location and the log-scale")
        width = self.high - self.low
        middle = (self.high + self.low) / 2
        floor = 0.1 * width / (self.num_levels - 1)
        scale = floor + self.initial_scale * width * context[..., 1].exp()
        loc = middle + width * context[..., 0]
        return DiscretizedLogistic(loc, scale, self.low, self.high, self.num_levels)
