# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Gibbs sampling of finite discrete sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .compiled import compiled
from .kernel import Kernel
from .state import Info, State
from .target import Site, Target
from .tempered_terms import free_dims, plate_terms

Plates = tuple[tuple[str, tuple[int, ...]], ...]


class DiscreteGibbs(Kernel):
    r"""Draws finite discrete sites from their exact conditional laws.

    .. math:: p(z_i = k | z_{-i}, x) = \frac{\exp(-U(z_i = k, z_{-i}, x))}{\sum_l \exp(-U(z_i = l,
        z_{-i}, x))}

    Elements of a plate that are independent given all else (the labels of a mixture) are drawn at
    once, by one evaluation of the model for each value; which these are is found out from the
    model, also where it is tempered. Others (neighbours in a lattice, states of a Markov chain) are
    drawn one after the other, each by as many evaluations.

    Args:
        target: a Pyro model, a discrete distribution with finite support, or a :class:`Target`.
        sites: the sites that this kernel moves; all discrete ones by default, none of which is then
            summed out.
        modified: propose a value other than the present one, with the probability
            :math:`p_k / (1 - p_i)`, and accept with :math:`\min(1, (1 - p_i) / (1 - p_k))`, which
            has no larger asymptotic variance than the plain draw.
        scan: the order in which elements are drawn that cannot be drawn at once: ``"random"``, a
            new order each step, or ``"fixed"``.
        compile: see :class:`Kernel`; the draw of an element is compiled, a step is not.

    Raises:
        ValueError: for an unknown scan; later, for a site that is not discrete and finite.

    References:
        Peskun's theorem and a modified discrete-state Gibbs sampler, Jun S. Liu, 1996.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def mixture(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Bernoulli(0.5))
        ...         pyro.sample("x", dist.Normal(2 * z, 1.0), obs=x)
        >>> kernel = DiscreteGibbs(mixture, compile=False)
        >>> x = torch.tensor([0.0, 1.0, 2.0])
        >>> kernel.setup(0, x)
        >>> state = kernel.init({"z": torch.zeros(4000, 3)})
        >>> kernel.plates  # drawn at once
        (('z', (-1,)),)
        >>> state, _ = kernel.step(state)
        >>> exact = torch.sigmoid(2 * x - 2)
        >>> error = (exact * (1 - exact) / 4000).sqrt()
        >>> bool(((state["z"].mean(0) - exact).abs() < 4 * error).all())
        True
    """

    def __init__(
        self,
        target: Any,
        sites: Sequence[str] | None = None,
        *,
        modified: bool = False,
        scan: str = "random",
        compile: bool | str = True,
    ) -> None:
        super().__init__(target, sites=sites, compile=compile)
        if scan not in ("random", "fixed"):
            raise ValueError(f"expected scan='random' or 'fixed', got {scan!r}")
        self.modified, self.scan = modified, scan
        self.plates: Plates | None = None

    def discrete_sites(self) -> Sequence[str] | None:
        """The sites that were chosen, or all."""
        return None if self._chosen_sites is None else tuple(self._chosen_sites)

    def suits(self, site: Site) -> bool:
        """Discrete and finite sites."""
        return site.is_discrete and site.values is not None

    def bind(self, target: Target, sites: Sequence[str] | None = None) -> None:
        """Let the kernel move some sites of a target.

        Raises:
            ValueError: for a site that does not exist, that is continuous, or that has infinitely
                many values.
        """
        chosen = sites if sites is not None else self._chosen_sites
        for name in target.sites if chosen is None else chosen:
            site = target.sites.get(name)
            if site is not None and site.is_discrete and site.values is None:
                raise ValueError(
                    f"DiscreteGibbs draws by trying all values, and the site {name!r} has no "
                    f"finite list of them (support {site.support}). Bound it, for instance by a "
                    "Categorical over 0, ..., K with the probabilities that its distribution gives "
                    "these, or write a kernel that proposes other values, whose suits() accepts "
                    f"the site, and combine: Gibbs([(kernel, [{name!r}]), ...])"
                )
        super().bind(target, sites)
        self.plates = None

    def init(self, state: State) -> State:
        """The sites alone; the first time, find out which elements can be drawn at once."""
        values = self.values(state)
        if self.plates is None:
            self.plates = tuple((name, free_dims(self.target, name, values)) for name in self.sites)
        return values

    def step(self, state: State) -> tuple[State, Info]:
        """Draw every element of every site in every chain."""
        before = state
        rates: list[torch.Tensor] = []
        for name in self.sites:
            num_places = self._places(name)[1].numel()
            device = self.target.device
            if self.scan == "random" and num_places > 1:
                order = torch.randperm(num_places, device=device)
            else:
                order = torch.arange(num_places, device=device)
            for place in order.unbind():
                state, rate = self._draw(state, {name: place})
                rates.append(rate)
        changed = [(state[n] != before[n]).reshape(len(rates[0]), -1) for n in self.sites]
        accept_prob = torch.stack(rates).mean(0)
        return state, {
            "accept_prob": accept_prob,
            "change_rate": torch.cat(changed, -1).to(accept_prob).mean(-1),
        }

    def _places(self, name: str) -> tuple[torch.Size, torch.Size]:
        """The shape of a site's elements, and that of the places that are drawn in turn."""
        site, free = self.target.sites[name], dict(self.plates or ())[name]
        assert site.values is not None
        elements = site.shape[: len(site.shape) - site.values.dim() + 1]
        at_once = self._at_once(name, free)
        return elements, torch.Size([1 if i in at_once else n for i, n in enumerate(elements)])

    def _at_once(self, name: str, free: tuple[int, ...]) -> list[int]:
        """The site's dimensions that are drawn at once."""
        site = self.target.sites[name]
        num_event = site.support.event_dim
        return [dim + len(site.shape) - num_event for dim in free]

    @compiled
    def _draw(self, state: State, where: dict[str, torch.Tensor]) -> tuple[State, torch.Tensor]:
        """Draw the elements of one site at one place, those that can be drawn at once together."""
        ((name, place),) = where.items()
        site, free = self.target.sites[name], dict(self.plates or ())[name]
        assert site.values is not None
        elements, places = self._places(name)
        at_once = self._at_once(name, free)
        present, count = state[name], len(state[name])
        tail = [1] * (site.values.dim() - 1)

        chosen = torch.arange(places.numel(), device=place.device).reshape(places) == place
        chosen = chosen.expand(elements).reshape(1, *elements, *tail)
        choices = site.values.reshape(-1, 1, *[1] * len(elements), *site.values.shape[1:])
        tried = torch.where(chosen, choices, present)  # (K, C, *shape)

        logits = self._log_density(state, name, tried, free)  # (K, C, *sizes)
        sizes = [elements[i] if i in at_once else 1 for i in range(len(elements))]
        if self.modified:
            same = (choices == present).reshape(*tried.shape[:2], *elements, -1).all(-1)
            same = same & chosen.reshape(1, 1, *elements)
            for i in set(range(len(elements))).difference(at_once):
                same = same.any(i + 2, keepdim=True)
            index, rate = _another(logits, same.reshape(logits.shape))
        else:
            index = _categorical(logits)
            rate = torch.ones(count, dtype=logits.dtype, device=logits.device)
        drawn = site.values[index].reshape(count, *sizes, *site.values.shape[1:])
        return {**state, name: torch.where(chosen, drawn, present)}, rate

    def _log_density(
        self, state: State, name: str, tried: torch.Tensor, free: tuple[int, ...]
    ) -> torch.Tensor:
        num_values = len(tried)
        values = {
            n: value.expand(num_values, *value.shape).flatten(0, 1)
            for n, value in self.values(state).items()
        }
        values[name] = tried.flatten(0, 1)
        if free:
            logits = plate_terms(self.target, name, values, free)
        else:
            logits = -self.target.potential(values)
        logits = torch.where(logits.isnan(), -torch.inf, logits)
        return logits.reshape(num_values, -1, *logits.shape[1:])


def _categorical(logits: torch.Tensor) -> torch.Tensor:
    """Draw an index along the first dimension; impossible ones are never drawn."""
    noise = -torch.empty_like(logits).exponential_().log()
    return (logits + noise).argmax(0)


def _another(logits: torch.Tensor, present: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw by Liu's modified Gibbs sampler.

    Args:
        logits: ``(K, C, *sizes)``.
        present: where the present value is, of the same shape.

    Returns:
        Indices ``(C, *sizes)``, and the mean acceptance ``(C,)``.
    """
    others = logits.masked_fill(present, -torch.inf)
    proposed = _categorical(others)
    taken = torch.zeros_like(present).scatter(0, proposed[None], True)
    without = logits.masked_fill(taken, -torch.inf)
    accept_prob = (others.logsumexp(0) - without.logsumexp(0)).exp().clamp(max=1.0).nan_to_num(0.0)
    accepted = torch.rand_like(accept_prob) < accept_prob
    index = torch.where(accepted, proposed, present.to(torch.int64).argmax(0))
    return index, accept_prob.reshape(len(index), -1).mean(-1)
