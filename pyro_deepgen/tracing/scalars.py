# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Scalars that are computed once, not once for each element that they meet."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten

_CHEAP = (
    *(aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.neg.default, aten.detach.default),
    *(aten.view.default, aten.expand.default, aten.unsqueeze.default, aten.squeeze.default),
)
# Fewer copies are unrolled, and then join the loop over elements after all.
_WIDTH = 9
_MANY = 1024  # elements, below which the copies cost more than they save


def compute_scalars_once(module: GraphModule) -> None:
    """Keep the compiler from computing a scalar again for every element that it multiplies.

    Inductor puts the operations that make a scalar (``beta ** step``, ``exp(log_scale)``) inside
    the loops that read it. On the CPU that costs more than it saves; a reduction ends a loop, so
    the scalar passes through the maximum of copies of itself.

    Args:
        module: a graph of operations whose nodes carry example values; changed in place.
    """
    costly: set[Node] = set()
    changed = _changed_in_place(module)
    for node in list(module.graph.nodes):
        if not _is_scalar(node) or node.op != "call_function" or node in changed:
            continue
        inherits = any(i in costly for i in node.all_input_nodes)
        if node.target in _CHEAP and not inherits:
            continue
        if not all(_is_scalar(i) for i in node.all_input_nodes):
            continue  # a reduction, which is computed once as it is
        costly.add(node)
        readers = [user for user in node.users if _has_many_elements(user)]
        if not readers:
            continue
        with module.graph.inserting_after(node):
            copies = module.graph.call_function(aten.expand.default, (node, [_WIDTH]))
        with module.graph.inserting_after(copies):
            once = module.graph.call_function(aten.amax.default, (copies, [0]))
        for reader in readers:
            reader.replace_input_with(node, once)
    module.recompile()


def _changed_in_place(module: GraphModule) -> set[Node]:
    """The nodes whose memory a later operation writes to, by themselves or through a view."""
    owner: dict[Node, Node] = {}
    written: set[Node] = set()
    for node in module.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            continue
        for argument, value in zip(schema.arguments, node.args, strict=False):
            if argument.alias_info is None:
                continue
            for given in value if isinstance(value, list | tuple) else [value]:
                if isinstance(given, Node):
                    owner[node] = owner.get(given, given)
                    if argument.alias_info.is_write:
                        written.add(owner[node])
    return {node for node in module.graph.nodes if owner.get(node, node) in written}


def _has_many_elements(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.numel() >= _MANY


def _is_scalar(node: Node) -> bool:
    value = node.meta.get("val")
    return (
        isinstance(value, torch.Tensor)
        and value.dim() == 0
        and value.is_floating_point()
        and value.device.type == "cpu"
    )
