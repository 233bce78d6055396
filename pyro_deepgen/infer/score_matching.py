# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Score matching: the gradient of the log-density by the data, which needs no constant."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.distributions import constraints

from .energy_objective import EnergyObjective, jacobian_product, require_support

_INSTEAD = (
    "for binary data use PseudoLikelihood or RatioMatching, and map bounded data to the reals first"
)


class ScoreMatching(EnergyObjective):
    r"""Exact score matching, for few dimensions.

    .. math::
        J = E_{p_{data}}\Bigl[\tfrac12 \|\psi(x)\|^2 + \sum_i \partial_i \psi_i(x)\Bigr],
        \quad \psi(x) = \nabla_x \log p(x) = -\nabla_x E(x)

    Up to a constant it is half the expected squared distance between the scores of the model and
    of the data, if the density of the data times the model's score vanishes at infinity. The
    trace takes one differentiation for each dimension of a datum.

    Args:
        model: see :class:`EnergyObjective`; its values are real, its energy twice differentiable.

    Raises:
        ValueError: for values that are not real; see also :class:`EnergyObjective`.

    References:
        Estimation of Non-Normalized Statistical Models by Score Matching, Aapo Hyvärinen, 2005.

    Example:
        >>> import torch
        >>> class Gaussian(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.precision = torch.nn.Parameter(torch.tensor(1.0))
        ...     def energy(self, x):
        ...         return 0.5 * self.precision * x.square().sum(-1)
        >>> x, model = torch.randn(50, 1), Gaussian()
        >>> _ = model.precision.data.copy_(1 / x.square().mean())
        >>> ScoreMatching(model)(x).backward()  # the optimum: the precision of the data
        >>> bool(model.precision.grad.abs() < 1e-3)
        True
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        require_support(model, constraints.real, _INSTEAD)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The loss of a batch ``(B, *event)``, summed over it."""
        with torch.enable_grad():
            score, at = self.score(x)
            trace = torch.zeros_like(score[..., 0])
            for i in range(score.shape[-1]):
                axis = torch.zeros_like(score)
                axis[..., i] = 1.0
                trace = trace + jacobian_product(score, at, axis)[..., i]
            loss = (0.5 * score.square().sum(-1) + trace).sum()
        return loss if torch.is_grad_enabled() else loss.detach()


class SlicedScoreMatching(EnergyObjective):
    r"""Score matching along random directions, for many dimensions.

    .. math::
        J = E_{p_{data}} E_v\Bigl[v^T \nabla_x \psi(x) v + \tfrac12 (v^T \psi(x))^2\Bigr]

    With ``variance_reduced`` the last term is :math:`\tfrac12 \|\psi(x)\|^2`, its mean. Either has
    the mean of :class:`ScoreMatching`, as :math:`E[v v^T] = I`, and takes one differentiation for
    each direction.

    Args:
        model: see :class:`ScoreMatching`.
        num_directions: directions for each datum, anew at each call.
        variance_reduced: whether the norm of the score is exact.
        directions: ``"rademacher"`` (signs) or ``"normal"``.

    Raises:
        ValueError: for settings out of range; see also :class:`ScoreMatching`.

    References:
        Sliced Score Matching: A Scalable Approach to Density and Score Estimation, Yang Song,
        Sahaj Garg, Jiaxin Shi and Stefano Ermon, 2019, arXiv:1905.07088.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> model = dist.Normal(torch.zeros(3), torch.ones(3)).to_event(1)
        >>> x = torch.randn(10, 3)  # with signs along independent axes nothing is left to chance
        >>> bool(torch.isclose(SlicedScoreMatching(model)(x), ScoreMatching(model)(x), rtol=1e-4))
        True
    """

    def __init__(
        self,
        model: Any,
        num_directions: int = 1,
        *,
        variance_reduced: bool = True,
        directions: Literal["rademacher", "normal"] = "rademacher",
    ) -> None:
        super().__init__(model)
        require_support(model, constraints.real, _INSTEAD)
        if num_directions < 1:
            raise ValueError(f"expected 1 direction or more, got {num_directions}")
        if directions not in ("rademacher", "normal"):
            raise ValueError(f'expected directions "rademacher" or "normal", got {directions!r}')
        self.num_directions, self.directions = num_directions, directions
        self.variance_reduced = variance_reduced

    def _draw(self, like: torch.Tensor) -> torch.Tensor:
        if self.directions == "normal":
            return torch.randn_like(like)
        return 2.0 * (torch.rand_like(like) < 0.5).to(like.dtype) - 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The loss of a batch ``(B, *event)``, summed over it."""
        with torch.enable_grad():
            score, at = self.score(x)
            norm = score.square().sum(-1)
            total = torch.zeros_like(norm)
            for _ in range(self.num_directions):
                v = self._draw(score.detach())
                curvature = (jacobian_product(score, at, v) * v).sum(-1)
                length = norm if self.variance_reduced else (score * v).sum(-1).square()
                total = total + curvature + 0.5 * length
            loss = total.sum() / self.num_directions
        return loss if torch.is_grad_enabled() else loss.detach()


class DenoisingScoreMatching(EnergyObjective):
    r"""Score matching to data with normal noise, which needs first derivatives only.

    .. math::
        J = E\Bigl[\tfrac12 \Bigl\|\psi(\tilde x) + \frac{\epsilon}{\sigma}\Bigr\|^2\Bigr],
        \quad \tilde x = x + \sigma \epsilon, \quad \epsilon \sim N(0, I)

    Up to a constant it is half the expected squared distance between the scores of the model and
    of the *noisy* data: the optimum is the density of the data smoothed by the noise. Its variance
    grows as :math:`\sigma` falls.

    Args:
        model: see :class:`ScoreMatching`.
        noise_scale: :math:`\sigma`, in units of the data.

    Raises:
        ValueError: for a noise that is not positive; see also :class:`ScoreMatching`.

    References:
        A Connection Between Score Matching and Denoising Autoencoders, Pascal Vincent, 2011.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> one_datum = torch.full((1000, 1), 3.0)
        >>> smoothed = dist.Normal(torch.full((1,), 3.0), 0.5).to_event(1)
        >>> loss = DenoisingScoreMatching(smoothed, noise_scale=0.5)(one_datum)
        >>> bool(loss < 1e-4)  # a datum with noise is this normal, whose score is -noise / scale
        True
    """

    def __init__(self, model: Any, noise_scale: float) -> None:
        super().__init__(model)
        require_support(model, constraints.real, _INSTEAD)
        if not noise_scale > 0:
            raise ValueError(f"expected a positive noise_scale, got {noise_scale}")
        self.noise_scale = noise_scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The loss of a batch ``(B, *event)``, summed over it."""
        with torch.enable_grad():
            noise = torch.randn_like(x)
            score, _ = self.score(x + self.noise_scale * noise)
            error = score + noise.reshape(score.shape) / self.noise_scale
            loss = 0.5 * error.square().sum()
        return loss if torch.is_grad_enabled() else loss.detach()
