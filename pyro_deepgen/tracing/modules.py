# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The modules that a program was made with."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn

_DEPTH = 4


def modules_behind(program: Any) -> list[nn.Module]:
    """Find the modules that a program reaches: a module, or what a function or method holds.

    A method reaches the object that it belongs to; a function what it closes over, what it wraps,
    and the modules among the global variables that it names; ``functools.partial`` its arguments.

    Args:
        program: a module, a function, a method or another callable object.

    Example:
        >>> from torch import nn
        >>> net = nn.Linear(1, 1)
        >>> modules_behind(lambda x: net(x)) == [net]
        True
    """
    found: dict[int, nn.Module] = {}
    _search(program, found, set(), _DEPTH)
    return list(found.values())


def _search(thing: Any, found: dict[int, nn.Module], seen: set[int], depth: int) -> None:
    if id(thing) in seen or depth == 0:
        return
    seen.add(id(thing))
    if isinstance(thing, nn.Module):
        found[id(thing)] = thing
        return
    for part in _parts(thing):
        _search(part, found, seen, depth - 1)


def _parts(thing: Any) -> Iterator[Any]:
    if isinstance(thing, functools.partial):
        yield from (thing.func, *thing.args, *thing.keywords.values())
    elif isinstance(thing, list | tuple):
        yield from thing
    elif isinstance(thing, dict):
        yield from thing.values()
    elif inspect.ismethod(thing):
        yield from (thing.__self__, thing.__func__)
    elif inspect.isfunction(thing):
        variables = inspect.getclosurevars(thing)
        yield from variables.nonlocals.values()
        # Of the rest of a program's globals only modules: others lead everywhere.
        yield from (v for v in variables.globals.values() if isinstance(v, nn.Module))
        yield getattr(thing, "__wrapped__", None)
    elif not isinstance(thing, type) and not inspect.ismodule(thing):
        yield from getattr(thing, "__dict__", {}).values()
