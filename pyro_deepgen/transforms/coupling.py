# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Coupling layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.distributions import constraints

from ..nn import apply_batched
from .equation import Equation
from .splits import make_split
from .transform import Transform


class Coupling(Transform):
    r"""A coupling layer: some variables stay, and say how each of the others changes.

    .. math:: y_A = x_A, \qquad y_i = g(x_i; \theta_i(x_A)) \text{ for } i \in B, \qquad
        \log |\det \partial y / \partial x| = \sum_{i \in B} \log |\partial y_i / \partial x_i|

    Both directions call the network once. What the network sees, and what it gives, depends on the
    mask. Where the mask cuts the event in two along its first dimension (halves of a vector or of
    the channels), and for vectors always, it sees the variables kept and gives the parameters of
    those changed, and no others are computed. Else (checkerboard) it sees the whole image, with
    zeros in the place of what changes, and gives parameters for all of it.

    Args:
        equation: the map :math:`g` of one variable.
        network: a function from the variables kept ``(N, *kept_shape)``, and with a context also
            ``(N, context_dim)``, to ``(N, *changed_shape, equation.num_parameters)``. An attribute
            ``broadcasts = True`` says that it takes any batch shapes.
        mask: truth values of the event's shape, ``(D,)`` or ``(C, H, W)``, true where a variable
            is kept.
        context_dim: number of dimensions of the context that the network takes.

    Raises:
        ValueError: if the mask is no tensor of truth values, or keeps all variables or none; in a
            pass, if the network's output has the wrong shape.

    References:
        Dinh, Krueger and Bengio, NICE: Non-linear independent components estimation, 2014,
        arXiv:1410.8516.

        Dinh, Sohl-Dickstein and Bengio, Density estimation using Real NVP, 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> from pyro_deepgen.nn import CouplingMLP
        >>> from pyro_deepgen.transforms import Affine, halves_mask
        >>> network = CouplingMLP(2, (16,), 1, Affine.num_parameters)
        >>> layer, x = Coupling(Affine(), network, halves_mask(3)), torch.randn(5, 3)
        >>> y, log_det = layer.forward_and_log_det(x)
        >>> torch.equal(y[:, :2], x[:, :2]), torch.allclose(layer.inv(y), x, atol=1e-5)
        (True, True)
        >>> matrix = torch.autograd.functional.jacobian(layer, x[0])
        >>> torch.allclose(torch.logdet(matrix), log_det[0], atol=1e-5)
        True
    """

    def __init__(
        self,
        equation: Equation,
        network: Callable[..., torch.Tensor],
        mask: torch.Tensor,
        *,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        self.split = make_split(mask)
        self.equation = equation
        self.network = network
        self.domain_shape = self.codomain_shape = tuple(mask.shape)
        self.domain = self.codomain = constraints.independent(constraints.real, mask.dim())
        self.context_dim = context_dim
        self._theta_shape = (*self.split.changed_shape, equation.num_parameters)

    def _theta(self, kept: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        expected = self._theta_shape
        if context is None and kept.dim() == len(expected):  # nothing to flatten or to expand
            parameters: torch.Tensor = self.network(kept)
            fits = parameters.shape == (kept.shape[0], *expected)
        else:
            contexts = () if context is None else (context,)
            parameters = apply_batched(self.network, kept, len(expected) - 1, *contexts)
            fits = parameters.shape[parameters.dim() - len(expected) :] == expected
        if not fits:
            raise ValueError(
                f"expected the network to give {self.equation.num_parameters} parameters for each "
                f"variable that changes, in a tensor whose last dimensions are "
                f"{expected}, got shape {tuple(parameters.shape)}; it saw the variables "
                f"kept, of shape {self.split.kept_shape}"
            )
        return parameters

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Change the variables that are not kept."""
        self.check_domain(x, context)
        split = self.split  # a module's modules are looked up anew each time
        kept, changed = split.apart(x)
        parameters = self._theta(kept, context)
        return split.together(kept, *self.equation.forward_and_log_slope(changed, parameters))

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Change them back: the variables kept, and so the parameters, are the same."""
        self.check_codomain(y, context)
        split = self.split
        kept, changed = split.apart(y)
        parameters = self._theta(kept, context)
        return split.together(kept, *self.equation.inverse_and_log_slope(changed, parameters))
