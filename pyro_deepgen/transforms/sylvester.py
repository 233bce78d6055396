# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Sylvester flows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.distributions import constraints

from ..nn import as_size
from .parameters import ContextParameters
from .positive import positive_near_one
from .roots import tanh_log_slope, tanh_root
from .transform import Transform


class Sylvester(Transform):
    r"""A Sylvester flow: :math:`M` planar flows at once, along orthogonal directions.

    .. math:: f(x) = x + Q R\, h(\tilde R Q^\top x + b), \qquad h = \tanh

    .. math:: \log |\det \partial f / \partial x|
        = \sum_{i=1}^M \log(1 + h'(a_i)\, r_{ii} \tilde r_{ii}), \qquad a = \tilde R Q^\top x + b

    :math:`Q` has :math:`M` orthonormal columns, those of a product of Householder reflections;
    :math:`R` and :math:`\tilde R` are upper triangular with
    :math:`r_{ii} \tilde r_{ii} = m(p_i) > -1`, :math:`m(p) = -1 + \log(1 + (e - 1) e^p)`, where
    :math:`p_i` is the product of two free numbers, the second of them :math:`\tilde r_{ii}`. In the
    coordinates :math:`z = Q^\top x` the inverse is a back-substitution: from the last to the first,
    each :math:`a_i` solves :math:`a + r_{ii} \tilde r_{ii} \tanh a = s`, to machine precision.

    Args:
        num_dims: number of dimensions :math:`D`.
        num_units: number :math:`M` of directions, at most :math:`D`; by default :math:`D`.
        num_reflections: number of Householder reflections; by default :math:`M`, with which every
            :math:`Q` can be had.
        context_dim: number of dimensions of the context; with one, the parameters are the outputs
            of a network.
        hidden_dims: number of units of every hidden layer of that network.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0), or
            ``num_units`` exceeds ``num_dims``.

    References:
        van den Berg, Hasenclever, Tomczak and Welling, Sylvester normalizing flows for variational
        inference, 2018, arXiv:1803.05649.

    Example:
        >>> import torch
        >>> flow, y = Sylvester(3, 2), 5 * torch.randn(100, 3)
        >>> torch.allclose(flow(flow.inv(y)), y, atol=1e-4)
        True
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(
        self,
        num_dims: int,
        num_units: int | None = None,
        *,
        num_reflections: int | None = None,
        context_dim: int = 0,
        hidden_dims: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        size = as_size(num_dims, "num_dims")
        self.num_units = size if num_units is None else as_size(num_units, "num_units")
        if self.num_units > size:
            raise ValueError(
                f"expected num_units of at most num_dims = {size}, since the directions are "
                f"orthogonal, got {num_units}"
            )
        reflections = self.num_units if num_reflections is None else num_reflections
        self.domain_shape = self.codomain_shape = (size,)
        self.context_dim = context_dim
        units = self.num_units
        initial = {
            "reflections": torch.randn(size, as_size(reflections, "num_reflections")),
            # The upper triangle is that of R, the strictly lower one is that of R-tilde transposed.
            "triangles": torch.randn(units, units) / 10,
            "diagonal": torch.rand(units) + 0.5,
            "b": torch.zeros(units),
        }
        self.values = ContextParameters(initial, context_dim, hidden_dims)

    def _terms(self, context: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Return Q, R, R-tilde, b and 1 + the products of the diagonals of R and R-tilde."""
        reflections, triangles, diagonal, b = self.values(context)
        free = triangles.diagonal(dim1=-2, dim2=-1)
        product = free * diagonal
        q = positive_near_one(product)
        r = triangles.triu(1) + torch.diag_embed(free * _ratio(product, q))
        r_tilde = triangles.mT.triu(1) + torch.diag_embed(diagonal)
        return _orthonormal(reflections, self.num_units), r, r_tilde, b, q

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Push along all directions, each as far as its hyperplane says."""
        self.check_domain(x, context)
        q_matrix, r, r_tilde, b, q = self._terms(context)
        h = torch.tanh(_times(x, q_matrix @ r_tilde.mT) + b)
        return x + _times(h, (q_matrix @ r).mT), tanh_log_slope(q, h).sum(-1)

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Find, from the last to the first, how far each direction was pushed, and pull back."""
        self.check_codomain(y, context)
        q_matrix, r, r_tilde, b, q = self._terms(context)
        # What is left of Q'y and what has come into a, once later coordinates are known.
        left, come = _times(y, q_matrix), b
        pushes: list[torch.Tensor] = []
        for i in reversed(range(self.num_units)):
            s = r_tilde[..., i, i] * left[..., i] + come[..., i]
            h = torch.tanh(tanh_root(q[..., i], s))
            left = left - h.unsqueeze(-1) * r[..., :, i]
            come = come + left[..., i, None] * r_tilde[..., :, i]
            pushes.append(h)
        h = torch.stack(pushes[::-1], dim=-1)
        return y - _times(h, (q_matrix @ r).mT), -tanh_log_slope(q, h).sum(-1)


def _orthonormal(reflections: torch.Tensor, num_columns: int) -> torch.Tensor:
    """Return the first columns of the product of the reflections along the columns of a matrix.

    The product is I - V T V', where T inverts the triangle of V'V above its halved diagonal.
    """
    v = reflections / torch.linalg.vector_norm(reflections, dim=-2, keepdim=True)
    gram = v.mT @ v
    halves = torch.full_like(gram[..., 0], 0.5)
    top = v[..., :num_columns, :].mT
    inner = torch.linalg.solve_triangular(gram.triu(1) + torch.diag_embed(halves), top, upper=True)
    eye = torch.eye(v.shape[-2], num_columns, dtype=v.dtype, device=v.device)
    columns: torch.Tensor = eye - v @ inner
    return columns


def _ratio(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Return m(p) / p for q = 1 + m(p), by its series where p is near 0."""
    slope = 1 - torch.exp(torch.full_like(p, -1.0))
    small = p.abs() < torch.finfo(p.dtype).eps ** 0.4
    series = slope + slope * (1 - slope) * p / 2
    return torch.where(small, series, (q - 1) / torch.where(small, 1.0, p))


def _times(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Multiply vectors by a matrix, which they share or have one of each."""
    return x @ matrix if matrix.dim() == 2 else (x.unsqueeze(-2) @ matrix).squeeze(-2)


def sylvester(
    num_dims: int,
    num_units: int | None = None,
    *,
    num_reflections: int | None = None,
    context_dim: int = 0,
    hidden_dims: Sequence[int] = (64, 64),
) -> Sylvester:
    """Make a :class:`Sylvester`, which says what the arguments are and what is raised.

    Example:
        >>> import torch
        >>> flow, x = sylvester(4, 2), torch.randn(5, 4)
        >>> y, log_det = flow.forward_and_log_det(x)
        >>> torch.allclose(flow.inverse_and_log_det(y)[1], -log_det, atol=1e-5)
        True
    """
    return Sylvester(
        num_dims,
        num_units,
        num_reflections=num_reflections,
        context_dim=context_dim,
        hidden_dims=hidden_dims,
    )
