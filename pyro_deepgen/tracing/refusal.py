# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What cannot be part of a graph, and how to say so."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
Readings = list[tuple[torch.Tensor, torch.Tensor]]
_MASKS = (torch.bool, torch.uint8)
_READINGS = (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__)


class TracingError(RuntimeError):
    """A program whose Python needs the value of a tensor, so that it is no single graph."""


@contextmanager
def refusal(varies: Callable[[Any], bool]) -> Iterator[Readings]:
    """Refuse, while a program is recorded, what depends on the values of tensors.

    Tensors from outside the program (a buffer that says whether something has begun, a mask) may
    be read: the recording is then good for their present values.

    Args:
        varies: whether a tensor may have other values each time that the graph runs.

    Yields:
        The tensors from outside that were read, each with a copy.

    Raises:
        TracingError: naming the line and the last site.
    """
    readings: Readings = []
    with _LastSite() as last:
        try:
            with _FixedShapes(varies, readings), _NoReading(varies, readings):
                yield readings
        except RuntimeError as error:
            if "tracing tensor" not in str(error):
                raise
            raise TracingError(_explain(error, last.site)) from error


class _FixedShapes(TorchDispatchMode):
    """Refuses results whose shape depends on values."""

    def __init__(self, varies: Callable[[Any], bool], readings: Readings) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._varies, self._readings = varies, readings

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is aten._local_scalar_dense.default and not self._varies(args[0]):
            _note(args[0], self._readings)
        if torch.Tag.dynamic_output_shape in func.tags:
            given = tree_leaves((args, kwargs))
            if func is aten.index.Tensor:
                given = [t for t in given[1:] if t is not None and t.dtype in _MASKS]
            if func is aten.masked_select.default:
                given = given[1:]
            if any(self._varies(tensor) for tensor in given):
                raise RuntimeError(f"the shape of {func} depends on a tracing tensor")
        return func(*args, **(kwargs or {}))


class _NoReading(TorchFunctionMode):
    """Refuses the ways out of PyTorch that are no operations, and turns masks into places."""

    def __init__(self, varies: Callable[[Any], bool], readings: Readings) -> None:
        super().__init__()
        self._varies, self._readings = varies, readings

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _READINGS:
            if self._varies(args[0]):
                raise RuntimeError(f"{func.__name__} of a tracing tensor")
            _note(args[0], self._readings)
        if func is torch.Tensor.__getitem__:
            args = (args[0], self._without_masks(args[1]))
        return func(*args, **(kwargs or {}))

    def _without_masks(self, index: Any) -> Any:
        """The places that a mask from outside selects: their number is that of the recording."""
        parts: list[Any] = []
        for part in index if isinstance(index, tuple) else (index,):
            mask = isinstance(part, torch.Tensor) and part.dtype in _MASKS and part.dim() > 0
            if not mask or self._varies(part):
                parts.append(part)
                continue
            _note(part, self._readings)
            with disable_proxy_modes_tracing():
                parts += part.nonzero().unbind(1)
        return tuple(parts) if isinstance(index, tuple) or len(parts) != 1 else parts[0]


def _note(tensor: torch.Tensor, readings: Readings) -> None:
    with disable_proxy_modes_tracing():
        readings.append((tensor, tensor.detach().clone()))


class _LastSite(Messenger):
    """Remembers the name of the last sample site."""

    site: str | None = None

    def _pyro_post_sample(self, msg: Any) -> None:
        self.site = msg["name"]


def _explain(error: RuntimeError, site: str | None) -> str:
    """Say which line needed a value, and after which site."""
    here = Path(__file__).parent
    mcmc = here.parent / "mcmc"
    machinery = [here, here.parent / "infer", mcmc]
    machinery += [Path(m.__file__ or "").parent for m in (torch, pyro)]
    frames = traceback.extract_tb(error.__traceback__)
    # Generated code has no file.
    frames = traceback.StackSummary([f for f in frames if not f.filename.startswith("<")])
    own = [f for f in frames if not any(p in Path(f.filename).parents for p in machinery)]
    reading = [f for f in frames if here not in Path(f.filename).parents]
    # The first of the library's frames is what asked for the graph.
    asking = [f for f in reading if here.parent in Path(f.filename).parents]
    is_chain = bool(asking) and mcmc in Path(asking[0].filename).parents
    otherwise = (
        "make the kernel with compile=False"
        if is_chain
        else "train this program with pyro.infer.SVI"
    )
    inner = reading[-1] if reading else frames[-1]
    where = own[-1] if own else inner
    through = "" if inner is where else f" (in {Path(inner.filename).name}, line {inner.lineno})"
    after = f" after sampling {site!r}" if site else ""
    return (
        f'{Path(where.filename).name}, line {where.lineno}, "{where.line}" needs the value of a '
        f"tensor{after}{through}. Python control flow, float(), .item(), print and x[mask] of a "
        f"value cannot be part of a graph: use torch.where or a mask, or {otherwise}"
    )
