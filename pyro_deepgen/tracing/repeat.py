# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A step that is taken many times, recorded and compiled once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakValueDictionary

import torch
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, get_proxy_mode

Step = Callable[..., Sequence[torch.Tensor]]


class Turn:
    """One recorded step, which a graph finds by its number.

    Args:
        module: its operations, a function of ``(*captured, x)`` that gives ``[x]``.
        run: the same, compiled or not.
        readings: tensors whose values Python has read, with copies.
    """

    def __init__(
        self,
        module: GraphModule,
        run: Step,
        readings: Sequence[tuple[torch.Tensor, torch.Tensor]] = (),
    ) -> None:
        self.module, self.run, self.readings = module, run, readings
        self.number = next(_NUMBERS)
        _TURNS[self.number] = self


_NUMBERS = itertools.count()
# The operations of a graph have a number alone; what holds the graph must keep the turn.
_TURNS: WeakValueDictionary[int, Turn] = WeakValueDictionary()
_RECORDED: list[list[Turn]] = []

_LIBRARY = torch.library.Library("pyro_deepgen", "FRAGMENT")
_LIBRARY.define(
    "repeat(int turn, Tensor[] captured, Tensor x, int times) -> Tensor",
    tags=(torch.Tag.nondeterministic_seeded,),  # so that no two calls are taken for one
)


def _repeat(
    turn: int, captured: Sequence[torch.Tensor], x: torch.Tensor, times: int
) -> torch.Tensor:
    run = _TURNS[turn].run
    with torch.no_grad():
        for _ in range(times):
            (x,) = run(*captured, x)
    return x


def _like_x(
    turn: int, captured: Sequence[torch.Tensor], x: torch.Tensor, times: int
) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


_LIBRARY.impl("repeat", _repeat, "CompositeExplicitAutograd")
torch.library.register_fake("pyro_deepgen::repeat", _like_x, lib=_LIBRARY)
_OPERATION = torch.ops.pyro_deepgen.repeat.default


def repeat(
    step: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, times: int
) -> torch.Tensor:
    """Take a step so many times: ``x = step(x)``, without gradients.

    While a program is recorded, one step is recorded, and the graph takes it again and again: it
    compiles as fast for a hundred steps as for one. Random draws are fresh in each.

    Args:
        step: gives a tensor of the shape, dtype and device of ``x``, and leaves all others alone.
        x: where to start.
        times: how many steps.

    Example:
        >>> import torch
        >>> repeat(lambda x: 2 * x, torch.ones(2), 10).tolist()
        [1024.0, 1024.0]
    """
    with torch.no_grad():
        if times < 2 or not (is_recording() and _RECORDED):
            for _ in range(times):
                x = step(x)
            return x
        from .graph import trace  # which finds this file through the compiler

        start = x.detach().contiguous()
        with disable_proxy_modes_tracing():
            graph = trace(lambda x: [step(x).contiguous()], [start])
        turn = Turn(graph.module, graph.module, graph.readings)
        _RECORDED[-1].append(turn)
        found: torch.Tensor = _OPERATION(turn.number, graph.captured, start, times)
        return found


def is_recording() -> bool:
    """Whether the operations that run now are being recorded.

    Example:
        >>> is_recording()
        False
    """
    return get_proxy_mode() is not None


@contextmanager
def recorded_turns() -> Iterator[list[Turn]]:
    """The steps that a program takes many times, while it is recorded inside."""
    _RECORDED.append([])
    try:
        yield _RECORDED[-1]
    finally:
        _RECORDED.pop()


def compile_turns(
    module: GraphModule, compile_one: Callable[[GraphModule, list[torch.Tensor]], Step]
) -> list[Turn]:
    """Let a graph take compiled steps.

    Args:
        module: the graph, whose nodes carry example values; changed in place.
        compile_one: compiles the operations of one step for examples of what it is given.

    Returns:
        The compiled steps, which must be kept as long as the graph.
    """
    compiled = []
    for node in module.graph.find_nodes(op="call_function", target=_OPERATION):
        number, captured, x, times = node.args
        examples = [_example(given.meta["val"]) for given in (*captured, x)]
        step = _TURNS[number].module
        compiled.append(Turn(step, compile_one(step, examples)))
        node.args = (compiled[-1].number, captured, x, times)
    module.recompile()
    return compiled


def _example(like: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=like.device)
