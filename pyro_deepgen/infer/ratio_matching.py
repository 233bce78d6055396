# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Ratio matching: score matching for binary data."""

from __future__ import annotations

import torch

from .single_flips import SingleFlips


class RatioMatching(SingleFlips):
    r"""Match the ratios of the probabilities of binary states that are one flip apart.

    .. math::
        J = \sum_n \sum_i g\Bigl(\frac{p(x)}{p(x^{(i)})}\Bigr)^2
          = \sum_n \sum_i \bigl(1 - p(x_i | x_{-i})\bigr)^2, \quad g(u) = \frac1{1 + u}

    with :math:`x^{(i)}` the datum with unit :math:`i` flipped. Up to a constant it is the expected
    squared distance between :math:`g` of the ratios of the model and of those of the data, and its
    minimum is at the density of the data where the energy can be that of it.

    Args:
        model: see :class:`SingleFlips`.
        num_sites: see :class:`SingleFlips`.

    Raises:
        ValueError: see :class:`SingleFlips`.

    References:
        Some extensions of score matching, Aapo Hyvärinen, 2007.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> coin = dist.Bernoulli(torch.tensor([0.8])).to_event(1)
        >>> loss = RatioMatching(coin)
        >>> round(float(loss(torch.ones(1, 1))), 4), round(float(loss(torch.zeros(1, 1))), 4)
        (0.04, 0.64)
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The loss of a batch ``(B, *event)``, summed over it."""
        differences, share = self.differences(x)
        return share * (-differences).sigmoid().square().sum()
