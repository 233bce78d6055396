# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The importance-weighted bound and its gradient estimators."""

from __future__ import annotations

from math import inf, log
from typing import Any, Literal

import torch

from .log_weights import LogWeights, log_weights
from .objective import Objective
from .rescoring import require_reparametrized, rescore
from .traces import Program, Score, check_match, log_prob

_GRADIENTS = ("iwae", "stl", "dreg", "vimco")


class ImportanceWeightedELBO(Objective):
    r"""The importance-weighted bound for each datum.

    .. math::
        \mathcal L_K(x) = \mathbb E_{z_1, \dots, z_K \sim q(z | x)}
            \Big[\log \frac1K \sum_{k=1}^K w_k\Big],
        \qquad w_k = \frac{p(x, z_k)}{q(z_k | x)},

    rises with :math:`K` from the ELBO (:math:`K = 1`) to :math:`\log p(x)`. The loss is
    :math:`-\sum_n s\, \mathcal L_K(x_n)` over the data of the plates that hold every site, with the
    subsampling scale :math:`s` of those plates outside the logarithm, so that a minibatch gives an
    unbiased estimate of the full loss and gradient. All estimators have the same value and the
    same gradient for the model's parameters :math:`\theta`; with :math:`\tilde w_k = w_k / \sum_j
    w_j` they differ in that for the guide's :math:`\phi`:

    - ``"iwae"``: :math:`\sum_k \tilde w_k \nabla_\phi \log w_k`. Unbiased; its signal-to-noise
      ratio falls like :math:`1/\sqrt K`.
    - ``"stl"`` (sticking the landing): the same without the direct dependence of :math:`\log q` on
      :math:`\phi`. Unbiased for :math:`K = 1`, with zero variance where the guide is the
      posterior; **biased for** :math:`K > 1`, by as much as a factor of several.
    - ``"dreg"`` (doubly reparametrised): :math:`\sum_k \tilde w_k^2 \frac{\partial \log w_k}
      {\partial z_k} \frac{\partial z_k}{\partial \phi}`. Unbiased; its signal-to-noise ratio rises
      with :math:`K`.
    - ``"vimco"``: for sites without reparametrised draws (discrete ones), the score function with
      each particle's bound without it as its control variate; reparametrised sites of the same
      guide keep their pathwise gradient. Needs :math:`K \ge 2`.

    ``"stl"`` and ``"dreg"`` run the guide a second time.

    Args:
        num_particles: :math:`K`.
        gradient: the estimator.
        per_datum: ``False`` takes one bound for all data together, for models whose latent sites
            lie outside the data's plate (which then must not be subsampled).
        max_plate_nesting: see :class:`Objective`.

    Raises:
        ValueError: if ``gradient`` is unknown or does not go with ``num_particles``; when called,
            if a site outside the data's plates makes a bound for each datum impossible, if
            model and guide do not match, or if a guide's site does not suit the estimator.

    References:
        Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2016, arXiv:1509.00519.
        Sticking the Landing, Roeder, Wu, Duvenaud, 2017, arXiv:1703.09194.
        Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, Tucker, Lawson, Gu,
        Maddison, 2018, arXiv:1810.04152.
        Variational Inference for Monte Carlo Objectives, Mnih, Rezende, 2016, arXiv:1602.06725.
        Tighter Variational Bounds are Not Necessarily Better, Rainforth, Kosiorek, Le, Maddison,
        Igl, Wood, Teh, 2018, arXiv:1802.04537.

    Example:
        >>> import torch
        >>> from pyro_deepgen.latent import vae
        >>> pair = vae(6, 2, hidden_dims=(16,))
        >>> x = torch.bernoulli(torch.full((200, 6), 0.3))
        >>> elbo, bound = ImportanceWeightedELBO(1), ImportanceWeightedELBO(100)
        >>> bool(bound.loss(pair.model, pair.guide, x) < elbo.loss(pair.model, pair.guide, x))
        True
    """

    def __init__(
        self,
        num_particles: int,
        gradient: Literal["iwae", "stl", "dreg", "vimco"] = "iwae",
        *,
        per_datum: bool = True,
        max_plate_nesting: float = inf,
    ) -> None:
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)
        if gradient not in _GRADIENTS:
            raise ValueError(f"expected gradient to be one of {_GRADIENTS}, got {gradient!r}")
        if gradient == "vimco" and num_particles < 2:
            raise ValueError(
                'expected at least 2 particles for gradient="vimco", whose control variate is the '
                f"bound of the other particles, got num_particles={num_particles}"
            )
        self.gradient = gradient
        self.per_datum = per_datum

    def log_weights(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        r"""Log importance weights :math:`\log w_k` for each datum, of shape ``(K, *batch)``.

        They are those of the present draws, whatever the estimator, and without the subsampling
        scale; ``(K,)`` with ``per_datum=False``.
        """
        return self._weigh(model, guide, args, kwargs, None)[0].log_weight

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """The negative bound, summed over the data and scaled."""
        gradient = self.gradient if torch.is_grad_enabled() else None
        weights, share = self._weigh(model, guide, args, kwargs, gradient)
        log_weight = weights.log_weight
        bound = log_weight.logsumexp(0) - log(self.num_particles)
        if gradient == "dreg":
            share.append(log_weight.detach().softmax(0))
        elif gradient == "vimco":
            signal = (bound - _leave_one_out(log_weight)).detach()
            score = (signal * weights.log_score).sum(0)
            bound = bound + score - score.detach()
        return -(weights.scale * bound).sum()

    def _weigh(
        self,
        model: Program,
        guide: Program,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        gradient: str | None,
    ) -> tuple[LogWeights, list[torch.Tensor]]:
        """Weights whose graph suits the estimator, and the place for the shares of ``"dreg"``."""
        model, guide = self.batched(model, guide, args, kwargs)
        share: list[torch.Tensor] = []
        unit_dims: list[int] = []

        def multiply_by_share(grad: torch.Tensor, event_dim: int) -> torch.Tensor:
            return grad * _align(share[0], unit_dims, self.particle_dim, event_dim)

        score: Score = log_prob
        if gradient in ("stl", "dreg"):
            hook = multiply_by_share if gradient == "dreg" and self.num_particles > 1 else None
            model_trace, guide_trace, score = rescore(model, guide, args, kwargs, hook)
            check_match(model_trace, guide_trace)
        else:
            model_trace, guide_trace = self._get_trace(model, guide, args, kwargs)
            if gradient == "iwae":
                require_reparametrized(guide_trace)
        weights = log_weights(
            model_trace,
            guide_trace,
            self.particle_dim,
            per_datum=self.per_datum,
            score=score,
        )
        unit_dims.extend(weights.unit_dims)
        return weights, share


def _align(
    share: torch.Tensor, unit_dims: list[int], particle_dim: int | None, event_dim: int
) -> torch.Tensor:
    """Put ``(K, *units)`` at the batch dimensions of a site, with ``event_dim`` ones behind."""
    shape = [1] * -(particle_dim or -1)
    for dim, size in zip([particle_dim or -1, *unit_dims], share.shape, strict=True):
        shape[dim] = size
    return share.reshape(shape + [1] * event_dim)


def _leave_one_out(log_weight: torch.Tensor) -> torch.Tensor:
    """Each particle's bound with its weight replaced by the geometric mean of the others'."""
    num = log_weight.shape[0]
    own = torch.eye(num, dtype=torch.bool, device=log_weight.device)
    own = own.reshape((num, num) + (1,) * (log_weight.dim() - 1))
    # Summing without the own weight, not subtracting it, keeps a weight of 0 from becoming NaN.
    others = log_weight.unsqueeze(1).masked_fill(own, 0.0)
    replaced = torch.where(own, others.sum(0, keepdim=True) / (num - 1), log_weight.unsqueeze(1))
    return replaced.logsumexp(0) - log(num)
