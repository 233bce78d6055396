# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Importance weights of a model against a guide, for each datum."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any, NamedTuple

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace

from .traces import PARTICLES, Score, Site, is_reparametrized, log_prob, sites_of


class LogWeights(NamedTuple):
    r"""Log importance weights and what the estimators need beside them.

    Args:
        log_weight: :math:`\log w_k = \log p(x, z_k) - \log q(z_k | x)`, of shape
            ``(K, *units)``: particles first, then one dimension for each plate of the data.
        log_score: :math:`\log q` of the sites without reparametrised draws, same shape; neither
            masked nor tempered, since it stands for how the draws were made.
        scale: what multiplies each datum's bound: the subsampling scale of the data plates, and
            a scale that all sites share.
        unit_dims: the plates' dimensions among the batch dimensions of a site.

    Example:
        >>> weights = LogWeights(torch.zeros(5, 3), torch.zeros(5, 3), 2.0, [-1])
        >>> bound = weights.log_weight.logsumexp(0) - torch.tensor(5.0).log()
        >>> float(weights.scale * bound.sum())  # equal weights of 1 bound an evidence of 1
        0.0
    """

    log_weight: torch.Tensor
    log_score: torch.Tensor
    scale: float
    unit_dims: list[int]


def _frames(site: Site) -> dict[tuple[str, int | None], Any]:
    return {(f.name, f.dim): f for f in site["cond_indep_stack"] if f.name != PARTICLES}


def _frame_scale(frames: Iterable[Any]) -> float:
    """The factor by which plates multiply log-probabilities."""
    return prod(
        (f.full_size / f.size for f in frames if f.full_size is not None and f.size > 0), start=1.0
    )


def _common_frames(sites: dict[str, Site], per_datum: bool) -> dict[tuple[str, int | None], Any]:
    """The plates that hold every site, or an error where they leave no per-datum bound."""
    every = [_frames(site) for site in sites.values()]
    all_frames = {key: frame for frames in every for key, frame in frames.items()}
    common = {
        key: frame
        for key, frame in all_frames.items()
        if frame.vectorized and all(key in frames for frames in every)
    }
    if not per_datum:
        common = {}
    for key, frame in all_frames.items():
        if key in common:
            continue
        subsampled = frame.full_size is not None and frame.full_size != frame.size
        if subsampled or (per_datum and not common):
            outside = sorted(n for n, s in sites.items() if key not in _frames(s))
            place = f"sites {outside} lie outside it"
            if not outside:
                place = "bounds are joint" if frame.vectorized else "it is a sequential loop"
            raise ValueError(
                f"plate {frame.name!r} cannot give each datum a bound of its own: {place}. Put all "
                "sites into one vectorised plate, or use Trace_ELBO, whose terms are sums"
                + (
                    "; per_datum=False gives one importance-weighted bound for all data together"
                    if per_datum and not subsampled
                    else "; an importance-weighted bound for all data together needs all data, "
                    "so the plate must not be subsampled"
                )
            )
    return common


def _split_scale(
    sites: dict[str, Site], unit_scale: float
) -> tuple[dict[str, float | torch.Tensor], float]:
    """Split the sites' scales into powers of single sites and a factor common to all.

    Raises:
        ValueError: if every site has a tensor scale, which may or may not be common.
    """
    relative = {name: site["scale"] / unit_scale for name, site in sites.items()}
    tensors = [name for name, scale in relative.items() if isinstance(scale, torch.Tensor)]
    if tensors and len(tensors) == len(sites):
        raise ValueError(
            f"all of the sites {tensors} have a tensor as scale, and whether it weighs data or "
            "tempers densities cannot be seen; weigh data with a float scale or a plate, or temper "
            "only the sites that you mean"
        )
    first = next(iter(relative.values()))
    if not tensors and all(abs(s - first) <= 1e-9 * abs(first) for s in relative.values()):
        return dict.fromkeys(relative, 1.0), first
    return relative, 1.0


def _per_unit(value: torch.Tensor, unit_dims: list[int], particle_dim: int | None) -> torch.Tensor:
    """Sum a log-probability over all but particles and data: ``(K, *units)``."""
    keep = unit_dims if particle_dim is None else [particle_dim, *unit_dims]
    num_dims = max(value.dim(), *(-d for d in keep), 0)
    value = value.reshape((1,) * (num_dims - value.dim()) + value.shape)
    others = [d for d in range(-num_dims, 0) if d not in keep]
    value = value.sum(others) if others else value
    return value if particle_dim is not None else value.unsqueeze(0)


def log_weights(
    model_trace: Trace,
    guide_trace: Trace,
    particle_dim: int | None,
    *,
    per_datum: bool = True,
    score: Score = log_prob,
) -> LogWeights:
    r"""Importance weights of matched traces, :math:`\log p(x, z) - \log q(z | x)` for each datum.

    The data are the plates that hold every sample site of model and guide. Their subsampling scale
    is returned apart, since it multiplies a datum's bound and not its weight; so is a scale that
    all sites share. A scale of some sites only (tempering) is a power of those sites' densities.
    Plates inside a datum must not be subsampled: the logarithm of an estimated weight is biased.

    Args:
        model_trace: trace of the model, replayed against the guide.
        guide_trace: trace of the guide.
        particle_dim: dimension of the plate of particles, ``None`` for one particle.
        per_datum: ``False`` sums over all plates: one weight for all data together.
        score: gives the log-probability of the guide's sites.

    Returns:
        The weights, with what the gradient estimators need.

    Raises:
        ValueError: if a site outside the data's plates makes a bound for each datum impossible, or
            if there is no site at all.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> from pyro_deepgen.infer.traces import run_guide, run_model
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5 ** 0.5))
        >>> x = torch.tensor([-1.0, 0.5, 3.0])
        >>> q = run_guide(guide, (x,), {})
        >>> found = log_weights(run_model(model, q, (x,), {}), q, None).log_weight
        >>> exact = dist.Normal(0.0, 2.0 ** 0.5).log_prob(x)  # the guide is the posterior
        >>> bool(torch.allclose(found[0], exact, atol=1e-6))
        True
    """
    model_sites, guide_sites = sites_of(model_trace), sites_of(guide_trace)
    named = {**{f"guide {n}": s for n, s in guide_sites.items()}, **model_sites}
    if not named:
        raise ValueError("expected at least one pyro.sample site in model or guide, got none")
    common = _common_frames(named, per_datum)
    unit_dims = sorted(frame.dim for frame in common.values())
    unit_scale = _frame_scale(common.values())
    powers, extra = _split_scale(named, unit_scale)
    sizes = [next(f.size for f in common.values() if f.dim == dim) for dim in unit_dims]

    def per_unit(value: torch.Tensor) -> torch.Tensor:
        return _per_unit(value, unit_dims, particle_dim)

    def weighed(key: str, site: Site, value: torch.Tensor) -> torch.Tensor:
        return per_unit(scale_and_mask(value, powers[key], site["mask"]))

    log_weight: Any = 0.0
    log_score: Any = 0.0
    for name, site in model_sites.items():
        log_weight = log_weight + weighed(name, site, log_prob(name, site))
    for name, site in guide_sites.items():
        value = score(name, site)
        log_weight = log_weight - weighed(f"guide {name}", site, value)
        if not is_reparametrized(site):
            log_score = log_score + per_unit(value)
    if not isinstance(log_score, torch.Tensor):
        log_score = torch.zeros_like(log_weight)
    shape = (_num_particles(named), *sizes)
    return LogWeights(
        log_weight.expand(shape), log_score.expand(shape), unit_scale * extra, unit_dims
    )


def _num_particles(sites: dict[str, Site]) -> int:
    frames = (f for site in sites.values() for f in site["cond_indep_stack"])
    return next((int(f.size) for f in frames if f.name == PARTICLES), 1)
