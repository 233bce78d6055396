# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A recorded loss, the calls it is good for, and the state it is good for."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..tracing import Graph

_TENSOR, _NUMBER = object(), object()


class Call:
    """The arguments of a call as tensors, and what else a recording of the call depends on.

    Floating-point numbers become tensors; of everything else the values belong to :attr:`key`.

    Raises:
        ValueError: if an argument is a NumPy array, whose values would be frozen.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        items, self._spec = tree_flatten((args, dict(sorted(kwargs.items()))))
        given = [item for item in items if isinstance(item, torch.Tensor)]
        floating = [item.dtype for item in given if item.is_floating_point()]
        number: dict[str, Any] = {
            "dtype": _widest(floating) if floating else torch.get_default_dtype(),
            "device": given[0].device if given else None,
        }
        self.tensors: list[torch.Tensor] = []
        self._others: list[Any] = []
        signature: list[Hashable] = []
        for item in items:
            if isinstance(item, torch.Tensor):
                self._others.append(_TENSOR)
                self.tensors.append(item)
                strides = item.stride() if item.layout is torch.strided else None
                kind = item.dtype, item.device, item.requires_grad
                signature.append((tuple(item.shape), strides, *kind))
            elif isinstance(item, float | np.floating):
                self._others.append(_NUMBER)
                self.tensors.append(torch.tensor(float(item), **number))
                signature.append(float)
            elif isinstance(item, np.ndarray):
                raise ValueError(
                    "expected tensors, got a NumPy array, whose values would be frozen at the "
                    "recording: pass torch.as_tensor(array)"
                )
            else:
                self._others.append(item)
                signature.append((type(item), item if isinstance(item, Hashable) else _Same(item)))
        self.key: Hashable = (self._spec, torch.get_default_dtype(), *signature)

    def with_tensors(
        self, tensors: Sequence[torch.Tensor]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with other tensors in place of the call's own."""
        left = iter(tensors)
        items = [next(left) if o is _TENSOR or o is _NUMBER else o for o in self._others]
        rebuilt: tuple[tuple[Any, ...], dict[str, Any]] = tree_unflatten(items, self._spec)
        return rebuilt


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
    """

    def __init__(
        self,
        key: Hashable,
        graph: Graph,
        parameters: dict[str, torch.Tensor],
        modules: Sequence[nn.Module],
    ) -> None:
        self.key, self.graph, self.parameters = key, graph, parameters
        self._modules = modules
        stored = dict(pyro.get_param_store().named_parameters())
        names = {id(p): name for name, p in stored.items()}
        self._tensors = list({id(t): t for t in (*parameters.values(), *graph.captured)}.values())
        self._stored = [(names[id(t)], t) for t in self._tensors if id(t) in names]
        self._state = list(self._look())

    def holds(self) -> bool:
        """Whether all that the program reads is still what it was, but for the values."""
        return all(now == then for now, then in zip(self._look(), self._state, strict=True))

    def _look(self) -> Iterator[Hashable]:
        for module in self._modules:
            yield (
                module.training,
                tuple(map(id, module._parameters.values())),
                tuple(map(id, module._buffers.values())),
            )
        for tensor in self._tensors:
            yield tensor.requires_grad, tensor.dtype, tensor.shape, tensor.device
        stored = dict(pyro.get_param_store().named_parameters())
        for name, tensor in self._stored:
            yield stored.get(name) is tensor


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
