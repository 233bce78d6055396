# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The flows of normflows that ours are measured beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import normflows as nf
import torch
from normflows.flows.neural_spline.autoregressive import (
    MaskedPiecewiseRationalQuadraticAutoregressive,
)
from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling
from torch import nn

from pyro_deepgen.transforms import Composed, halves_mask

from .flows_contestants import Flow, Parameter, Sizes
from .flows_copies import copy_network, copy_planar, couplings


class Swapped(nf.flows.Flow):
    """A flow that runs from the data to the base, the other way."""

    def __init__(self, part: nf.flows.Flow) -> None:
        super().__init__()
        self.part = part

    def forward(self, z: torch.Tensor) -> Any:
        """Map from the base to the data."""
        return self.part.inverse(z)

    def inverse(self, z: torch.Tensor) -> Any:
        """Map from the data to the base."""
        return self.part(z)


class WithoutContext(nf.nets.MLP):
    """A network that is offered a context."""

    def forward(self, x: torch.Tensor, context: None = None) -> torch.Tensor:
        """Map what is kept."""
        return super().forward(x)


def maf(ours: Composed, sizes: Sizes) -> Flow:
    """`MaskedAffineAutoregressive`, from the data to the base."""
    return _autoregressive(nf.flows.MaskedAffineAutoregressive, sizes)


def spline_autoregressive(ours: Composed, sizes: Sizes) -> Flow:
    """The part of `AutoregressiveRationalQuadraticSpline`, without residual blocks."""
    options = {"num_bins": sizes.bins, "tails": "linear", "tail_bound": sizes.bound}
    return _autoregressive(MaskedPiecewiseRationalQuadraticAutoregressive, sizes, **options)


def real_nvp(ours: Composed, sizes: Sizes) -> Flow:
    """`AffineCouplingBlock`, with an exchange of the halves in between."""
    half = sizes.dims // 2
    networks = [nf.nets.MLP([half, *sizes.hidden, sizes.dims]) for _ in range(sizes.layers)]
    parts: list[Any] = [nf.flows.AffineCouplingBlock(networks[0])]
    for _, network in pairwise(networks):
        parts += [nf.flows.Permute(sizes.dims, "swap"), nf.flows.AffineCouplingBlock(network)]
    if sizes.layers % 2 == 0:
        parts.append(nf.flows.Permute(sizes.dims, "swap"))
    return _flow(parts, list(_copied(ours, networks)), sizes, "all")


def spline_coupling(ours: Composed, sizes: Sizes) -> Flow:
    """The part of `CoupledRationalQuadraticSpline`, without residual blocks."""
    options = {"num_bins": sizes.bins, "tails": "linear", "tail_bound": sizes.bound}

    def network(num_in: int, num_out: int) -> nn.Module:
        return WithoutContext([num_in, *sizes.hidden, num_out])

    parts = [
        PiecewiseRationalQuadraticCoupling((~layer_mask).int(), network, **options)
        for layer_mask in (halves_mask(sizes.dims, i % 2 == 1) for i in range(sizes.layers))
    ]
    copied = list(_copied(ours, [part.transform_net for part in parts]))
    return _flow(parts, copied, sizes, "all")


def planar(ours: Composed, sizes: Sizes) -> Flow:
    """`Planar`, which has no inverse."""
    parts = [nf.flows.Planar((sizes.dims,)) for _ in ours]
    copied = [
        parameter
        for part, layer in zip(parts, ours, strict=True)
        for parameter in copy_planar(layer, part.w, part.u, part.b)
    ]
    return _flow(parts, copied, sizes, "loss")


def glow(shape: tuple[int, int, int], levels: int, steps: int, hidden: int) -> Flow:
    """`MultiscaleFlow` of `GlowBlock`, with the exponential as scale."""
    channels, height, width = shape
    bases, flows = [], []
    for level in range(levels):  # from the coarsest
        halvings = levels - level
        width_in = channels * 2 ** (halvings + 1)
        part = [nf.flows.GlowBlock(width_in, hidden, scale_map="exp") for _ in range(steps)]
        flows.append([*part, nf.flows.Squeeze()])
        piece = width_in if level == 0 else width_in // 2
        sides = (height // 2**halvings, width // 2**halvings)
        bases.append(nf.distributions.DiagGaussian((piece, *sides), trainable=False))
    merges = [nf.flows.Merge() for _ in range(levels - 1)]
    made = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)
    return Flow(
        [Parameter(p) for p in made.parameters()],
        lambda x: made.log_prob(x, None),
        lambda size: made.sample(size)[0],
        made.sample,
        "size",
    )


def _autoregressive(kind: Any, sizes: Sizes, **options: Any) -> Flow:
    width, *others = sizes.hidden
    options |= {"num_blocks": len(others), "use_residual_blocks": False}
    parts = [Swapped(kind(sizes.dims, width, **options)) for _ in range(sizes.layers)]
    parameters = [Parameter(p) for part in parts for p in part.parameters()]
    return _flow(parts, parameters, sizes, "size")


def _copied(ours: Composed, networks: Sequence[nn.Module]) -> Iterator[Parameter]:
    for network, layer in zip(networks, couplings(ours), strict=True):
        yield from copy_network(layer, network, by_variable=True)


def _flow(parts: list[Any], parameters: list[Parameter], sizes: Sizes, compared: str) -> Flow:
    base = nf.distributions.DiagGaussian(sizes.dims, trainable=False)
    made = nf.NormalizingFlow(base, parts)
    return Flow(
        parameters,
        made.log_prob,
        lambda size: made.sample(size)[0],
        made.sample,
        compared,  # type: ignore[arg-type]
    )
