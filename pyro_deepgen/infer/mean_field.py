# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The ELBO with closed-form Kullback-Leibler terms, or with the landing stuck."""

from __future__ import annotations

from math import inf
from typing import Any, Literal

import torch
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch.distributions import kl_divergence

from .objective import Objective
from .rescoring import require_reparametrized, rescore
from .traces import Program, Score, Site, check_match, log_prob, sites_of


class MeanFieldELBO(Objective):
    r"""The evidence lower bound with closed-form terms where they are exact.

    .. math::
        \mathcal L(x) = \mathbb E_{q(z | x)}[\log p(x | z)] - \mathrm{KL}(q(z | x) \| p(z))

    - ``gradient="closed_form"``: the divergence of a site is computed in closed form where PyTorch
      or Pyro has one and it is exact, that is, where the site's prior depends only on latents that
      the guide draws before it; elsewhere (a top-down model under a bottom-up guide, say) from the
      draws.
    - ``gradient="stl"``: both terms from the draws, with the guide's density scored with its
      parameters stopped. Unbiased, and of zero variance where the guide is the posterior. The
      guide runs a second time.

    The loss is the negative bound summed over all plates with their scales.

    Args:
        num_particles: number of draws that are averaged.
        gradient: ``"closed_form"`` or ``"stl"``.
        max_plate_nesting: see :class:`Objective`.

    Raises:
        ValueError: if ``gradient`` is unknown; when called, if a latent site is not
            reparametrised, or if model and guide do not match.

    References:
        Auto-Encoding Variational Bayes, Kingma, Welling, 2014, arXiv:1312.6114.
        Sticking the Landing, Roeder, Wu, Duvenaud, 2017, arXiv:1703.09194.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> def guide():
        ...     pyro.sample("z", dist.Normal(1.0, 1.0))
        >>> float(MeanFieldELBO().loss(model, guide))  # KL = 1/2, whatever was drawn
        0.5
    """

    def __init__(
        self,
        num_particles: int = 1,
        gradient: Literal["closed_form", "stl"] = "closed_form",
        *,
        max_plate_nesting: float = inf,
    ) -> None:
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)
        if gradient not in ("closed_form", "stl"):
            raise ValueError(f'expected gradient "closed_form" or "stl", got {gradient!r}')
        self.gradient = gradient

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """The negative bound, summed over the plates and scaled."""
        model, guide = self.batched(model, guide, args, kwargs)
        if self.gradient == "stl" and torch.is_grad_enabled():
            model_trace, guide_trace, score = rescore(model, guide, args, kwargs)
            check_match(model_trace, guide_trace)
            total = _sum_of(sites_of(model_trace)) - _sum_of(sites_of(guide_trace), score)
        else:
            model_trace, guide_trace = self._get_trace(model, guide, args, kwargs)
            if torch.is_grad_enabled():
                require_reparametrized(guide_trace)
            total = self._with_closed_forms(model_trace, guide_trace)
        loss: torch.Tensor = -total / self.num_particles
        return loss

    def _with_closed_forms(self, model_trace: Trace, guide_trace: Trace) -> torch.Tensor:
        model_sites, guide_sites = sites_of(model_trace), sites_of(guide_trace)
        order = list(guide_sites)
        total: Any = 0.0
        drawn_before: set[str] = set()
        closed: set[str] = set()
        for name, site in model_sites.items():
            divergence = None
            if not site["is_observed"]:
                # Exact only if nothing that the prior may depend on is drawn after the site.
                if drawn_before <= set(order[: order.index(name)]):
                    divergence = _divergence(guide_sites[name], site)
                drawn_before.add(name)
            if divergence is None:
                total = total + _sum_of({name: site})
            else:
                total = total - divergence
                closed.add(name)
        open_sites = {n: s for n, s in guide_sites.items() if n not in closed}
        result: torch.Tensor = total - _sum_of(open_sites)
        return result


def _sum_of(sites: dict[str, Site], score: Score = log_prob) -> Any:
    """Sum of the scaled and masked log-probabilities of sites."""
    total: Any = 0.0
    for name, site in sites.items():
        total = total + scale_and_mask(score(name, site), site["scale"], site["mask"]).sum()
    return total


def _divergence(guide_site: Site, model_site: Site) -> torch.Tensor | None:
    """The scaled and masked divergence of a site, or ``None`` where there is no closed form."""
    if guide_site["mask"] is not model_site["mask"]:
        return None
    scales = guide_site["scale"], model_site["scale"]
    if any(isinstance(s, torch.Tensor) for s in scales) or scales[0] != scales[1]:
        return None
    # Pyro's divergence of a point mass leaves out its log_density, the Jacobian of an autoguide.
    if isinstance(_innermost(guide_site["fn"]), Delta):
        return None
    try:
        divergence = kl_divergence(guide_site["fn"], model_site["fn"])
    except NotImplementedError:
        return None
    divergence = scale_and_mask(divergence, scales[0], guide_site["mask"])
    shape = torch.broadcast_shapes(guide_site["fn"].batch_shape, model_site["fn"].batch_shape)
    total: torch.Tensor = divergence.expand(shape).sum()
    return total


def _innermost(distribution: Any) -> Any:
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return distribution
