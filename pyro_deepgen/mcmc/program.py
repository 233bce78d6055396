# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A Pyro model with its arguments, evaluated at draws from its posterior."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.distributions.util import scale_and_mask
from pyro.infer import Predictive
from pyro.poutine.util import prune_subsample_sites

from .state import Values

Node = dict[str, Any]

# Draws that are evaluated at once.
_CHUNK_SIZE = 1000


@dataclass(frozen=True)
class Program:
    """A Pyro model and what it was run with.

    Args:
        model: the model.
        args: its arguments.
        kwargs: its keyword arguments.
    """

    model: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    def observed_data(self, samples: Values) -> Values:
        """The data of every observed site.

        Args:
            samples: constrained values ``(S, *shape)`` of latent sites.
        """
        nodes = _observed(self._first_trace(samples), samples)
        return {name: torch.as_tensor(node["value"]).detach() for name, node in nodes}

    def log_likelihood(self, samples: Values) -> Values:
        """The log-density of every datum at every draw.

        Args:
            samples: constrained values ``(S, *shape)`` of all latent sites.

        Returns:
            For every observed site ``(S, *batch_shape)``, not scaled by subsampling.

        Raises:
            ValueError: where a latent site is not among the samples.
        """

        def terms(trace: Any) -> Values:
            return {
                name: scale_and_mask(node["fn"].log_prob(node["value"]), mask=node["mask"])
                for name, node in _observed(trace, samples)
            }

        return self._evaluate(samples, terms)

    def deterministic(self, samples: Values) -> Values:
        """The values of all ``pyro.deterministic`` sites at every draw.

        Args:
            samples: constrained values ``(S, *shape)`` of all latent sites.

        Returns:
            ``(S, *shape)`` a site.

        Raises:
            ValueError: where a latent site is not among the samples.
        """

        def values(trace: Any) -> Values:
            nodes = trace.nodes.items()
            return {name: node["value"] for name, node in nodes if _is_deterministic(node)}

        return self._evaluate(samples, values)

    def predict(self, samples: Values, parallel: bool = False) -> Values:
        """New data at every draw, from ``pyro.infer.Predictive``.

        Args:
            samples: constrained values ``(S, *shape)`` of the latent sites; others are drawn.
            parallel: evaluate all draws at once, which the model's plates must allow.

        Returns:
            ``(S, *shape)`` for every observed site.
        """
        names = [name for name, _ in _observed(self._first_trace(samples), samples)]
        if not names:
            return {}
        # Predictive runs the model once on its own, which not every prior allows: then at a draw,
        # which its draws replace later.
        first = {name: value[0] for name, value in samples.items()}
        predictive = Predictive(
            poutine.condition(poutine.uncondition(self.model), first),
            posterior_samples=samples,
            return_sites=names,
            parallel=parallel,
        )
        with poutine.block(), torch.no_grad(), pyro.validation_enabled(False):
            new: Values = predictive(*self.args, **self.kwargs)
        return new

    def dims(self, samples: Values) -> dict[str, list[str]]:
        """A name for each dimension of every site: the plate's, where there is one.

        Args:
            samples: constrained values ``(S, *shape)`` of latent sites.
        """
        trace = self._first_trace(samples)
        dims = {}
        for name, node in trace.nodes.items():
            if node["type"] != "sample":
                continue
            plates = {
                frame.dim: frame.name for frame in node["cond_indep_stack"] if frame.vectorized
            }
            num_batch = len(node["fn"].batch_shape)
            dims[name] = [f"{name}_dim_{i}" for i in range(torch.as_tensor(node["value"]).dim())]
            for dim, plate in plates.items():
                dims[name][num_batch + dim] = plate
        return dims

    def _trace(self, values: Values) -> Any:
        model = poutine.condition(self.model, values)
        with poutine.block(), torch.no_grad(), pyro.validation_enabled(False):
            trace = poutine.trace(model).get_trace(*self.args, **self.kwargs)
        return prune_subsample_sites(trace)

    def _first_trace(self, samples: Values) -> Any:
        # At a draw, since not every prior can be drawn from.
        return self._trace({name: value[0] for name, value in samples.items()})

    def _evaluate(self, samples: Values, pick: Callable[[Any], Values]) -> Values:
        first = self._first_trace(samples)
        for name, node in first.iter_stochastic_nodes():
            if name not in samples:
                raise ValueError(
                    f"expected a draw of every latent site, and there is none of {name!r} "
                    f"({type(node['fn']).__name__}): keep it with save_params, and where it is "
                    "summed out, move it by a kernel (DiscreteGibbs)"
                )
        if not pick(first):
            return {}
        evaluate = torch.func.vmap(lambda v: pick(self._trace(v)), chunk_size=_CHUNK_SIZE)
        result: Values = evaluate(samples)
        return result


def _is_deterministic(node: Node) -> bool:
    return node["type"] == "sample" and bool(node["infer"].get("_deterministic"))


def _observed(trace: Any, samples: Values) -> Iterator[tuple[str, Node]]:
    for name, node in trace.nodes.items():
        # Latent sites are conditioned on their draws; a factor has no datum.
        is_data = node["type"] == "sample" and node["is_observed"] and name not in samples
        if is_data and not _is_deterministic(node) and not isinstance(node["fn"], Unit):
            yield name, node
