# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Coupling layers for vectors, one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from ..nn import CouplingMLP, as_size
from .coupling import Coupling
from .equation import Equation
from .masks import alternating_mask, halves_mask

MaskName = Literal["halves", "alternating"]
_MASKS: dict[str, Callable[[int, bool], torch.Tensor]] = {
    "halves": halves_mask,
    "alternating": alternating_mask,
}


def coupling_layers(
    num_dims: int,
    make_equation: Callable[[], Equation],
    *,
    num_layers: int,
    hidden_dims: Sequence[int],
    context_dim: int = 0,
    mask: MaskName = "halves",
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> list[Coupling]:
    """Make coupling layers with dense networks that keep the two parts of a vector in turn.

    Args:
        num_dims: number of dimensions.
        make_equation: makes the equation of a layer.
        num_layers: number of layers.
        hidden_dims: number of units of every hidden layer of a network.
        context_dim: number of dimensions of the context, 0 for none.
        mask: how a vector falls into two parts.
        activation: makes the nonlinearity of the networks.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0),
            ``num_dims`` is 1 or ``mask`` is unknown.

    Returns:
        The layers, from the base to the data, each of event shape ``(num_dims,)``.

    Example:
        >>> import torch
        >>> from pyro_deepgen.transforms import Additive, Composed
        >>> flow = Composed(coupling_layers(4, Additive, num_layers=2, hidden_dims=(8,)))
        >>> x = torch.randn(5, 4)
        >>> torch.allclose(flow.inv(flow(x)), x, atol=1e-6)
        True
    """
    if mask not in _MASKS:
        raise ValueError(f"expected as mask one of {sorted(_MASKS)}, got {mask!r}")
    layers = []
    for i in range(as_size(num_layers, "num_layers")):
        kept = _MASKS[mask](num_dims, i % 2 == 1)
        num_kept, equation = int(kept.sum()), make_equation()
        network = CouplingMLP(
            num_kept,
            hidden_dims,
            num_dims - num_kept,
            equation.num_parameters,
            context_dim=context_dim,
            activation=activation,
        )
        layers.append(Coupling(equation, network, kept, context_dim=context_dim))
    return layers
