# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Planar flows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.distributions import constraints

from ..nn import as_size
from .parameters import ContextParameters
from .positive import positive_near_one
from .roots import tanh_log_slope, tanh_root
from .transform import Transform


class Planar(Transform):
    r"""A planar flow: it pushes along one direction, as far as a hyperplane says.

    .. math:: f(x) = x + \hat u\, h(w^\top x + b), \qquad h = \tanh

    .. math:: \log |\det \partial f / \partial x| = \log(1 + h'(w^\top x + b)\, w^\top \hat u)

    It is invertible for :math:`w^\top \hat u > -1`, which
    :math:`\hat u = u + (m(w^\top u) - w^\top u)\, w / |w|^2` ensures. Here
    :math:`m(a) = -1 + \log(1 + (e - 1) e^a)`: the paper has :math:`e^a` without the factor, which
    reaches the same maps; with it :math:`u = 0` is the identity. The inverse solves
    :math:`a + w^\top \hat u \tanh a = w^\top y + b` to machine precision.

    Args:
        num_dims: number of dimensions :math:`D`.
        context_dim: number of dimensions of the context; with one, :math:`u`, :math:`w` and
            :math:`b` are the outputs of a network.
        hidden_dims: number of units of every hidden layer of that network.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0).

    References:
        Rezende and Mohamed, Variational inference with normalizing flows, 2015, arXiv:1505.05770.

    Example:
        >>> import torch
        >>> flow, y = Planar(3), 5 * torch.randn(100, 3)
        >>> torch.allclose(flow(flow.inv(y)), y, atol=1e-4)
        True
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(
        self, num_dims: int, *, context_dim: int = 0, hidden_dims: Sequence[int] = (64, 64)
    ) -> None:
        super().__init__()
        size = as_size(num_dims, "num_dims")
        self.domain_shape = self.codomain_shape = (size,)
        self.context_dim = context_dim
        bound = size**-0.5
        initial = {
            "w": torch.empty(size).uniform_(-bound, bound),
            "u": torch.empty(size).uniform_(-bound, bound) / 10,
            "b": torch.zeros(()),
        }
        self.values = ContextParameters(initial, context_dim, hidden_dims)

    def _terms(
        self, context: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the parameters w, u-hat and b, and 1 + w.u-hat."""
        w, u, b = self.values(context)
        product = _dot(u, w)
        q = positive_near_one(product)
        norm = _dot(w, w).clamp_min(torch.finfo(w.dtype).tiny)
        less = (torch.ones_like(q) - q + product) / norm
        return w, torch.addcmul(u, less.unsqueeze(-1), w, value=-1), b, q

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Push by u-hat times the tanh of the distance from the plane."""
        self.check_domain(x, context)
        w, u, b, q = self._terms(context)
        h = torch.tanh(_dot(x, w) + b)
        return torch.addcmul(x, h.unsqueeze(-1), u), tanh_log_slope(q, h)

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Find by how much the point was pushed, and pull it back."""
        self.check_codomain(y, context)
        w, u, b, q = self._terms(context)
        h = torch.tanh(tanh_root(q, _dot(y, w) + b))
        return torch.addcmul(y, h.unsqueeze(-1), u, value=-1), -tanh_log_slope(q, h)


def _dot(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Inner product over the last dimension; a matrix product where all share one vector."""
    return x @ w if w.dim() == 1 else (x * w).sum(-1)


def planar(num_dims: int, *, context_dim: int = 0, hidden_dims: Sequence[int] = (64, 64)) -> Planar:
    """Make a :class:`Planar`, which says what the arguments are and what is raised.

    Example:
        >>> import torch
        >>> flow, x = planar(2), torch.randn(5, 2)
        >>> y, log_det = flow.forward_and_log_det(x)
        >>> torch.allclose(flow.inverse_and_log_det(y)[1], -log_det, atol=1e-5)
        True
    """
    return Planar(num_dims, context_dim=context_dim, hidden_dims=hidden_dims)
