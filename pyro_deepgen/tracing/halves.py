# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A graph of a function and its gradient, cut in two."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Graph as Operations
from torch.fx import GraphModule, Node

aten = torch.ops.aten


def halves(
    joint: GraphModule, before: set[str], num_given: int, num_results: int
) -> tuple[GraphModule, GraphModule, list[int]]:
    """Cut a graph of ``(*given, *tangents)`` in two where its gradient begins.

    Args:
        joint: gives the results, then the gradients.
        before: names of the operations of the first half.
        num_given: the number of ``given``.
        num_results: the number of results.

    Returns:
        A graph from ``given`` to the results and what else the second half needs; a graph from
        what it needs, and ``tangents``, to the gradients; what it needs, counted in ``given`` and
        then in what the first gives.
    """
    *nodes, last = joint.graph.nodes
    placeholders = [node for node in nodes if node.op == "placeholder"]
    given, tangents = placeholders[:num_given], placeholders[num_given:]
    operations = [node for node in nodes if node.op != "placeholder"]
    firsts = [node for node in operations if node.name in before or _is_number(node)]
    seconds = [node for node in operations if node not in set(firsts)]
    results: Any = last.args[0]
    results, gradients = list(results[:num_results]), list(results[num_results:])

    known, again, needed = {*seconds, *tangents}, list[Node](), list[Node]()

    def need(node: Node) -> None:
        if node in known:
            return
        known.add(node)
        # A compiled graph gives views and numbers at a cost; the second half makes its own.
        if node not in results and (_is_number(node) or _is_view(node)):
            for source in node.all_input_nodes:
                need(source)
            again.append(node)
        else:
            needed.append(node)

    for node in seconds:
        for source in node.all_input_nodes:
            need(source)
    for node in gradients:
        if node is not None:
            need(node)
    made = [node for node in needed if node not in given and node not in results]
    pool = [*given, *results, *made]
    forward = _graph(joint, given, firsts, [*results, *made])
    backward = _graph(joint, [*needed, *tangents], [*again, *seconds], gradients)
    return forward, backward, [pool.index(node) for node in needed]


def _graph(
    owner: GraphModule, inputs: Sequence[Node], operations: Sequence[Node], outputs: Sequence[Any]
) -> GraphModule:
    graph = Operations()
    copies = {node: graph.placeholder(node.name) for node in inputs}
    for node, copied in copies.items():
        copied.meta.update(node.meta)
    for node in operations:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output([None if node is None else copies[node] for node in outputs])
    graph.lint()
    return GraphModule(owner, graph)


def _is_number(node: Node) -> bool:
    """Whether a node is a constant number that nothing changes in place."""
    written = (getattr(user.target, "_schema", None) for user in node.users)
    fixed = not any(schema is not None and schema.is_mutable for schema in written)
    return node.target is aten.full.default and not node.args[0] and fixed


def _is_view(node: Node) -> bool:
    """Whether a node is another look at the memory of its input."""
    if node.target is operator.getitem:
        return _is_view(node.all_input_nodes[0])
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    aliases = [returned.alias_info for returned in node.target._schema.returns]
    return bool(aliases) and all(a is not None and not a.is_write for a in aliases)
