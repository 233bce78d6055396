# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Families of one real variable's distribution given the variables before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributions import constraints

from .outputs import Output, pick_class


@dataclass(frozen=True)
class GaussianOutput(Output):
    r"""A real variable, :math:`x_d \sim N(\mu_d, e^{2 s_d})` with :math:`\theta_d = (\mu_d, s_d)`.

    Draws are differentiable: :math:`x_d = \mu_d + e^{s_d} \epsilon_d`.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> output, theta, x = GaussianOutput(), torch.tensor([0.3, -0.5]), torch.tensor(1.2)
        >>> normal = dist.Normal(theta[0], theta[1].exp())
        >>> torch.allclose(output.log_prob(theta, x), normal.log_prob(x))
        True
    """

    has_rsample = True

    @property
    def num_parameters(self) -> int:
        """The mean and the logarithm of the standard deviation."""
        return 2

    @property
    def support(self) -> Any:
        """The real numbers."""
        return constraints.real

    def log_prob(self, parameters: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Log-density of values ``(...)`` under means and log-scales ``(..., 2)``."""
        loc, log_scale = parameters.unbind(-1)
        return _gaussian(value, loc, log_scale)

    def noise(self, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """One standard normal number for each draw."""
        return torch.randn((*shape, 1), dtype=like.dtype, device=like.device)

    def draw(self, parameters: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The number scaled and shifted."""
        loc, log_scale = parameters.unbind(-1)
        return loc + log_scale.exp() * noise.squeeze(-1)


_HALF_LOG_TWO_PI = 0.9189385332046727
_LOG_TWO = 0.6931471805599453


def _gaussian(x: torch.Tensor, loc: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    return -0.5 * ((x - loc) * (-log_scale).exp()) ** 2 - log_scale - _HALF_LOG_TWO_PI


def _laplace(x: torch.Tensor, loc: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    return -((x - loc) * (-log_scale).exp()).abs() - log_scale - _LOG_TWO


@dataclass(frozen=True)
class MixtureOutput(Output):
    r"""A real variable with a mixture of Gaussians or Laplacians.

    .. math:: p(x_d) = \sum_{k=1}^K \alpha_{dk} e^{-s_{dk}} f((x_d - \mu_{dk}) e^{-s_{dk}})

    with weights :math:`\alpha_d` from logits, means :math:`\mu_{dk}`, log-scales :math:`s_{dk}`
    and :math:`f` the standard normal density, or that of Laplace, :math:`e^{-|u|}/2`.

    Args:
        num_components: :math:`K`.
        kind: ``"gaussian"`` or ``"laplace"``.

    Raises:
        ValueError: if ``num_components`` is below 1, or the kind unknown.

    Example:
        >>> import torch
        >>> output, theta = MixtureOutput(2, "laplace"), 0.5 * torch.randn(6)
        >>> x = torch.linspace(-30, 30, 60001)
        >>> p = output.log_prob(theta, x).exp()
        >>> bool((torch.trapezoid(p, x) - 1).abs() < 1e-3)
        True
    """

    num_components: int
    kind: str = "gaussian"

    def __post_init__(self) -> None:
        if self.num_components < 1 or self.kind not in ("gaussian", "laplace"):
            raise ValueError(
                "expected 1 component or more, of the kind 'gaussian' or 'laplace', got "
                f"num_components={self.num_components} and kind={self.kind!r}"
            )

    @property
    def num_parameters(self) -> int:
        """A logit, a mean and a log-scale for each component."""
        return 3 * self.num_components

    @property
    def support(self) -> Any:
        """The real numbers."""
        return constraints.real

    def log_prob(self, parameters: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Log-density of values ``(...)`` under logits, means and log-scales ``(..., 3 K)``."""
        logits, loc, log_scale = parameters.chunk(3, -1)
        density = _gaussian if self.kind == "gaussian" else _laplace
        scores = density(value.unsqueeze(-1), loc, log_scale)
        return torch.logsumexp(logits.log_softmax(-1) + scores, -1)

    def noise(self, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """For each draw a uniform number, and one of the standard distribution."""
        uniform, standard = torch.rand((2, *shape), dtype=like.dtype, device=like.device)
        if self.kind == "gaussian":
            standard = torch.randn_like(standard)
        else:  # the inverse of Laplace's distribution function
            tiny = torch.finfo(like.dtype).tiny
            signed = 1 - 2 * standard
            standard = -signed.sign() * (1 - signed.abs()).clamp(min=tiny).log()
        return torch.stack([uniform, standard], -1)

    def draw(self, parameters: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """A component by the first number, and a value of it by the second."""
        logits, loc, log_scale = parameters.chunk(3, -1)
        uniform, standard = noise.split(1, -1)
        k = pick_class(logits, uniform, keepdim=True)
        scale = log_scale.gather(-1, k).exp()
        return torch.addcmul(loc.gather(-1, k), scale, standard).squeeze(-1)
