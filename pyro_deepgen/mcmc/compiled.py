# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Methods of kernels as compiled graphs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._pytree import tree_flatten, tree_unflatten

from pyro_deepgen.tracing import Graph, trace

P = ParamSpec("P")
R = TypeVar("R")
# Makes a nest of tuples, lists and dictionaries of its leaves.
Rebuilt = Callable[[Iterator[torch.Tensor]], Any]


class Compilable(Protocol):
    """What has compiled methods.

    Args:
        compile: ``True`` compiles, ``"recorded"`` records the operations and runs them as they
            are, ``False`` runs the Python each time; or the name of a backend of
            ``torch.compile``.
        graphs: the graphs, kept here so that they go when the object does.
    """

    compile: bool | str
    graphs: dict[Hashable, tuple[Graph, Rebuilt]]


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
        graph, rebuilt, tensors = _find(self, method, args)
        result: R = rebuilt(iter(graph(*tensors)))
        return result

    return call


def repeated(
    bound: Callable[..., Any], *args: torch.Tensor | dict[str, torch.Tensor]
) -> Callable[[], Any]:
    """Calls of a compiled method with the same tensors, without a look at them in each.

    What a call spends on its arguments is as much as a small graph takes. The tensors may change
    in place between calls; the object's numbers, flags and strings must not.

    Args:
        bound: a method of an object, that gives a tuple of tensors, or nothing.
        args: its arguments.

    Returns:
        A function without arguments, to be called where gradients are off.
    """
    owner: Any = getattr(bound, "__self__", None)
    method: Any = getattr(bound, "__func__", None)
    if owner.compile is False or get_proxy_mode() is not None or not hasattr(method, "__wrapped__"):
        return partial(bound, *args)
    graph, _, tensors = _find(owner, method.__wrapped__, args)
    return graph.on(*tensors)


def _find(
    self: Compilable, method: Callable[..., Any], args: Any
) -> tuple[Graph, Rebuilt, list[torch.Tensor]]:
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
    return *found, tensors


def _record(
    self: Compilable, method: Callable[..., Any], args: Any, tensors: list[torch.Tensor]
) -> tuple[Graph, Rebuilt]:
    _, arguments = tree_flatten(args)
    nests: list[Rebuilt] = []

    def outputs(*given: torch.Tensor) -> list[torch.Tensor]:
        leaves: list[torch.Tensor] = []
        nests.append(_taken_apart(method(self, *tree_unflatten(list(given), arguments)), leaves))
        return [leaf.contiguous() for leaf in leaves]

    examples = [t.detach() for t in tensors]
    graph = trace(outputs, examples)
    if self.compile != "recorded":
        backend = "inductor" if self.compile is True else str(self.compile)
        # The key says the shapes, and what a kernel keeps does not change its own.
        graph.compile(examples, backend, checks=False)
    return graph, nests[-1]


def _taken_apart(nest: Any, leaves: list[torch.Tensor]) -> Rebuilt:
    """Put the leaves of a nest into a list; gives what rebuilds it, in little time."""
    if isinstance(nest, torch.Tensor):
        leaves.append(nest)
        return next
    if isinstance(nest, dict):
        items = [(name, _taken_apart(value, leaves)) for name, value in nest.items()]
        return lambda new: {name: rebuilt(new) for name, rebuilt in items}
    if isinstance(nest, tuple | list):
        parts, kind = [_taken_apart(part, leaves) for part in nest], type(nest)
        return lambda new: kind([rebuilt(new) for rebuilt in parts])
    if nest is None:
        return lambda new: None
    raise TypeError(
        "expected a compiled method to give a nest of tensors, tuples, lists and dictionaries, "
        f"got {type(nest).__name__} in it"
    )
