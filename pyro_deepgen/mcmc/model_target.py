# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The posterior of a Pyro model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import InitMessenger, init_to_uniform
from pyro.poutine.util import prune_subsample_sites

from .arguments import Arguments
from .data_check import check_data, telling_what_is_unchecked
from .enumeration import Enumerate, log_density
from .model_sites import ModelSites, find_sites
from .one_of_many import one_of_many, without_nan
from .reached import Reached
from .starts import draw_starts, uniform_draws
from .state import Values
from .target import Target

_RADIUS = 2.0


class ModelTarget(Target):
    r"""The posterior of a Pyro model's latent sites given its observed ones.

    .. math:: U(q) = -\log \sum_z p(x, y, z) \Bigl|\frac{\partial x}{\partial q}\Bigr|

    for continuous latent sites :math:`x(q)`, observed :math:`y`, and discrete latent sites
    :math:`z`, which are summed out unless a kernel moves them. The model runs for all chains at
    once by ``torch.func.vmap``, so it may be written for one.

    Args:
        model: a Pyro model, all of whose runs have the same sites with the same supports.
        args: its arguments, of which the target keeps copies.
        kwargs: its keyword arguments, likewise.
        keep: names of discrete sites that are not summed out, since a kernel moves them; ``None``
            means all.
        init_strategy: where chains start, as in ``pyro.infer.autoguide``; discrete sites start from
            the prior.

    Raises:
        ValueError: for a model whose sites or supports vary from run to run, a subsampled plate, a
            discrete site that can neither be summed out nor is kept, a support without a bijection,
            data outside of the support of their distribution, and for a model without latent sites;
            it names the site.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def mixture(x):
        ...     loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Bernoulli(0.5))
        ...         pyro.sample("x", dist.Normal(loc * z, 1.0), obs=x)
        >>> target = ModelTarget(mixture, (torch.tensor([0.2, 3.0]),))
        >>> potential = target.potential(target.start(num_chains=1000))
        >>> list(target.sites), potential.shape
        (['loc'], torch.Size([1000]))
    """

    def __init__(
        self,
        model: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        keep: Collection[str] | None = (),
        init_strategy: Callable[..., Any] = init_to_uniform,
    ) -> None:
        self.model, self.keep, self.init_strategy = model, keep, init_strategy
        self.arguments = Arguments(args, kwargs or {})
        self._found = self._look(self.arguments)
        self.sites, self.device = self._found.sites, self._found.device
        self._reached = self._reach()

    # ------------------------------------------------ the density

    def potential(self, values: Values) -> torch.Tensor:
        """The potential of every chain."""
        with one_of_many():
            return without_nan(torch.func.vmap(self._potential)(values))

    def _potential(self, values: Values) -> torch.Tensor:
        constrained: Values = {}
        log_jacobian: Any = 0.0
        for name, site in self.sites.items():
            value = constrained[name] = site.transform.inv(values[name])
            if not site.is_discrete:
                terms = site.transform.inv.log_abs_det_jacobian(values[name], value)
                log_jacobian = log_jacobian + terms.sum()
        log_joint: torch.Tensor = log_density(self.trace(constrained)) + log_jacobian
        return -log_joint

    def trace(self, constrained: Values) -> Any:
        """Run the model for one chain.

        Args:
            constrained: values ``(*shape)`` of all sites, in the model's terms.

        Returns:
            The trace, with enumerated values of the sites that are summed out, and without the
            sites of plates.
        """
        model = poutine.condition(self.model, constrained)
        if self._found.enumerated:
            model = Enumerate(self._found.enumerated)(model)
            model = poutine.enum(model, first_available_dim=-1 - self._found.nesting)
        arguments = self.arguments
        trace = poutine.trace(model).get_trace(*arguments.args, **arguments.kwargs)
        return prune_subsample_sites(trace)

    def explain(self, values: Values) -> str:
        """Say at which site the density or its gradient is not finite."""
        one_chain = {name: value[0] for name, value in values.items()}
        with one_of_many(), torch.no_grad():
            trace = self.trace(self.constrain(one_chain))
            trace.compute_log_prob()
        found = []
        for name, node in trace.nodes.items():
            if node["type"] == "sample":
                log_prob = node["log_prob"]
                # Of the values of an enumerated site some may be impossible.
                wrong = log_prob.isnan() | (log_prob == torch.inf)
                if wrong.any() or (log_prob.numel() and (~log_prob.isfinite()).all()):
                    value = log_prob.flatten()[wrong.flatten().long().argmax()].item()
                    found.append(f"the log-density of the site {name!r} is {value}")
        return "; ".join([*found, *filter(None, [super().explain(values)])])

    # ------------------------------------------------ starts

    def start(self, num_chains: int) -> Values:
        """Draw starts of finite density and gradient."""
        return draw_starts(self, self._draw, num_chains)

    def _draw(self, num_chains: int) -> Values:
        radius = _radius(self.init_strategy)
        uniform: Values = {}
        if radius is not None:
            sites = {name: site for name, site in self.sites.items() if not site.is_discrete}
            uniform = uniform_draws(sites, self.device, num_chains, radius)
            if len(sites) == len(self.sites):
                return uniform
        numbers = torch.arange(num_chains, device=self.device)
        try:
            with one_of_many():
                return torch.func.vmap(self._draw_one, randomness="different")(uniform, numbers)
        except (RuntimeError, ValueError):
            # Some strategies look at values, and some distributions draw for one chain only.
            draws = []
            for i in range(num_chains):
                with one_of_many(), torch.no_grad():
                    draws.append(self._draw_one({n: v[i] for n, v in uniform.items()}, numbers[i]))
            return {name: torch.stack([draw[name] for draw in draws]) for name in self.sites}

    def _draw_one(self, given: Values, number: torch.Tensor) -> Values:
        """Complete one chain's values by the strategy; ``number`` makes each chain draw its own."""
        constrained = {n: self.sites[n].transform.inv(v) for n, v in given.items()}
        arguments = self.arguments
        model = InitMessenger(self._initial)(poutine.condition(self.model, constrained))
        trace = poutine.trace(model).get_trace(*arguments.args, **arguments.kwargs)
        values = {name: trace.nodes[name]["value"] for name in self.sites}
        return {n: given[n] if n in given else self.sites[n].transform(values[n]) for n in values}

    def _initial(self, node: Any) -> torch.Tensor:
        discrete = node["fn"].support.is_discrete
        value: torch.Tensor = node["fn"].sample() if discrete else self.init_strategy(node)
        return value

    # ------------------------------------------------ the model

    def update(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Take new arguments over, if they differ from the present ones in values of tensors only.

        Graphs that have read the present ones then see the new ones.

        Returns:
            Whether they were taken over: not where shapes, types, other arguments, supports, or
            modules and parameters that the model reaches have changed.
        """
        if not self.arguments.fits(args, kwargs) or not self._reached.is_same(self._reach()):
            return False
        if not self._look(Arguments(args, kwargs)).agree(self._found):
            return False
        self.arguments.replace(args, kwargs)
        return True

    def _look(self, arguments: Arguments) -> ModelSites:
        traces = [self._prototype(arguments) for _ in range(2)]
        found = [find_sites(trace, self.keep) for trace in traces]
        if differing := found[0].differing(found[1]):
            raise ValueError(
                "expected a model all of whose runs have the same sites with the same shapes and "
                f"supports; {differing} differ between two runs. A support that depends on another "
                "site becomes a transformation of a site whose support does not (for instance "
                "upper * pyro.sample('u', Uniform(0, 1)) with pyro.deterministic)"
            )
        check_data(traces[0], partial(self._prototype, arguments))
        return found[0]

    def _prototype(self, arguments: Arguments, handler: Any = None) -> Any:
        model = InitMessenger(self._initial)(self.model)
        handler = handler or nullcontext()
        with one_of_many(), telling_what_is_unchecked(), torch.no_grad(), handler:
            return poutine.trace(model).get_trace(*arguments.args, **arguments.kwargs)

    def _reach(self) -> Reached:
        return Reached((self.model, self.arguments.args, self.arguments.kwargs))


def _radius(strategy: Callable[..., Any]) -> float | None:
    """Half the side of the cube from which a strategy draws, if it does that."""
    if strategy is init_to_uniform:
        return _RADIUS
    if isinstance(strategy, partial) and strategy.func is init_to_uniform:
        return float(strategy.keywords.get("radius", _RADIUS))
    return None
