# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The real-valued neural autoregressive density estimator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .real_outputs import MixtureOutput
from .shared_weights import SharedWeights


class RNADE(SharedWeights):
    r"""A NADE of real variables, with a mixture of Gaussians or Laplacians for each.

    .. math::
        h_d &= \mathrm{relu}(\rho_d (c + W_{\cdot, <d}\, x_{<d})) \\
        p(x_d \mid x_{<d}) &= \sum_{k=1}^K \alpha_{dk} f(x_d; \mu_{dk}, \sigma_{dk})

    where the logits of :math:`\alpha_d`, the means :math:`\mu_d` and :math:`\log \sigma_d` are
    linear in :math:`h_d`, and the learned factors :math:`\rho_d` make up for sums of more and more
    terms. Standardise the data.

    In training mode the gradients that reach the means are multiplied by :math:`\sigma_{dk}`, as
    in the paper: the gradients of narrow components would be too steep for one learning rate. The
    value is the same; the gradient is no longer that of the log-density, so for a gradient by
    :math:`x` (Hamiltonian Monte Carlo, score matching) use evaluation mode, or
    ``rescale_gradient=False``.

    Args:
        num_variables: number of variables :math:`D`.
        num_hidden: number of hidden units :math:`H`.
        num_components: number of components :math:`K`.
        kind: ``"gaussian"`` or ``"laplace"``.
        order: indices of the variables from the first to the last; by default that of the indices.
        context_dim: number of dimensions of a context, which shifts the biases of all units.
        rescale_gradient: whether gradients of means are rescaled in training mode.
        validate_args: whether ``log_prob`` checks its argument.

    Raises:
        ValueError: if a size is not a positive whole number, the order is not a permutation, or the
            kind is unknown.

    References:
        Uria, Murray and Larochelle, RNADE: the real-valued neural autoregressive
        density-estimator, 2013, arXiv:1306.0186.

    Example:
        >>> import torch
        >>> rnade, steps = RNADE(2, 8, 3), torch.linspace(-20, 20, 801)
        >>> p = rnade.log_prob(torch.cartesian_prod(steps, steps)).exp()
        >>> bool((p.sum() * 0.05**2 - 1).abs() < 1e-3)
        True
    """

    def __init__(
        self,
        num_variables: int,
        num_hidden: int,
        num_components: int = 10,
        kind: str = "gaussian",
        *,
        order: Sequence[int] | None = None,
        context_dim: int = 0,
        rescale_gradient: bool = True,
        validate_args: bool | None = None,
    ) -> None:
        output = MixtureOutput(num_components, kind)
        super().__init__(
            num_variables,
            num_hidden,
            output,
            order=order,
            context_dim=context_dim,
            validate_args=validate_args,
        )
        self.rescale_gradient = rescale_gradient
        self.activation_scale = nn.Parameter(torch.ones(self.event_shape))
        with torch.no_grad():
            nn.init.uniform_(self.in_bias, -0.5, 0.5)  # at 0 all units would bend at one point
            self.out_bias[:, num_components : 2 * num_components] = torch.randn(
                num_variables, num_components
            )  # apart, or the components would learn the same

    def activate(self, sums: torch.Tensor, variables: torch.Tensor) -> torch.Tensor:
        """Rectified units of scaled sums."""
        return (sums * self.activation_scale.index_select(0, variables).unsqueeze(-1)).relu()

    def conditionals(
        self, x: torch.Tensor, context: torch.Tensor | None = None, component: int = 0
    ) -> torch.Tensor:
        """Parameters ``(*batch, D, 3 K)`` from values ``(*batch, D)``, in :math:`O(DH)`."""
        parameters = super().conditionals(x, context, component)
        if not (self.rescale_gradient and self.training and torch.is_grad_enabled()):
            return parameters
        logits, loc, log_scale = parameters.chunk(3, -1)
        fixed = loc.detach()
        loc = fixed + log_scale.detach().exp() * (loc - fixed)
        return torch.cat([logits, loc, log_scale], -1)
