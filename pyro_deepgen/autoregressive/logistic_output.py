# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Mixtures of discretised logistics for the levels of a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..distributions import DiscretizedLogistic
from .outputs import Output, pick_class


@dataclass(frozen=True)
class LogisticMixtureOutput(Output):
    r"""A variable with the levels :math:`0, 1/(L-1), \dots, 1`, a mixture of logistics.

    .. math:: P(x_d) = \sum_{k=1}^K \alpha_{dk} \Big[
        \sigma\Big(\frac{x_d + \Delta/2 - m_{dk}}{s_{dk}}\Big)
        - \sigma\Big(\frac{x_d - \Delta/2 - m_{dk}}{s_{dk}}\Big) \Big]

    as in :class:`~pyro_deepgen.distributions.DiscretizedLogistic`: the lowest level has all the
    mass below it, the highest all above. A variable's parameters are the logits of :math:`\alpha`,
    then :math:`2 m - 1` (so that 0 is the middle of the levels) and the logarithms of the scales.
    Scales are in the units of the data, and a tenth of a level is added to each.

    The channels of a pixel may share one component, and each location move linearly with the
    channels before it (:meth:`couple`).

    Args:
        num_components: :math:`K`.
        num_levels: :math:`L`.

    Raises:
        ValueError: if ``num_components < 1`` or ``num_levels < 2``.

    References:
        Salimans, Karpathy, Chen and Kingma, PixelCNN++: improving the PixelCNN with discretized
        logistic mixture likelihood and other modifications, 2017, arXiv:1701.05517.

    Example:
        >>> import torch
        >>> output, theta = LogisticMixtureOutput(3, num_levels=8), torch.randn(9)
        >>> p = output.log_prob(theta.expand(8, 9), torch.arange(8) / 7).exp()
        >>> torch.allclose(p.sum(), torch.tensor(1.0))
        True
    """

    num_components: int
    num_levels: int = 256

    def __post_init__(self) -> None:
        if self.num_components < 1 or self.num_levels < 2:
            raise ValueError(
                "expected 1 component or more and 2 levels or more, got "
                f"num_components={self.num_components} and num_levels={self.num_levels}"
            )

    @property
    def num_parameters(self) -> int:
        """A logit, a location and a log-scale for each component."""
        return 3 * self.num_components

    @property
    def support(self) -> Any:
        """The levels."""
        zero = torch.zeros(())
        return DiscretizedLogistic(zero, zero + 1, 0.0, 1.0, self.num_levels, False).support

    @property
    def num_values(self) -> int:
        """The number of levels."""
        return self.num_levels

    def log_prob(self, parameters: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Log-probability of levels ``(...)`` under parameters ``(..., 3 K)``."""
        logits, loc, log_scale = parameters.chunk(3, -1)
        scores = self.component_log_prob(loc, log_scale, value)
        return torch.logsumexp(logits.log_softmax(-1) + scores, -1)

    def component_log_prob(
        self, loc: torch.Tensor, log_scale: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Log-probability of levels ``(...)`` in each component, ``(..., K)``."""
        scale = log_scale.exp() + 0.1 / (self.num_levels - 1)
        logistic = DiscretizedLogistic(
            (loc + 1) / 2, scale, 0.0, 1.0, self.num_levels, validate_args=False
        )
        return logistic.log_prob(value.unsqueeze(-1))

    def noise(self, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Two uniform numbers for each draw, the second within the open interval."""
        uniform = torch.rand((*shape, 2), dtype=like.dtype, device=like.device)
        return uniform.clamp(min=torch.finfo(like.dtype).tiny)

    def draw(self, parameters: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """A component by the first number, and the level nearest to a draw of it by the second."""
        logits, loc, log_scale = parameters.chunk(3, -1)
        uniform, standard = noise.split(1, -1)
        k = pick_class(logits, uniform).unsqueeze(-1)
        scale = log_scale.gather(-1, k).exp() + 0.1 / (self.num_levels - 1)
        logistic = (loc.gather(-1, k) + 1) / 2 + scale * torch.logit(standard)
        return self.level((logistic.squeeze(-1) * (self.num_levels - 1)).round())

    def level(self, number: torch.Tensor) -> torch.Tensor:
        """The nearest level of a number, rounded as ``k / 255`` is."""
        # What rounds to -0 becomes 0.
        return number.clamp(0, self.num_levels - 1).abs() / (self.num_levels - 1)

    # ------------------------------------------------ the channels of a pixel

    def num_pixel_parameters(self, num_channels: int) -> int:
        """Number of parameters of a pixel for :meth:`couple`."""
        num_pairs = num_channels * (num_channels - 1) // 2
        return self.num_components * (1 + 2 * num_channels + num_pairs)

    def couple(
        self, parameters: torch.Tensor, earlier: torch.Tensor, num_channels: int
    ) -> torch.Tensor:
        r"""Parameters of a pixel's next channel, given the channels before it.

        .. math:: p(x_1, \dots, x_C) = \sum_k \alpha_k \prod_c
            p_k\Big(x_c;\, \mu_{ck} + \sum_{b < c} \tanh(\gamma_{cbk})\, (2 x_b - 1),\,
            s_{ck}\Big)

        where all channels share a component. As a product of conditionals, the logits of
        channel :math:`c` are :math:`\log \alpha_k + \sum_{b < c} \log p_k(x_b)`.

        Args:
            parameters: of the pixel: logits :math:`(K)`, then for each channel its locations
                :math:`(K)` and log-scales :math:`(K)`, then the :math:`\gamma` of each pair,
                ``(..., num_pixel_parameters(num_channels))``.
            earlier: the channels :math:`b < c`, ``(..., c)``.
            num_channels: number of channels :math:`C`.

        Returns:
            Parameters of the channel, ``(..., 3 K)``.
        """
        sizes = [1, 2 * num_channels, num_channels * (num_channels - 1) // 2]
        logits, own, slopes = parameters.split([self.num_components * n for n in sizes], -1)
        own = own.unflatten(-1, (2 * num_channels, self.num_components))
        slopes = slopes.unflatten(-1, (sizes[-1], self.num_components)).tanh()
        logits = logits.log_softmax(-1)
        for channel in range(earlier.shape[-1] + 1):
            first = channel * (channel - 1) // 2
            loc, log_scale = own[..., 2 * channel, :], own[..., 2 * channel + 1, :]
            if channel:
                known = (2 * earlier[..., :channel] - 1).unsqueeze(-1)
                loc = loc + (slopes[..., first : first + channel, :] * known).sum(-2)
            if channel < earlier.shape[-1]:
                logits = logits + self.component_log_prob(loc, log_scale, earlier[..., channel])
        return torch.cat([logits, loc, log_scale], -1)
