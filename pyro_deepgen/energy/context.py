# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Biases that depend on a context."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def offsets(context_dim: int, sizes: Sequence[int]) -> nn.Linear:
    """A linear map from a context to offsets of biases of some sizes, that starts at zero."""
    layer = nn.Linear(context_dim, sum(sizes))
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
