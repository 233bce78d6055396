# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a chain carries from step to step, and what a person looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch

# Each tensor has a leading dimension of chains.
Values: TypeAlias = dict[str, torch.Tensor]
State: TypeAlias = dict[str, torch.Tensor]
Info: TypeAlias = dict[str, torch.Tensor]

# What a kernel keeps beside the sites has a name that starts so: no site may.
PRIVATE = "~"


def pack(values: Mapping[str, torch.Tensor], sites: Sequence[str]) -> torch.Tensor:
    """Put the values of some sites side by side.

    Args:
        values: tensors ``(C, *shape)``, one a site.
        sites: which of them, in order.

    Returns:
        ``(C, D)``, where ``D`` is the number of values of these sites in one chain.

    Example:
        >>> import torch
        >>> pack({"a": torch.zeros(5), "b": torch.ones(5, 2, 3)}, ["a", "b"]).shape
        torch.Size([5, 7])
    """
    flat = [values[name].reshape(values[name].shape[0], -1) for name in sites]
    return flat[0] if len(flat) == 1 else torch.cat(flat, -1)


def unpack(packed: torch.Tensor, shapes: Mapping[str, torch.Size]) -> Values:
    """Take side by side values apart again.

    Args:
        packed: ``(*batch, D)``.
        shapes: shape of each site's value in one chain, in the order of packing.

    Returns:
        One tensor ``(*batch, *shape)`` a site.

    Example:
        >>> import torch
        >>> shapes = {"a": torch.Size([]), "b": torch.Size([2, 3])}
        >>> {name: tuple(v.shape) for name, v in unpack(torch.zeros(5, 7), shapes).items()}
        {'a': (5,), 'b': (5, 2, 3)}
    """
    sizes = [shape.numel() for shape in shapes.values()]
    parts = packed.split(sizes, -1)
    return {
        name: part.reshape(*packed.shape[:-1], *shape)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
