# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Methods of kernels as compiled graphs."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._pytree import tree_flatten, tree_unflatten

from pyro_deepgen.tracing import Graph, trace

P = ParamSpec("P")
R = TypeVar("R")


class Compilable(Protocol):
    """What has compiled methods.

    Args:
        compile: ``True`` compiles, ``"recorded"`` records the operations and runs them as they
            are, ``False`` runs the Python each time; or the name of a backend of
            ``torch.compile``.
        graphs: the graphs, kept here so that they go when the object does.
    """

    compile: bool | str
    graphs: dict[Hashable, tuple[Graph, Any]]


S = TypeVar("S", bound=Compilable)

_PLAIN = (int, float, bool, str, tuple)


def compiled(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make a method of tensors a graph that is recorded and compiled at its first call.

    The arguments are tensors, or dictionaries of them; the result is any nest of tensors, tuples,
    lists and dictionaries. A graph is kept for each kind of arguments (names, shapes, dtypes) and
    each set of numbers, flags and strings among the object's public attributes. Tensors that the
    method reaches through ``self`` are read anew at each call, so tuning that is changed in place
    takes effect. One compiled method may call another, and becomes one graph with it.

    Example:
        >>> import torch
        >>> class Scaling:
        ...     def __init__(self):
        ...         self.compile, self.graphs, self.scale = "recorded", {}, torch.tensor(2.0)
        ...     @compiled
        ...     def apply(self, x):
        ...         return {"scaled": self.scale * x}
        >>> scaling = Scaling()
        >>> _ = scaling.apply(torch.ones(3)), scaling.scale.fill_(5.0)
        >>> scaling.apply(torch.ones(3))["scaled"].tolist(), len(scaling.graphs)
        ([5.0, 5.0, 5.0], 1)
    """

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.compile is False or get_proxy_mode() is not None:
            return method(self, *args, **kwargs)
        tensors: list[torch.Tensor] = []
        key: list[Hashable] = [method.__qualname__]
        for arg in args:
            if isinstance(arg, dict):
                key.append(tuple(arg))
                tensors.extend(arg.values())
            else:
                assert isinstance(arg, torch.Tensor)
                tensors.append(arg)
        # A view's layout would cost a graph of its own.
        tensors = [t.contiguous() for t in tensors]
        key.extend((t.shape, t.dtype, t.device) for t in tensors)
        key.extend(v for name, v in vars(self).items() if name[0] != "_" and type(v) in _PLAIN)
        found = self.graphs.get(tuple(key))
        if found is None:
            found = self.graphs[tuple(key)] = _record(self, method, args, tensors)
        graph, spec = found
        result: R = tree_unflatten(graph(*tensors), spec)
        return result

    return call


def _record(
    self: Compilable, method: Callable[..., Any], args: Any, tensors: list[torch.Tensor]
) -> tuple[Graph, Any]:
    _, arguments = tree_flatten(args)
    specs: list[Any] = []

    def outputs(*given: torch.Tensor) -> list[torch.Tensor]:
        leaves, spec = tree_flatten(method(self, *tree_unflatten(list(given), arguments)))
        specs.append(spec)
        return [leaf.contiguous() for leaf in leaves]

    examples = [t.detach() for t in tensors]
    graph = trace(outputs, examples)
    if self.compile != "recorded":
        graph.compile(examples, "inductor" if self.compile is True else str(self.compile))
    return graph, specs[-1]
