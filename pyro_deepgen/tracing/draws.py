# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Many random numbers at once, by PyTorch's own generators."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

aten = torch.ops.aten

_LIBRARY = torch.library.Library("pyro_deepgen", "FRAGMENT")
_SEEDED = (torch.Tag.nondeterministic_seeded,)  # so that no two draws are taken for one
_LIBRARY.define("uniform_like(Tensor x) -> Tensor", tags=_SEEDED)
_LIBRARY.define("normal_like(Tensor x) -> Tensor", tags=_SEEDED)


def _uniform_like(x: torch.Tensor) -> torch.Tensor:
    return torch.rand_like(x, memory_format=torch.contiguous_format)


def _normal_like(x: torch.Tensor) -> torch.Tensor:
    return torch.randn_like(x, memory_format=torch.contiguous_format)


def _like_x(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


_LIBRARY.impl("uniform_like", _uniform_like, "CPU")
_LIBRARY.impl("normal_like", _normal_like, "CPU")
for _name in ("uniform_like", "normal_like"):
    torch.library.register_fake(f"pyro_deepgen::{_name}", _like_x, lib=_LIBRARY)

# What draws instead, from how many numbers on: below, the call costs as much as it saves.
_INSTEAD = {
    aten.rand_like.default: (torch.ops.pyro_deepgen.uniform_like.default, 1024),
    aten.randn_like.default: (torch.ops.pyro_deepgen.normal_like.default, 128),
}


def draw_at_once(module: GraphModule) -> None:
    """Let PyTorch draw uniform and normal numbers on the CPU where there are many.

    Inductor writes a counter-based generator into its loops, which makes one number at a time: that
    takes several times as long as PyTorch does for many at once.

    Args:
        module: a graph of operations whose nodes carry example values; changed in place.
    """
    for drawn, (instead, many) in _INSTEAD.items():
        for node in module.graph.find_nodes(op="call_function", target=drawn):
            value, like = node.meta["val"], node.all_input_nodes[0].meta["val"]
            alike = value.dtype == like.dtype and value.device == like.device
            if value.device.type == "cpu" and value.numel() >= many and alike:
                node.target, node.args, node.kwargs = instead, node.args[:1], {}
    module.recompile()
