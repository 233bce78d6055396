# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Logits of values in the unit interval."""

from __future__ import annotations

from math import log1p

import torch
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from .transform import Transform


class Logit(Transform):
    r"""Maps real numbers to the unit interval; its inverse takes the logit of the data.

    .. math:: x = \mathrm{logit}(\alpha + (1 - 2 \alpha) y), \qquad
        y = \frac{\sigma(x) - \alpha}{1 - 2 \alpha}, \qquad
        \log |\partial y / \partial x| = \log \sigma(x) + \log \sigma(-x) - \log (1 - 2 \alpha)

    Data at 0 and 1 get finite logits where :math:`\alpha` is above 0. The image of the real line is
    then a little wider than the unit interval: it reaches :math:`\alpha / (1 - 2 \alpha)` beyond
    either end. With :math:`\alpha = 0`, values outside of the open interval are moved to the next
    number inside. It acts on every variable by itself (there are no event dimensions).

    Args:
        alpha: how far data are kept from the ends, :math:`\alpha`, from 0 to below 1/2.

    Raises:
        ValueError: if ``alpha`` is out of its range.

    References:
        Dinh, Sohl-Dickstein and Bengio, Density estimation using Real NVP, 2016, arXiv:1605.08803.

        Papamakarios, Pavlakou and Murray, Masked autoregressive flow for density estimation, 2017,
        arXiv:1705.07057.

    Example:
        >>> import torch
        >>> logit, y = Logit(0.05), torch.tensor([0.0, 0.5, 1.0])
        >>> x = logit.inv(y)
        >>> bool(x.isfinite().all()), torch.allclose(logit(x), y, atol=1e-6)
        (True, True)
        >>> x = torch.tensor([-1e4, 1e4])
        >>> logit.log_abs_det_jacobian(x, logit(x)).round().tolist()
        [-10000.0, -10000.0]
    """

    domain = constraints.real

    def __init__(self, alpha: float = 0.0) -> None:
        if not 0 <= alpha < 0.5:
            raise ValueError(f"expected alpha from 0 to below 1/2, got {alpha}")
        super().__init__()
        self.alpha = float(alpha)
        self.scale = 1 - 2 * self.alpha
        beyond = self.alpha / self.scale
        self.ends = (-beyond, 1 + beyond)
        self.codomain = constraints.interval(*self.ends)

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take the sigmoid, and stretch it."""
        self.check_domain(x, context)
        y = ((x.sigmoid() - self.alpha) / self.scale).clamp(*self.ends)  # if rounded to beyond
        return y, logsigmoid(x) + logsigmoid(-x) - log1p(-2 * self.alpha)

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compress the values, and take the logit."""
        self.check_codomain(y, context)
        info = torch.finfo(y.dtype)
        # Each from its own end, where the other would have lost its digits.
        low = (self.alpha + self.scale * y).clamp(min=info.tiny).log()
        high = (self.alpha + self.scale * (1 - y)).clamp(min=info.eps / 2).log()
        return low - high, log1p(-2 * self.alpha) - low - high

    def extra_repr(self) -> str:
        """Name alpha in the printed form."""
        return f"alpha={self.alpha}"
