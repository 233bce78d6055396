# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Where chains start: drawn until they are valid, or a user's, which must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from .state import Values
from .target import Site, Target

TRIES = 100
_SHOWN = 5


@torch.no_grad()
def valid_chains(target: Target, values: Values) -> torch.Tensor:
    """Which chains have a finite potential and a finite gradient by all continuous sites.

    Args:
        target: what the chains sample from.
        values: unconstrained values ``(C, *shape)`` of all sites.

    Returns:
        ``(C,)``, boolean.
    """
    sites = [name for name, site in target.sites.items() if not site.is_discrete]
    if not sites:
        return target.potential(values).isfinite()
    potential, gradient = target.potential_and_gradient(values, sites)
    return potential.isfinite() & gradient.isfinite().all(-1)


@torch.no_grad()
def draw_starts(
    target: Target, draw: Callable[[int], Values], num_chains: int, tries: int = TRIES
) -> Values:
    """Draw values until every chain has valid ones; those that have keep them.

    Args:
        target: what the chains sample from.
        draw: from a number of chains to unconstrained values ``(C, *shape)``.
        num_chains: how many chains.
        tries: how many times a chain draws at most.

    Raises:
        ValueError: if a chain finds none, saying at which site the density or its gradient is not
            finite.
    """
    values = draw(num_chains)
    wrong = (~valid_chains(target, values)).nonzero()[:, 0]
    for _ in range(tries - 1):
        if not len(wrong):
            break
        fresh = draw(len(wrong))
        for name, value in fresh.items():
            values[name] = values[name].index_copy(0, wrong, value)
        wrong = wrong[~valid_chains(target, fresh)]
    if not len(wrong):
        return values
    reason = target.explain({name: value[wrong[:1]] for name, value in values.items()})
    raise ValueError(
        f"{len(wrong)} of {num_chains} chains found no start with a finite density and gradient in "
        f"{tries} draws: {reason}. Check the model and its data, draw starts from elsewhere "
        "(init_strategy), or give initial_params"
    )


@torch.no_grad()
def check_starts(target: Target, initial: Mapping[str, torch.Tensor], num_chains: int) -> Values:
    """Check a user's starts, and bring them to the target's types and device.

    Args:
        target: what the chains sample from.
        initial: unconstrained values ``(num_chains, *shape)`` of every site, or ``(*shape)`` where
            there is one chain.
        num_chains: how many chains.

    Raises:
        ValueError: for a site that is missing or unknown, a wrong shape, a value that is not finite
            or that a discrete site cannot have, and a start where the density or its gradient is
            not finite; it names the site and the chain.
    """
    if set(initial) != set(target.sites):
        missing, unknown = (
            sorted(target.sites.keys() - initial.keys()),
            sorted(initial.keys() - target.sites.keys()),
        )
        raise ValueError(
            f"initial_params must have one value a site: {sorted(target.sites)}; missing: "
            f"{missing}, unknown: {unknown}"
        )
    values = {n: _checked(n, s, initial[n], num_chains, target) for n, s in target.sites.items()}
    wrong = (~valid_chains(target, values)).nonzero()[:, 0].tolist()
    if wrong:
        reason = target.explain({name: value[wrong[0]][None] for name, value in values.items()})
        raise ValueError(
            f"initial_params: {_chains(wrong)} {'start' if len(wrong) > 1 else 'starts'} where the "
            f"density or its gradient is not finite; in chain {wrong[0]} {reason}. The values are "
            "unconstrained: Target.unconstrain turns values of the model into them"
        )
    return values


def _checked(
    name: str, site: Site, value: torch.Tensor, num_chains: int, target: Target
) -> torch.Tensor:
    value = torch.as_tensor(value, device=target.device).detach()
    if num_chains == 1 and value.shape == site.shape:
        value = value[None]
    if value.shape != (num_chains, *site.shape):
        raise ValueError(
            f"initial_params: expected the shape {(num_chains, *site.shape)} for the site {name!r} "
            f"(chains first, then its unconstrained value), got {tuple(value.shape)}"
        )
    value = value.to(site.dtype, copy=True)
    flat = value.reshape(num_chains, -1)
    if wrong := (~flat.isfinite().all(-1)).nonzero()[:, 0].tolist():
        raise ValueError(
            f"initial_params: the site {name!r} has values that are not finite in {_chains(wrong)}"
        )
    if site.values is not None:
        elements = site.values.flatten(1) if site.values.dim() > 1 else site.values[:, None]
        grouped = flat.reshape(num_chains, -1, 1, elements.shape[1])
        known = (grouped == elements.to(flat)).all(-1).any(-1).all(-1)
        if wrong := (~known).nonzero()[:, 0].tolist():
            raise ValueError(
                f"initial_params: the site {name!r} has in {_chains(wrong)} a value outside of its "
                f"support {site.support}"
            )
    return value


def _chains(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:_SHOWN]))
    more = f" and {len(indices) - _SHOWN} more" if len(indices) > _SHOWN else ""
    return f"chain{'s' if len(indices) > 1 else ''} {shown}{more}"


def uniform_draws(
    sites: Mapping[str, Site], device: torch.device, num_chains: int, radius: float = 2.0
) -> Values:
    """Draw continuous sites from a cube of unconstrained values, finite discrete ones uniformly.

    Args:
        sites: continuous ones, and discrete ones with known values.
        device: where.
        num_chains: how many chains.
        radius: half the side of the cube.
    """
    return {name: _uniform(site, device, num_chains, radius) for name, site in sites.items()}


def _uniform(site: Site, device: torch.device, num_chains: int, radius: float) -> torch.Tensor:
    shape = (num_chains, *site.shape)
    if site.values is None:
        return torch.empty(shape, dtype=site.dtype, device=device).uniform_(-radius, radius)
    places = shape[: len(shape) - site.values.dim() + 1]
    return site.values[torch.randint(len(site.values), places, device=device)]
