# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A recorded loss, the calls it is good for, and the state it is good for."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..tracing import Graph
from .recorded_update import RecordedUpdate

_TENSOR, _NUMBER = object(), object()
_KIND = attrgetter("requires_grad", "dtype", "shape", "device")


class Call:
    """The arguments of a call as tensors, and what else a recording of the call depends on.

    Floating-point numbers become tensors; of everything else the values belong to :attr:`key`.

    Raises:
        ValueError: if an argument is a NumPy array, whose values would be frozen.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.tensors: list[torch.Tensor] = []
        self._others: list[Any] = []
        if not kwargs and all(type(item) is torch.Tensor for item in args):
            items, self._spec = list(args), None
        else:
            items, self._spec = tree_flatten((args, dict(sorted(kwargs.items()))))
        signature: list[Hashable] = [self._spec, torch.get_default_dtype(), *_surroundings()]
        numbers: list[tuple[int, float]] = []
        for item in items:
            if isinstance(item, torch.Tensor):
                self._others.append(_TENSOR)
                self.tensors.append(item)
                strides = item.stride() if item.layout is torch.strided else None
                kind = item.dtype, item.device, item.requires_grad
                signature.append((item.shape, strides, *kind))
            elif isinstance(item, float | np.floating):
                self._others.append(_NUMBER)
                numbers.append((len(self.tensors), float(item)))
                self.tensors.append(torch.empty(0))
                signature.append(float)
            elif isinstance(item, np.ndarray):
                raise ValueError(
                    "expected tensors, got a NumPy array, whose values would be frozen at the "
                    "recording: pass torch.as_tensor(array)"
                )
            else:
                self._others.append(item)
                item = frozenset(item) if isinstance(item, set) else item
                signature.append((type(item), item if isinstance(item, Hashable) else _Same(item)))
        if numbers:
            self._fill(numbers)
        self.key: Hashable = tuple(signature)

    def _fill(self, numbers: list[tuple[int, float]]) -> None:
        """Make the numbers tensors of the dtype and on the device of the others."""
        places = {place for place, _ in numbers}
        given = [t for place, t in enumerate(self.tensors) if place not in places]
        floating = [t.dtype for t in given if t.is_floating_point()]
        dtype = _widest(floating) if floating else torch.get_default_dtype()
        device = given[0].device if given else None
        for place, number in numbers:
            self.tensors[place] = torch.tensor(number, dtype=dtype, device=device)

    def with_tensors(
        self, tensors: Sequence[torch.Tensor]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with other tensors in place of the call's own."""
        left = iter(tensors)
        items = [next(left) if o is _TENSOR or o is _NUMBER else o for o in self._others]
        if self._spec is None:
            return tuple(items), {}
        rebuilt: tuple[tuple[Any, ...], dict[str, Any]] = tree_unflatten(items, self._spec)
        return rebuilt


def _surroundings() -> Iterator[Hashable]:
    """What changes the operations of a program from outside: autocast, and Pyro's handlers."""
    for device in ("cpu", "cuda"):
        enabled = torch.is_autocast_enabled(device)
        yield torch.get_autocast_dtype(device) if enabled else None
    yield from map(_Same, _PYRO_STACK)


class _Same:
    """An object that is equal to itself only, and kept, so that its address stays its own."""

    def __init__(self, item: Any) -> None:
        self.item = item

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.item is other.item

    def __hash__(self) -> int:
        return id(self.item)


class Uses(Messenger):
    """Notes which parameters and modules a program uses, while it runs.

    Args:
        modules: modules that are known to be used.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self._modules = {id(m): m for module in modules for m in module.modules()}
        self._parameters: dict[int, tuple[str, torch.Tensor]] = {}

    def __enter__(self) -> Uses:
        """Look at all modules that are called."""
        self._hook = register_module_forward_pre_hook(self._see)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Look no more."""
        super().__exit__(*error)
        self._hook.remove()

    def _see(self, module: nn.Module, args: Any) -> None:
        self._modules[id(module)] = module

    def _pyro_post_param(self, msg: Any) -> None:
        value = msg["value"]
        leaf = value.unconstrained() if hasattr(value, "unconstrained") else value
        self._parameters[id(leaf)] = (msg["name"], leaf)

    def modules(self) -> list[nn.Module]:
        """All modules that are known or were called, and their children."""
        found = {id(m): m for module in self._modules.values() for m in module.modules()}
        return list(found.values())

    def parameters(self) -> dict[str, torch.Tensor]:
        """The leaf tensors behind the ``pyro.param`` statements, those that require gradients."""
        return unique_names(self._parameters.values())


class Recording:
    """A graph, the parameters that it differentiates by, and the state that it was made for.

    Args:
        key: what must be the same for the graph to be used again.
        graph: the graph.
        parameters: what the graph differentiates by.
        modules: modules that the program uses: their modes, parameters and buffers are watched.
        update: the step of an optimiser that is part of the graph.
    """

    def __init__(
        self,
        key: Hashable,
        graph: Graph,
        parameters: dict[str, torch.Tensor],
        modules: Sequence[nn.Module],
        update: RecordedUpdate | None,
    ) -> None:
        self.key, self.graph, self.parameters, self.update = key, graph, parameters, update
        self._modules = modules
        own = set() if update is None else set(map(id, update.tensors))
        used = {id(t): t for t in (*parameters.values(), *graph.captured) if id(t) not in own}
        self._tensors = list(used.values())
        stored = dict(pyro.get_param_store().named_parameters())
        self._stored = [(name, t) for name, t in stored.items() if id(t) in used]
        self._tables: list[dict[str, Any]] = [
            table for m in modules for table in (m._parameters, m._buffers, m._modules)
        ]
        self._state = self._look()

    def inputs(self, call: Call) -> list[torch.Tensor]:
        """What the graph is given for a call."""
        return call.tensors if self.update is None else [*self.update.rates, *call.tensors]

    def holds(self) -> bool:
        """Whether all that the program reads is still what it was, but for the values."""
        if self._look() != self._state or not (self.update is None or self.update.holds()):
            return False
        if not self.graph.reads_hold():
            return False
        if not self._stored:
            return True
        stored = dict(pyro.get_param_store().named_parameters())
        return all(stored.get(name) is tensor for name, tensor in self._stored)

    def _look(self) -> tuple[list[Any], ...]:
        return (
            [module.training for module in self._modules],
            [id(entry) for table in self._tables for entry in table.values()],
            list(map(_KIND, self._tensors)),
        )


def own_memory(
    parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None]
) -> list[torch.Tensor | None]:
    """Copy gradients that share memory, or lie in it otherwise than their parameters.

    Two outputs of a graph may be one tensor, or expanded, or transposed; clipping changes gradients
    in place, and LBFGS asks for views of them.
    """
    seen: set[int] = set()
    owned: list[torch.Tensor | None] = []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            memory = gradient.untyped_storage()._cdata
            if memory in seen or gradient.stride() != parameter.stride():
                gradient = torch.empty_like(parameter).copy_(gradient)
            seen.add(memory)
        owned.append(gradient)
    return owned


def unique_names(parameters: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Name tensors that require gradients, each once, and two of the same name apart."""
    found: dict[str, torch.Tensor] = {}
    known: set[int] = set()
    for name, tensor in parameters:
        if tensor.requires_grad and id(tensor) not in known:
            known.add(id(tensor))
            while name in found:
                name += "'"
            found[name] = tensor
    return found


def _widest(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    widest = dtypes[0]
    for dtype in dtypes[1:]:
        widest = torch.promote_types(widest, dtype)
    return widest
