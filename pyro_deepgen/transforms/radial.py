# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Radial flows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.distributions import constraints
from torch.linalg import vector_norm

from ..nn import as_size
from .parameters import ContextParameters
from .positive import positive_near_one
from .transform import Transform


class Radial(Transform):
    r"""A radial flow: it draws points towards a center, or drives them away.

    .. math:: f(x) = x + \hat\beta\, \frac{x - x_0}{\alpha + r}, \qquad r = |x - x_0|

    .. math:: \log |\det \partial f / \partial x|
        = (D - 1) \log\left(1 + \frac{\hat\beta}{\alpha + r}\right)
        + \log\left(1 + \frac{\hat\beta \alpha}{(\alpha + r)^2}\right)

    It is invertible for :math:`\hat\beta > -\alpha`, which
    :math:`\hat\beta = \alpha\, m(\beta)` with :math:`m(\beta) = -1 + \log(1 + (e - 1) e^\beta)`
    ensures; :math:`\beta = 0` is the identity. The inverse finds :math:`r` from
    :math:`R = |y - x_0|` by :math:`r^2 + (\alpha + \hat\beta - R)\, r - \alpha R = 0`.

    Args:
        num_dims: number of dimensions :math:`D`.
        context_dim: number of dimensions of the context; with one, :math:`x_0`,
            :math:`\log \alpha` and :math:`\beta` are the outputs of a network.
        hidden_dims: number of units of every hidden layer of that network.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0).

    References:
        Rezende and Mohamed, Variational inference with normalizing flows, 2015, arXiv:1505.05770.

    Example:
        >>> import torch
        >>> flow, y = Radial(3), 5 * torch.randn(100, 3)
        >>> torch.allclose(flow(flow.inv(y)), y, atol=1e-4)
        True
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(
        self, num_dims: int, *, context_dim: int = 0, hidden_dims: Sequence[int] = (64, 64)
    ) -> None:
        super().__init__()
        self.size = as_size(num_dims, "num_dims")
        self.domain_shape = self.codomain_shape = (self.size,)
        self.context_dim = context_dim
        bound = self.size**-0.5
        initial = {
            "center": torch.empty(self.size).uniform_(-bound, bound),
            "log_alpha": torch.zeros(()),
            "beta": torch.empty(()).uniform_(-0.1, 0.1),
        }
        self.values = ContextParameters(initial, context_dim, hidden_dims)

    def _terms(
        self, context: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the center, alpha and alpha + beta-hat."""
        center, log_alpha, beta = self.values(context)
        alpha = log_alpha.exp()
        return center, alpha, alpha * positive_near_one(beta)

    def _log_det(self, r: torch.Tensor, alpha: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        """Log-determinant as logarithms of sums of positive terms, which cannot cancel."""
        inverse = 1 / (alpha + r)
        along = torch.log((alpha * total + r * (2 * alpha + r)) * (inverse * inverse))
        return (self.size - 1) * torch.log((total + r) * inverse) + along

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale the difference from the center by a function of its length."""
        self.check_domain(x, context)
        center, alpha, total = self._terms(context)
        difference = x - center
        r = vector_norm(difference, dim=-1)
        push = ((total - alpha) / (alpha + r)).unsqueeze(-1)
        return torch.addcmul(x, push, difference), self._log_det(r, alpha, total)

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Solve the quadratic for the length, in the form that does not cancel."""
        self.check_codomain(y, context)
        center, alpha, total = self._terms(context)
        difference = y - center
        length = vector_norm(difference, dim=-1)
        linear = total - length
        larger = linear.abs() + torch.sqrt(linear * linear + 4 * alpha * length)
        r = torch.where(linear > 0, 2 * alpha * length / larger, larger / 2)
        pull = ((alpha - total) / (total + r)).unsqueeze(-1)
        return torch.addcmul(y, pull, difference), -self._log_det(r, alpha, total)


def radial(num_dims: int, *, context_dim: int = 0, hidden_dims: Sequence[int] = (64, 64)) -> Radial:
    """Make a :class:`Radial`, which says what the arguments are and what is raised.

    Example:
        >>> import torch
        >>> flow, x = radial(2), torch.randn(5, 2)
        >>> y, log_det = flow.forward_and_log_det(x)
        >>> torch.allclose(flow.inverse_and_log_det(y)[1], -log_det, atol=1e-5)
        True
    """
    return Radial(num_dims, context_dim=context_dim, hidden_dims=hidden_dims)
