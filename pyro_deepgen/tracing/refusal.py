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
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
_MASKS = (torch.bool, torch.uint8)
_READINGS = (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__)


class TracingError(RuntimeError):
    """A program whose Python needs the value of a tensor, so that it is no single graph."""


@contextmanager
def refusal(varies: Callable[[Any], bool]) -> Iterator[None]:
    """Refuse, while a program is recorded, what depends on the values of tensors.

    Args:
        varies: whether a tensor may have other values when the graph runs.

    Raises:
        TracingError: naming the line and the last site.
    """
    with _LastSite() as last:
        try:
            with _FixedShapes(varies), _NoReading(varies):
                yield
        except RuntimeError as error:
            if "tracing tensor" not in str(error):
                raise
            raise TracingError(_explain(error, last.site)) from error


class _FixedShapes(TorchDispatchMode):
    """Refuses results whose shape depends on values."""

    def __init__(self, varies: Callable[[Any], bool]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._varies = varies

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
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
    """Refuses the ways out of PyTorch that are no operations."""

    def __init__(self, varies: Callable[[Any], bool]) -> None:
        super().__init__()
        self._varies = varies

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _READINGS and self._varies(args[0]):
            raise RuntimeError(f"{func.__name__} of a tracing tensor")
        return func(*args, **(kwargs or {}))


class _LastSite(Messenger):
    """Remembers the name of the last sample site."""

    site: str | None = None

    def _pyro_post_sample(self, msg: Any) -> None:
        self.site = msg["name"]


def _explain(error: RuntimeError, site: str | None) -> str:
    """Say which line needed a value, and after which site."""
    here = Path(__file__).parent
    machinery = [here, here.parent / "infer"]
    machinery += [Path(m.__file__ or "").parent for m in (torch, pyro)]
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(p in Path(f.filename).parents for p in machinery)]
    where = own[-1] if own else frames[-1]
    after = f" after sampling {site!r}" if site else ""
    return (
        f'{Path(where.filename).name}, line {where.lineno}, "{where.line}" needs the value of a '
        f"tensor{after}. Python control flow, float(), .item(), print and x[mask] of a value "
        "cannot be part of a graph: use torch.where or a mask, or train this program with "
        "pyro.infer.SVI"
    )
