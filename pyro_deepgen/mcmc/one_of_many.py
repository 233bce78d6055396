# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Evaluating a program for one chain among many, by ``torch.func.vmap``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.overrides import TorchFunctionMode

from pyro_deepgen.tracing import device_only


class _LastSite(Messenger):
    """Remembers the name of the last sample site."""

    site: str | None = None

    def _pyro_post_sample(self, msg: Any) -> None:
        self.site = msg["name"]


_CHOLESKY = (torch.linalg.cholesky, torch.cholesky, torch.Tensor.cholesky)
_DATA = vars(torch._C.TensorBase)["data"].__get__


class _EachForItself(TorchFunctionMode):
    """A matrix of one chain that is not positive definite gives NaN, and stops no other chain.

    ``.data``, at whose shape Pyro looks, becomes ``.detach()``, which ``vmap`` allows.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func == _DATA:
            return args[0].detach()
        if func in _CHOLESKY:
            factor, failed = torch.linalg.cholesky_ex(*args, **(kwargs or {}))
            return torch.where((failed == 0)[..., None, None], factor, torch.nan)
        return func(*args, **(kwargs or {}))


@contextmanager
def one_of_many() -> Iterator[None]:
    """Run a program's Python for all chains at once, hidden from handlers outside.

    Raises:
        ValueError: where it looks at the value of a tensor, draws numbers beside its sites, or
            writes in place, naming the last site.
    """
    last = _LastSite()
    tracing = get_proxy_mode() is not None
    try:
        with poutine.block(), last, device_only(), _EachForItself():
            yield
    except RuntimeError as error:
        # While a graph is recorded, the recorder says more.
        if tracing or not ("vmap" in str(error) or "storage" in str(error)):
            raise
        after = f" after the site {last.site!r}" if last.site else ""
        raise ValueError(
            f"the program cannot run for many chains at once; it stops{after}: {error}\n"
            "Expected operations on tensors only. Python that looks at a value (if, .item(), "
            "float()) becomes torch.where; numbers drawn beside the sites (dropout) need the "
            "module in evaluation mode; a tensor that is filled in place becomes torch.stack"
        ) from error


def without_nan(potential: torch.Tensor) -> torch.Tensor:
    """Make what is not a number infinite, so that no chain goes there."""
    return torch.where(potential.isnan(), torch.inf, potential)
