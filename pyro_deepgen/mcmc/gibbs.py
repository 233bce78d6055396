# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Several kernels that share the sites of one target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from .kernel import Kernel
from .state import PRIVATE, Info, State
from .target import Site, Target


class Gibbs(Kernel):
    r"""Kernels in turn, each of which moves its sites given the others.

    With :math:`K_i` a kernel that leaves :math:`p(x_i | x_{-i})` invariant, a step is
    :math:`K_n \cdots K_2 K_1`, which leaves :math:`p(x)` invariant. HMC for continuous sites and
    :class:`DiscreteGibbs` for discrete ones is HMC within Gibbs.

    Info has every kernel's own under its class (``"HMC.accept_prob"``, or ``"HMC_1.accept_prob"``
    and so on where there are several), the mean of ``accept_prob``, and whether any is
    ``diverging``.

    Args:
        kernels: pairs of a kernel and the names of the sites that it moves, in the order of a step;
            all kernels are made for the same target, and each site is in one pair.

    Raises:
        ValueError: for kernels of different targets, a site in two pairs, a ``Gibbs`` in a
            ``Gibbs``; later, for a site that is in no pair, that does not exist or that its kernel
            cannot move.

    References:
        Bayesian Computation Via the Gibbs Sampler and Related Markov Chain Monte Carlo Methods,
        A. F. M. Smith and G. O. Roberts, 1993.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> from pyro_deepgen.mcmc.random_walk import RandomWalk
        >>> from pyro_deepgen.mcmc.slice_sampler import SliceSampler
        >>> def model():
        ...     a = pyro.sample("a", dist.Normal(0.0, 1.0))
        ...     pyro.sample("b", dist.Normal(a, 1.0))
        >>> first, second = RandomWalk(model, compile=False), SliceSampler(model, compile=False)
        >>> kernel = Gibbs([(first, "a"), (second, "b")])
        >>> kernel.setup(0)
        >>> a = torch.randn(4000)
        >>> state, info = kernel.step(kernel.init({"a": a, "b": a + torch.randn(4000)}))
        >>> sorted(info)[:2], bool((state["b"].var() - 2).abs() < 4 * 2 * (2 / 4000) ** 0.5)
        (['RandomWalk.accept_prob', 'RandomWalk.potential'], True)
    """

    def __init__(self, kernels: Sequence[tuple[Kernel, str | Sequence[str]]]) -> None:
        if not kernels:
            raise ValueError("Gibbs expected a list of pairs (kernel, sites), got none")
        for pair in kernels:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise ValueError(
                    f"Gibbs expected pairs (kernel, sites), got {type(pair).__name__}: write "
                    'Gibbs([(HMC(model), ["loc"]), (DiscreteGibbs(model), ["label"])])'
                )
        first = kernels[0][0]
        super().__init__(first.model, potential_fn=first.potential_fn, compile=False)
        self.kernels: list[Kernel] = []
        self._shares: list[tuple[str, ...]] = []
        owners: dict[str, str] = {}
        for kernel, sites in kernels:
            name = type(kernel).__name__
            if isinstance(kernel, Gibbs):
                raise ValueError(
                    "Gibbs cannot contain a Gibbs: list the pairs of the inner one in the outer one"
                )
            if kernel.model != first.model or kernel.potential_fn != first.potential_fn:
                raise ValueError(
                    f"Gibbs expected kernels of one target: {type(first).__name__} was made for "
                    f"{first.model or first.potential_fn}, and {name} for "
                    f"{kernel.model or kernel.potential_fn}"
                )
            if any(kernel is other for other in self.kernels):
                raise ValueError(
                    f"the same {name} is in two pairs of Gibbs: list its sites in one, or make two"
                )
            share = (sites,) if isinstance(sites, str) else tuple(sites)
            if not share:
                raise ValueError(f"Gibbs expected sites for {name}, got none")
            for site in share:
                if site in owners:
                    raise ValueError(
                        f"Gibbs lists the site {site!r} twice, for {owners[site]} and for {name}: "
                        "one kernel must move it"
                    )
                owners[site] = name
            self.kernels.append(kernel)
            self._shares.append(share)
        counts = Counter(type(kernel).__name__ for kernel in self.kernels)
        seen: Counter[str] = Counter()
        self._names: list[str] = []
        for kernel in self.kernels:
            name = type(kernel).__name__
            seen[name] += 1
            self._names.append(name if counts[name] == 1 else f"{name}_{seen[name]}")

    def discrete_sites(self) -> tuple[str, ...]:
        """All listed sites: none of them must be summed out."""
        return tuple(site for share in self._shares for site in share)

    def suits(self, site: Site) -> bool:
        """Any; the kernels say which they can move."""
        return True

    def bind(self, target: Target, sites: Sequence[str] | None = None) -> None:
        """Let every kernel move its sites of a target.

        Raises:
            ValueError: for a site that is in no pair, that does not exist, or that its kernel
                cannot move.
        """
        listed = self.discrete_sites()
        wanted = target.sites if sites is None else sites
        missing = [name for name in wanted if name not in listed]
        if missing:
            raise ValueError(
                f"no kernel of Gibbs moves the site{'s'[: len(missing) - 1]} "
                f"{', '.join(map(repr, missing))}: add a pair (kernel, sites) for it"
            )
        super().bind(target, listed)
        for kernel, share in zip(self.kernels, self._shares, strict=True):
            kernel.bind(target, share)

    def init(self, state: State) -> State:
        """Add what each kernel keeps."""
        values = self.values(state)
        state = dict(values)
        for index, kernel in enumerate(self.kernels):
            state.update(_kept(index, kernel.init(values)))
        return state

    def step(self, state: State) -> tuple[State, Info]:
        """Let every kernel move its sites once."""
        infos: Info = {}
        for index, (kernel, name) in enumerate(zip(self.kernels, self._names, strict=True)):
            moved, info = kernel.step(kernel.init(self._view(index, state)))
            state = {**state, **self.values(moved), **_kept(index, moved)}
            infos.update({f"{name}.{key}": value for key, value in info.items()})
        accept_probs = [v for key, v in infos.items() if key.endswith(".accept_prob")]
        if accept_probs:
            infos["accept_prob"] = torch.stack(accept_probs).mean(0)
        diverging = [v for key, v in infos.items() if key.endswith(".diverging")]
        if diverging:
            infos["diverging"] = torch.stack(diverging).any(0)
        return state, infos

    def _view(self, index: int, state: State) -> State:
        """A state as one of the kernels knows it."""
        prefix = f"{PRIVATE}{index}"
        own = {
            name[len(prefix) :]: v for name, v in state.items() if name.startswith(prefix + PRIVATE)
        }
        return {**self.values(state), **own}

    def start_warmup(self, state: State, num_steps: int) -> None:
        """Prepare every kernel to adapt."""
        for index, kernel in enumerate(self.kernels):
            kernel.start_warmup(self._view(index, state), num_steps)

    def adapt(self, state: State, info: Info, num_steps: int) -> None:
        """Adapt every kernel by its own info."""
        for index, (kernel, name) in enumerate(zip(self.kernels, self._names, strict=True)):
            prefix = f"{name}."
            own = {key[len(prefix) :]: v for key, v in info.items() if key.startswith(prefix)}
            kernel.adapt(self._view(index, state), own, num_steps)

    def end_warmup(self) -> None:
        """Fix what was adapted in every kernel."""
        for kernel in self.kernels:
            kernel.end_warmup()

    def tuning_dict(self) -> dict[str, torch.Tensor]:
        """Copies of what every kernel has adapted, under its name."""
        return {
            f"{name}.{key}": value
            for name, kernel in zip(self._names, self.kernels, strict=True)
            for key, value in kernel.tuning_dict().items()
        }

    def load_tuning(self, tuning: Mapping[str, torch.Tensor]) -> None:
        """Give every kernel its adapted values."""
        for name, kernel in zip(self._names, self.kernels, strict=True):
            own = {
                k.removeprefix(f"{name}."): v for k, v in tuning.items() if k.startswith(f"{name}.")
            }
            kernel.load_tuning(own)

    def diagnostics(self) -> dict[str, float]:
        """What was adapted, where it is a number."""
        return {name: float(v) for name, v in self.tuning_dict().items() if v.numel() == 1}


def _kept(index: int, state: State) -> State:
    """What a kernel keeps beside the sites, under names that no other kernel uses."""
    return {
        f"{PRIVATE}{index}{name}": value
        for name, value in state.items()
        if name.startswith(PRIVATE)
    }
