# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Affine maps by a Cholesky factor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.distributions import constraints
from torch.nn.functional import pad

from ..nn import as_size
from .parameters import ContextParameters
from .transform import Transform


class CholeskyAffine(Transform):
    r"""An affine map by a lower triangular matrix with a positive diagonal.

    .. math:: f(x) = \mu + L x, \qquad \log |\det \partial f / \partial x| = \sum_i \log l_{ii}

    It turns standard normal noise into the normal distribution of mean :math:`\mu` and covariance
    :math:`L L^\top`. The parameters are :math:`\mu`, the :math:`\log l_{ii}` and the numbers below
    the diagonal.

    Args:
        num_dims: number of dimensions :math:`D`.
        loc: starting value of :math:`\mu`, of shape ``(D,)``; by default 0.
        scale_tril: starting value of :math:`L`, of shape ``(D, D)``; by default the identity.
        context_dim: number of dimensions of the context; with one, the parameters are the outputs
            of a network.
        hidden_dims: number of units of every hidden layer of that network.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0), ``loc`` has
            another shape, or ``scale_tril`` is not a lower triangular matrix with a positive
            diagonal.

    Example:
        >>> import torch
        >>> tril = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
        >>> x, flow = torch.randn(5, 2), CholeskyAffine(2, scale_tril=tril)
        >>> torch.allclose(flow(x), x @ tril.T), bool(flow.forward_and_log_det(x)[1].exp()[0] == 6)
        (True, True)
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(
        self,
        num_dims: int,
        *,
        loc: torch.Tensor | None = None,
        scale_tril: torch.Tensor | None = None,
        context_dim: int = 0,
        hidden_dims: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        size = as_size(num_dims, "num_dims")
        loc = torch.zeros(size) if loc is None else loc
        tril = torch.eye(size) if scale_tril is None else scale_tril
        if loc.shape != (size,):
            raise ValueError(f"expected loc of shape ({size},), got {tuple(loc.shape)}")
        if tril.shape != (size, size) or not constraints.lower_cholesky.check(tril):
            raise ValueError(
                f"expected as scale_tril a lower triangular ({size}, {size}) matrix with a "
                f"positive diagonal, such as torch.linalg.cholesky gives, got {tril}"
            )
        self.domain_shape = self.codomain_shape = (size,)
        self.context_dim = context_dim
        row, column = torch.tril_indices(size, size, -1)
        place = torch.zeros(size, size, dtype=torch.long)
        place[row, column] = torch.arange(1, len(row) + 1)
        self.place: torch.Tensor  # where each entry stands among a zero and those below
        self.register_buffer("place", place, persistent=False)
        initial = {"loc": loc, "log_diagonal": tril.diagonal().log(), "below": tril[row, column]}
        self.values = ContextParameters(initial, context_dim, hidden_dims)

    def _terms(
        self, context: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the shift, the triangular matrix, and its log-determinant."""
        loc, log_diagonal, below = self.values(context)
        tril = pad(below, (1, 0))[..., self.place] + torch.diag_embed(log_diagonal.exp())
        return loc, tril, log_diagonal.sum(-1)

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Multiply by the matrix and shift."""
        self.check_domain(x, context)
        loc, tril, log_det = self._terms(context)
        y = x @ tril.mT if tril.dim() == 2 else (tril @ x.unsqueeze(-1)).squeeze(-1)
        y = y + loc
        return y, log_det.expand(y.shape[:-1])

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Shift back and solve the triangular system."""
        self.check_codomain(y, context)
        loc, tril, log_det = self._terms(context)
        difference = y - loc
        if tril.dim() == 2:  # all points are columns of one system
            flat = difference.reshape(-1, difference.shape[-1])
            x = torch.linalg.solve_triangular(tril.mT, flat, upper=True, left=False)
            x = x.reshape(difference.shape)
        else:
            column = difference.unsqueeze(-1)
            x = torch.linalg.solve_triangular(tril, column, upper=False).squeeze(-1)
        return x, -log_det.expand(x.shape[:-1])


def cholesky_affine(
    num_dims: int, *, context_dim: int = 0, hidden_dims: Sequence[int] = (64, 64)
) -> CholeskyAffine:
    r"""Make an affine map by a Cholesky factor that starts as the identity.

    Args:
        num_dims: number of dimensions.
        context_dim: number of dimensions of the context, 0 for none.
        hidden_dims: number of units of every hidden layer of the network of the context.

    Returns:
        A :class:`CholeskyAffine`.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0).

    Example:
        >>> import torch
        >>> x = torch.randn(5, 3)
        >>> torch.equal(cholesky_affine(3)(x), x)
        True
    """
    return CholeskyAffine(num_dims, context_dim=context_dim, hidden_dims=hidden_dims)
