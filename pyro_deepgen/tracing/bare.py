# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Compiled operations without what the compiler puts around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch._guards import TracingContext
from torch._inductor.compile_fx import compile_fx, compile_fx_inner
from torch.fx import GraphModule


def compile_bare(
    module: GraphModule, arguments: Sequence[torch.Tensor], **options: Any
) -> Callable[..., Any]:
    """Compile a graph that is called without gradients, for as short a call as there can be.

    What surrounds the kernels by default hands aliases of inputs back, copies into inputs what the
    kernels could not write there, and tells autograd of it. A small graph takes no longer than
    that, and most have nothing for it to do: then the kernels are called by themselves.

    Args:
        module: the operations.
        arguments: arguments to compile for.
        options: of the compiler.

    Returns:
        A function of the arguments that gives the list of results.
    """
    made: list[tuple[Any, bool]] = []

    def inner(operations: GraphModule, inputs: Sequence[Any], **settings: Any) -> Any:
        found = compile_fx_inner(operations, inputs, **settings)
        made.append((found, len(inputs) == len(arguments) and _nothing_around()))
        return found

    surrounded: Any = compile_fx(module, list(arguments), inner_compile=inner, **options)
    if [suits for _, suits in made] != [True]:
        return cast(Callable[..., Any], surrounded)
    ((kernels, _),) = made
    call = getattr(kernels, "current_callable", None)
    if call is None:  # nothing is left to do
        return cast(Callable[..., Any], surrounded)

    def run(*given: torch.Tensor, _keep: Any = kernels) -> Any:
        return call(list(given))

    return run


def _nothing_around() -> bool:
    """Whether the graph that is being compiled gives its results as the kernels make them."""
    context = TracingContext.try_get()
    about = context.fw_metadata if context is not None else None
    return about is not None and not (
        about.num_outputs_aliased
        or about.num_mutated_inp_runtime_indices
        or about.num_intermediate_bases
        or about.tokens
        or about.is_rng_op_functionalized
    )
