# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The equation of mixtures of logistic distributions."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from ..nn import as_size
from .equation import Equation
from .roots import increasing_root


class LogisticMixture(Equation):
    r"""The distribution function of a mixture of logistics, its logit, a scale and a shift.

    .. math:: y = e^a \operatorname{logit} F(x) + t, \qquad
        F(x) = \sum_{k=1}^K \pi_k\, \sigma((x - \mu_k) / s_k)

    .. math:: \log |\partial y / \partial x|
        = a + \log p(x) - \log F(x) - \log(1 - F(x)), \qquad p = F'

    The inverse finds the root of :math:`\operatorname{logit} F(x) = l`, which lies between the
    least and the largest of :math:`\mu_k + s_k l`. Its derivatives are those of the implicit
    function. The parameters of a variable are :math:`t`, one number for :math:`a`, and :math:`K`
    each for :math:`\pi` (by softmax), :math:`\mu` and :math:`\log s`; a number :math:`r` becomes
    :math:`r / \sqrt{1 + r^2 / b^2}` for :math:`a` and :math:`\log s`, as in :class:`Affine`, so
    that scales are bounded. Zeros are the identity.

    The way from :math:`x` to :math:`y` is the closed form. In a flow that learns from data that way
    should be the one from the data: take ``iaf(..., equation=LogisticMixture).inv``.

    Args:
        num_components: number of components :math:`K`.
        bound: the largest :math:`|a|` and :math:`|\log s_k|`, :math:`b`.

    Raises:
        ValueError: if ``num_components`` is not a positive whole number, or ``bound`` not positive.

    References:
        Ho, Chen, Srinivas, Duan and Abbeel, Flow++: improving flow-based generative models with
        variational dequantization and architecture design, 2019, arXiv:1902.00275.

    Example:
        >>> import torch
        >>> mixture, x = LogisticMixture(3), torch.linspace(-5, 5, 101)
        >>> y, log_slope = mixture.forward_and_log_slope(x, torch.randn(11))
        >>> bool((y.diff() > 0).all())
        True
        >>> torch.allclose(mixture.forward_and_log_slope(x, torch.zeros(11))[0], x, atol=1e-5)
        True
    """

    def __init__(self, num_components: int = 4, *, bound: float = 5.0) -> None:
        super().__init__()
        self.num_components = as_size(num_components, "num_components")
        if not bound > 0:
            raise ValueError(f"expected a positive bound on the log-scales, got {bound}")
        self.bound = float(bound)
        self.num_parameters = 2 + 3 * self.num_components

    def _terms(self, points: torch.Tensor, parameters: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return t, a, and with the components first log pi, mu and log s."""
        batch = torch.broadcast_shapes(points.shape, parameters.shape[:-1])
        # Sums over a first dimension are much faster than those over a short last one.
        first = parameters.movedim(-1, 0).contiguous()
        first = first.reshape(-1, *(1,) * (len(batch) + 1 - first.dim()), *first.shape[1:])
        ends, components = first.split([2, 3 * self.num_components])
        shift, raw = ends.unbind()
        logits, means, raws = components.chunk(3)
        return shift, self._bounded(raw), logits.log_softmax(0), means, self._bounded(raws)

    def _bounded(self, raw: torch.Tensor) -> torch.Tensor:
        return raw * torch.rsqrt(1 + (raw / self.bound) ** 2)

    def forward_and_log_slope(
        self, x: torch.Tensor, parameters: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Evaluate the distribution function, take the logit, scale and shift."""
        shift, log_scale, *mixture = self._terms(x, parameters)
        logit, log_slope = _logit_and_log_slope(x, *mixture)
        return torch.addcmul(shift, log_scale.exp(), logit), log_scale + log_slope

    def inverse_and_log_slope(
        self, y: torch.Tensor, parameters: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Shift and scale back, and find the quantile of the mixture."""
        shift, log_scale, *mixture = self._terms(y, parameters)
        logit = (y - shift) * torch.exp(-log_scale)

        def residual(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            at_x, log_slope = _logit_and_log_slope(x, *mixture)
            return at_x - logit, log_slope.exp()

        with torch.no_grad():
            _, means, log_scales = mixture
            low, high = torch.addcmul(means, log_scales.exp(), logit).aminmax(dim=0)
        x = increasing_root(residual, low, high)
        return x, -log_scale - _logit_and_log_slope(x, *mixture)[1]

    def extra_repr(self) -> str:
        """Name the sizes in the printed form."""
        return f"num_components={self.num_components}, bound={self.bound}"


def _logit_and_log_slope(
    x: torch.Tensor, log_weights: torch.Tensor, means: torch.Tensor, log_scales: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logit of a mixture's distribution function, and the logarithm of its slope."""
    z = (x - means) * torch.exp(-log_scales)
    log_below = logsigmoid(z)
    log_above = log_below - z
    below, above = log_weights + log_below, log_weights + log_above
    log_cdf, log_survival = torch.logsumexp(below, 0), torch.logsumexp(above, 0)
    log_density = torch.logsumexp(below + (log_above - log_scales), 0)
    return log_cdf - log_survival, log_density - log_cdf - log_survival
