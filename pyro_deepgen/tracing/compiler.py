# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Recorded operations, compiled."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._dynamo import lookup_backend
from torch._inductor.exc import InductorError, InvalidCxxCompiler
from torch.fx import GraphModule

from .bare import compile_bare
from .draws import draw_at_once
from .matmul import choose_products
from .repeat import compile_turns
from .scalars import compute_scalars_once


@torch.no_grad()
def compiled(
    module: GraphModule,
    arguments: Sequence[torch.Tensor],
    backend: str,
    mode: str | None,
    checks: bool = True,
) -> Callable[..., Any]:
    """Compile a graph, now.

    The compiler is called on the graph itself, without ``torch.compile``, whose checks of all
    inputs cost as much at each call as a small graph does.

    Args:
        module: the operations; stays as it is.
        arguments: arguments to compile for.
        backend: backend of ``torch.compile``.
        mode: mode of ``torch.compile``, for ``backend="inductor"`` only.
        checks: whether each call checks the shapes of its arguments, and tells autograd what it
            changes in place; for the same backend only.

    Raises:
        RuntimeError: if the compiler needs a C++ compiler and finds none.
    """
    module = GraphModule(torch.nn.Module(), copy.deepcopy(module.graph))
    turns = compile_turns(module, lambda step, given: compiled(step, given, backend, mode))
    if backend == "inductor":
        choose_products(module)
        compute_scalars_once(module)
        draw_at_once(module)
    for node in module.graph.nodes:
        node.meta.clear()  # the compiler makes examples of its own
    options: dict[str, Any] = {}
    if backend == "inductor":
        patches = torch._inductor.list_mode_options(mode) if mode is not None else {}
        options["config_patches"] = patches if checks else {**patches, "size_asserts": False}
    bare = backend == "inductor" and not checks
    compiler: Callable[..., Any] = compile_bare if bare else lookup_backend(backend)
    try:
        run: Callable[..., Any] = compiler(module, list(arguments), **options)
    except (InvalidCxxCompiler, InductorError) as error:
        if "InvalidCxxCompiler" not in repr((error, error.__cause__)):
            raise
        raise RuntimeError(
            "compiling for the CPU needs a C++ compiler, and none was found: install g++ or "
            "clang++ and name it in the environment variable CXX, or run the recorded operations "
            'as they are (backend=None; in fit, compile="recorded")'
        ) from error
    return _Kept(run, turns) if turns else run


class _Kept:
    """A compiled graph and what must stay as long as it."""

    def __init__(self, run: Callable[..., Any], *others: Any) -> None:
        self._run, self._others = run, others

    def __call__(self, *given: torch.Tensor) -> Any:
        return self._run(*given)
