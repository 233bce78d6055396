# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The fastest library at hand for the products of a graph."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten

# Below this many multiplications the fixed cost of oneDNN, about 10 microseconds, is not won back.
_WORTHWHILE = 2_000_000
_MANY = 50_000  # elements of a matrix, below which a call costs as much as a loop

_LIBRARY = torch.library.Library("pyro_deepgen", "DEF")
_LIBRARY.define("onednn_mm(Tensor a, Tensor b) -> Tensor")


def _onednn_mm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise.default(a, b.t(), None, "none", [], "")
    return out


def _shape_of_mm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


_LIBRARY.impl("onednn_mm", _onednn_mm, "CPU")
torch.library.register_fake("pyro_deepgen::onednn_mm", _shape_of_mm, lib=_LIBRARY)


def choose_products(module: GraphModule) -> None:
    """Let the fastest library compute the large products on the CPU.

    Inductor writes out a matrix times a vector as loops, which take longer than the library's
    product does. And PyTorch gives products of matrices to MKL, whose code for processors that are
    not Intel's leaves AVX-512 aside: on an AMD EPYC oneDNN takes half the time, for single
    precision, which is all it has. Everywhere else the graph stays as it is.

    Args:
        module: a graph of operations whose nodes carry example values; changed in place.
    """
    _keep_vector_products(module)
    if _onednn_is_faster():
        _use_onednn(module)
    module.recompile()


def _keep_vector_products(module: GraphModule) -> None:
    graph = module.graph
    for node in graph.find_nodes(op="call_function", target=aten.mv.default):
        matrix, vector = node.args
        value = matrix.meta["val"]
        if value.device.type != "cpu" or value.numel() < _MANY:
            continue
        with graph.inserting_before(node):
            column = graph.call_function(aten.unsqueeze.default, (vector, 1))
            product = graph.call_function(aten.mm.default, (matrix, column))
            new = graph.call_function(aten.squeeze.dim, (product, 1))
        node.replace_all_uses_with(new)
        graph.erase_node(node)
        column.meta["val"] = vector.meta["val"].unsqueeze(1)
        product.meta["val"] = value.new_empty(value.shape[0], 1)
        new.meta.update(node.meta)


def _use_onednn(module: GraphModule) -> None:
    graph = module.graph
    for node in list(graph.nodes):
        if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs:
            continue
        a, b = node.args[-2:]
        if not (isinstance(a, Node) and isinstance(b, Node) and _is_large(a, b)):
            continue
        with graph.inserting_before(node):
            new = graph.call_function(torch.ops.pyro_deepgen.onednn_mm.default, (a, b))
            if node.target is aten.addmm.default:
                new = graph.call_function(aten.add.Tensor, (new, node.args[0]))
        new.meta.update(node.meta)
        node.replace_all_uses_with(new)
        graph.erase_node(node)


def _is_large(a: Node, b: Node) -> bool:
    left, right = a.meta["val"], b.meta["val"]
    # A matrix times a vector is bound by memory, and MKL is as fast there.
    single = left.dtype == torch.float32 and left.device.type == "cpu" and right.shape[1] > 1
    return bool(single and left.shape[0] * left.shape[1] * right.shape[1] >= _WORTHWHILE)


@cache
def _onednn_is_faster() -> bool:
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    wide = str(torch.backends.cpu.get_cpu_capability()) == "AVX512"
    return bool(wide and "GenuineIntel" not in _processor())


def _processor() -> str:
    lines = Path("/proc/cpuinfo")
    return lines.read_text(encoding="utf8") if lines.exists() else platform.processor()
