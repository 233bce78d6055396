# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Running a program without a trace of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
from torch.random import fork_rng
from torch.utils._python_dispatch import TorchDispatchMode


class Undo(TorchDispatchMode):
    """Puts back what operations change in place in tensors that were there before."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made: set[int] = set()
        self._alive: list[torch.Tensor] = []  # an address may be used again
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def add(self, tensors: Any) -> None:
        """Count tensors as made inside."""
        for tensor in tensors if isinstance(tensors, list | tuple) else [tensors]:
            if isinstance(tensor, torch.Tensor):
                self._made.add(_memory(tensor))
                self._alive.append(tensor)

    def has(self, tensor: Any) -> bool:
        """Whether a tensor was made inside."""
        return isinstance(tensor, torch.Tensor) and _memory(tensor) in self._made

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and keep what it overwrites."""
        kwargs, schema = kwargs or {}, func._schema
        given = list(zip(schema.arguments, args, strict=False))
        given += [(a, kwargs[a.name]) for a in schema.arguments if a.name in kwargs]
        for argument, value in given:
            written = argument.alias_info is not None and argument.alias_info.is_write
            # The schemas of batch normalisations do not say that they change these.
            if written or argument.name in ("running_mean", "running_var"):
                for tensor in value if isinstance(value, list | tuple) else [value]:
                    self._keep(tensor)
        out = func(*args, **kwargs)
        if not any(returned.alias_info for returned in schema.returns):
            self.add(out)
        return out

    def _keep(self, tensor: Any) -> None:
        if isinstance(tensor, torch.Tensor) and not self.has(tensor):
            with disable_proxy_modes_tracing():
                self._before.setdefault(id(tensor), (tensor, tensor.detach().clone()))

    def put_back(self) -> None:
        """Undo all changes."""
        with torch.no_grad():
            for tensor, values in reversed(self._before.values()):
                tensor.detach().copy_(values)


def _memory(tensor: torch.Tensor) -> int:
    """What tensors share that are views of one; a sparse tensor has no views."""
    strided = tensor.layout is torch.strided
    return int(tensor.untyped_storage()._cdata) if strided else id(tensor)


@contextmanager
def without_trace() -> Iterator[Undo]:
    """Put back random streams and tensors that are changed in place inside.

    Example:
        >>> import torch
        >>> x = torch.zeros(2)
        >>> with without_trace():
        ...     _ = x.add_(1)
        >>> x.tolist()
        [0.0, 0.0]
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    undo = Undo()
    with fork_rng(devices):
        try:
            with undo:
                yield undo
        finally:
            undo.put_back()
