# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Latent dimensions that a guide uses."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine.util import prune_subsample_sites

from .likelihood import _at_least_one, _evaluating, _is_data, _leading_size, _require_program


class ActiveUnits(NamedTuple):
    """Latent dimensions whose posterior mean depends on the data.

    Args:
        num_active: number of active dimensions.
        active: booleans of shape ``(latent_dim,)``.
        variance: variance of the posterior mean over the data, of shape ``(latent_dim,)``.

    Example:
        >>> import torch
        >>> from pyro_deepgen.latent import vae
        >>> pair = vae(6, 2, hidden_dims=(16,))
        >>> result = active_units(pair.guide, torch.rand(50, 6))
        >>> result.num_active == int(result.active.sum())
        True
    """

    num_active: int
    active: torch.Tensor
    variance: torch.Tensor


def active_units(
    guide: Any,
    *args: Any,
    site: str = "z",
    threshold: float = 1e-2,
    num_particles: int = 16,
    batch_size: int = 1000,
) -> ActiveUnits:
    r"""Count the dimensions with :math:`\mathrm{Var}_x(\mathbb E_{q(z | x)}[z_u]) > \delta`.

    A dimension whose posterior is the prior for every datum carries nothing. The inner mean is
    that of the site's distribution, averaged over ``num_particles`` draws of the guide's earlier
    sites (which makes no difference where there are none).

    Args:
        guide: a guide with a plate of data.
        args: its arguments, tensors whose first dimension are the data, ``(N, ...)``.
        site: name of the latent site, with draws of shape ``(N, latent_dim)``.
        threshold: :math:`\delta`.
        num_particles: draws for each datum.
        batch_size: data at a time.

    Returns:
        Count, booleans and variances.

    Raises:
        ValueError: if the guide has no such site, it observes data (as a model does), there are
            fewer than 2 data, or ``num_particles`` or ``batch_size`` is no integer of at least 1.

    References:
        Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2016, arXiv:1509.00519.

    Example:
        >>> import torch
        >>> from pyro_deepgen.latent import vae
        >>> pair = vae(6, 2, hidden_dims=(16,))
        >>> active_units(pair.guide, torch.rand(50, 6)).variance.shape
        torch.Size([2])
    """
    _require_program(guide, "guide")
    _at_least_one("num_particles", num_particles)
    _at_least_one("batch_size", batch_size)
    num_data = _leading_size(args, least=2)
    means = []
    with _evaluating(guide):
        for start in range(0, num_data, batch_size):
            part = [a[start : start + batch_size] if _is_data(a) else a for a in args]
            draws = [_site_mean(guide, site, part) for _ in range(num_particles)]
            means.append(torch.stack(draws).mean(0))
    variance = torch.cat(means).var(0)
    active = variance > threshold
    return ActiveUnits(int(active.sum()), active, variance)


def _site_mean(guide: Any, site: str, args: list[Any]) -> torch.Tensor:
    trace = prune_subsample_sites(poutine.trace(guide).get_trace(*args))
    if site not in trace.nodes:
        raise ValueError(
            f"expected a latent site {site!r} in the guide, got {trace.stochastic_nodes}; name one "
            "of them with site=..."
        )
    observed = [name for name in trace.observation_nodes if _is_likelihood(trace.nodes[name])]
    if observed:
        # A model's site has the prior's mean whatever the data: no dimension would be active.
        raise ValueError(
            f"expected a guide, whose latent sites depend on the data, got a program that observes "
            f"{observed}, as a model does; give the guide, such as pair.guide"
        )
    distribution: Any = trace.nodes[site]["fn"]
    mean: torch.Tensor = distribution.mean
    return mean


def _is_likelihood(message: Any) -> bool:
    """Say whether an observed site is one of data: not a factor, and not a computed value."""
    computed = bool((message["infer"] or {}).get("_deterministic", False))
    return not computed and not isinstance(message["fn"], Unit)
