# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Where a path of densities begins: a prior, a distribution, or a Pyro program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import InitMessenger
from pyro.poutine.messenger import Messenger
from torch.distributions import biject_to

from .as_target import as_target
from .model_target import ModelTarget
from .one_of_many import one_of_many
from .state import Values
from .target import Target


@dataclass(frozen=True)
class Base:
    """A normalised density with the target's sites that one can draw from.

    Args:
        target: its potential.
        draw: from a number of chains to unconstrained values.
        program: what the potential was made of.
    """

    target: Target
    draw: Callable[[int], Values]
    program: Any


class WithoutData(Messenger):
    """Take the probability of all data, and all factors, out of a program: its prior is left."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] and type(msg["fn"]).__name__ != "_Subsample":
            msg["fn"] = msg["fn"].mask(False)


class Prior:
    """The prior of a Pyro model, as a program with the same sites.

    Args:
        model: the model.
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model without what its data say."""
        with WithoutData():
            return self.model(*args, **kwargs)


class Independent(Target):
    """One distribution a site, in the coordinates of another target.

    Args:
        distributions: have ``log_prob``; one for each site.
        target: whose sites and transforms are used.
    """

    def __init__(self, distributions: Mapping[str, Any], target: Target) -> None:
        self.distributions, self.target = distributions, target
        self.sites, self.device = target.sites, target.device

    def potential(self, values: Values) -> torch.Tensor:
        """Minus the log-density of the unconstrained values ``(C,)``."""
        potential: torch.Tensor | float = 0.0
        for name, value in values.items():
            if name not in self.sites:
                continue
            transform = self.sites[name].transform
            actual = transform.inv(value)
            log_prob = self.distributions[name].log_prob(actual)
            potential = potential - log_prob.reshape(len(value), -1).sum(-1)
            if not self.sites[name].is_discrete:
                jacobian = transform.inv.log_abs_det_jacobian(value, actual)
                potential = potential - jacobian.reshape(len(value), -1).sum(-1)
        assert isinstance(potential, torch.Tensor)
        return potential

    def start(self, num_chains: int) -> Values:
        """Exact draws, unconstrained."""
        drawn = {n: d.sample(torch.Size([num_chains])) for n, d in self.distributions.items()}
        return self.unconstrain({name: drawn[name] for name in self.sites})


class ProgramDraws:
    """Draws from a Pyro program without data, or from the prior of one with data.

    Args:
        program: the program.
        args: its arguments.
        kwargs: its keyword arguments.
        target: in whose coordinates the draws are.
    """

    def __init__(
        self, program: Any, args: Sequence[Any], kwargs: Mapping[str, Any], target: Target
    ) -> None:
        self.program, self.args, self.kwargs, self.target = program, args, kwargs, target

    def __call__(self, num_chains: int) -> Values:
        """Draw ``num_chains`` values of every site, unconstrained."""
        numbers = torch.arange(num_chains, device=self.target.device)
        try:
            with one_of_many():
                drawn = torch.func.vmap(self._draw, randomness="different")(numbers)
        except (RuntimeError, ValueError):
            # Some distributions draw for one chain only, and some programs run for one only.
            draws = [self._draw(number) for number in numbers]
            drawn = {name: torch.stack([d[name] for d in draws]) for name in self.target.sites}
        return self.target.unconstrain(drawn)

    def _draw(self, number: torch.Tensor) -> Values:
        """The values of one chain; ``number`` makes each draw its own."""
        with poutine.block(), torch.no_grad(), pyro.validation_enabled(False):
            # By sample, since what rsample does in place vmap cannot do for each chain.
            program = InitMessenger(lambda node: node["fn"].sample())(self.program)
            trace: Any = poutine.trace(program).get_trace(*self.args, **self.kwargs)
        return {name: trace.nodes[name]["value"] for name in self.target.sites}


def as_base(
    base: Any,
    program: Any,
    target: Target,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    before: Base | None = None,
) -> Base:
    """Make a base for a target.

    Args:
        base: a distribution with ``log_prob`` and ``sample`` for a target of one site, a dictionary
            of them for more, a Pyro program without data, or ``None`` for the target's own: the
            prior of a Pyro model, ``program.bridge(0)``, or ``target.prior()``.
        program: what the target was made of.
        target: the target.
        args: arguments of a Pyro program.
        kwargs: keyword arguments of a Pyro program.
        before: what the same call gave for other arguments.

    Raises:
        ValueError: if there is none, or if it has other sites or another support.
    """
    if before is not None and not callable(before.program):
        return before
    if before is not None:
        base = before.program
    elif base is None:
        base = _own_base(program, target)
    if isinstance(base, Base):
        return base
    if hasattr(base, "log_prob") and hasattr(base, "sample"):
        base = dict.fromkeys(target.sites, base) if len(target.sites) == 1 else {"?": base}
    if isinstance(base, Mapping):
        _check_names(base, target)
        _check_shapes(base, target)
        independent = Independent(base, target)
        _check_support({n: getattr(d, "support", None) for n, d in base.items()}, target)
        return Base(independent, independent.start, base)
    if not callable(base):
        raise ValueError(
            "expected as base a distribution with log_prob and sample, a dictionary of them by "
            f"site, or a Pyro program, got {type(base).__name__}"
        )
    made = as_target(
        base, args, kwargs, kernel=_Keep(target), before=None if before is None else before.target
    )
    _check_names(made.sites, target)
    _check_support({name: site.support for name, site in made.sites.items()}, target)
    return Base(made, ProgramDraws(base, args, kwargs, target), base)


def _own_base(program: Any, target: Target) -> Any:
    if hasattr(program, "bridge"):
        return program.bridge(torch.zeros((), device=target.device))
    if hasattr(target, "prior"):
        return target.prior()
    if isinstance(target, ModelTarget):
        return Prior(program)
    raise ValueError(
        "expected a base to start from, a distribution with log_prob and sample over the same "
        f"values: {type(program).__name__} has no prior and no bridge(beta) of its own"
    )


class _Keep:
    """Say, in a kernel's place, which discrete sites are not to be summed out."""

    potential_fn = None

    def __init__(self, target: Target) -> None:
        self._sites = tuple(name for name, site in target.sites.items() if site.is_discrete)

    def discrete_sites(self) -> tuple[str, ...]:
        return self._sites


def _check_names(names: Mapping[str, Any], target: Target) -> None:
    if set(names) != set(target.sites):
        raise ValueError(
            f"expected a base with the sites of the target, {sorted(target.sites)}, got "
            f"{sorted(names)}: give a dictionary from site to distribution, or a Pyro program"
        )


def _check_shapes(distributions: Mapping[str, Any], target: Target) -> None:
    for name, site in target.sites.items():
        event = getattr(distributions[name], "event_shape", None)
        if event is None:
            continue
        shape = torch.Size(getattr(distributions[name], "batch_shape", ())) + event
        expected = torch.Size(site.transform.inverse_shape(site.shape))
        if shape != expected:
            raise ValueError(
                f"expected a base of the shape {tuple(expected)} for the site {name!r}, got "
                f"{tuple(shape)}: expand the distribution (expand([...]), to_event())"
            )


def _check_support(supports: Mapping[str, Any], target: Target) -> None:
    for name, site in target.sites.items():
        support = supports[name]
        if support is None:
            continue
        same = bool(support.is_discrete) == site.is_discrete
        if same and not site.is_discrete:
            probe = torch.linspace(-2.0, 2.0, max(site.shape.numel(), 1), dtype=site.dtype)
            probe = probe.reshape(site.shape).to(target.device)
            mine, its = site.transform.inv(probe), biject_to(support)(probe)
            same = mine.shape == its.shape and bool(torch.allclose(mine, its))
        if not same:
            raise ValueError(
                f"expected a base with the support of the target, but the site {name!r} has "
                f"{site.support} in the target and {support} in the base"
            )
