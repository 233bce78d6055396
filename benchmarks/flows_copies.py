# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Peers of our flows that hold the same numbers as ours."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from pyro_deepgen.transforms import Composed, Coupling, Planar, RationalQuadratic, Transform

from .flows_contestants import Parameter, linears


def couplings(flow: Transform) -> list[Coupling]:
    """Return the coupling layers, from the base to the data."""
    assert isinstance(flow, Composed)
    return [layer for layer in flow if isinstance(layer, Coupling)]


def copy_network(
    layer: Coupling, network: nn.Module, *, by_variable: bool, sign: float = 1.0
) -> Iterator[Parameter]:
    """Give the network of a peer's coupling layer the values of ours.

    Args:
        layer: our layer; its network has each parameter of all variables in a row.
        network: dense layers of the same sizes.
        by_variable: whether the peer has all parameters of a variable in a row; else it has the
            shifts, log-scales, widths, heights and slopes of all variables one after the other.
        sign: that of the last layer, -1 for a peer that maps the other way.
    """
    equation, num = layer.equation, layer.equation.num_parameters
    size = layer.split.changed_shape[0]
    rows = torch.arange(num * size).reshape(num, size)
    shift = torch.zeros(num, size)
    groups = [1] * num
    if isinstance(equation, RationalQuadratic):
        shift[2 * equation.num_bins :] = equation._slope_shift  # the peers' identity is here
        groups = [equation.num_bins, equation.num_bins, equation.num_bins - 1]
    if by_variable:
        groups = [num]
    order = torch.cat([group.mT.reshape(-1) for group in rows.split(groups)])
    shifts = shift.reshape(-1)[order]
    mine = linears(layer.network)
    theirs = linears(network)
    for of_ours, of_peer in zip(mine[:-1], theirs[:-1], strict=True):
        for kind in ("weight", "bias"):
            parameter = Parameter(getattr(of_peer, kind))
            parameter.take(getattr(of_ours, kind))
            yield parameter
    weight = Parameter(theirs[-1].weight, order, sign)
    bias = Parameter(theirs[-1].bias, order, sign, shifts)
    weight.take(mine[-1].weight)
    bias.take(mine[-1].bias)
    yield from (weight, bias)


def copy_planar(
    layer: Transform, w: torch.Tensor, u: torch.Tensor, b: torch.Tensor
) -> Iterator[Parameter]:
    """Give the parameters of a peer's planar layer the values of ours.

    Its u is such that both push alike: the peers have no factor in their bound on w.u.
    """
    assert isinstance(layer, Planar)
    values = layer.values(None)
    ours_w, ours_u, ours_b = (value.detach() for value in values)
    shift = math.log(math.expm1(1)) * ours_w / ours_w.square().sum()
    for tensor, value in ((w, ours_w), (u, ours_u + shift), (b, ours_b)):
        parameter = Parameter(tensor)
        parameter.take(value)
        yield parameter
