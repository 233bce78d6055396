# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The flows of zuko that ours are measured beside."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import zuko
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.transforms import MonotonicRQSTransform

from pyro_deepgen.transforms import Composed, halves_mask

from .flows_contestants import Flow, Parameter, Sizes
from .flows_copies import copy_network, couplings


def maf(ours: Composed, sizes: Sizes) -> Flow:
    """`MAF`."""
    made = zuko.flows.MAF(sizes.dims, transforms=sizes.layers, hidden_features=sizes.hidden)
    return _flow(made, [Parameter(p) for p in made.parameters()], "size")


def spline_autoregressive(ours: Composed, sizes: Sizes) -> Flow:
    """`NSF`."""
    made = zuko.flows.NSF(
        sizes.dims, bins=sizes.bins, transforms=sizes.layers, hidden_features=sizes.hidden
    )
    return _flow(made, [Parameter(p) for p in made.parameters()], "size")


def real_nvp(ours: Composed, sizes: Sizes) -> Flow:
    """Couplings of the two halves, affine maps from the data to the base: minus ours, near 0."""
    made, parts = _coupling(sizes)
    # Its parts go from the data to the base, ours from the base to the data.
    copied = [
        parameter
        for part, layer in zip(reversed(parts), couplings(ours), strict=True)
        for parameter in copy_network(layer, part, by_variable=True, sign=-1.0)
    ]
    return _flow(made, copied, "all")


def spline_coupling(ours: Composed, sizes: Sizes) -> Flow:
    """Couplings of the two halves with the splines of `NSF`."""
    bins = sizes.bins
    made, _ = _coupling(
        sizes,
        univariate=partial(MonotonicRQSTransform, bound=sizes.bound),
        shapes=[(bins,), (bins,), (bins - 1,)],
    )
    return _flow(made, [Parameter(p) for p in made.parameters()], "size")


def _coupling(sizes: Sizes, **options: Any) -> tuple[Any, list[GeneralCouplingTransform]]:
    parts = [
        GeneralCouplingTransform(
            sizes.dims,
            mask=halves_mask(sizes.dims, flip=i % 2 == 1),
            hidden_features=sizes.hidden,
            **options,
        )
        for i in reversed(range(sizes.layers))
    ]
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal,
        loc=torch.zeros(sizes.dims),
        scale=torch.ones(sizes.dims),
        buffer=True,
    )
    return zuko.lazy.Flow(parts, base), parts


def _flow(made: Any, parameters: list[Parameter], compared: str) -> Flow:
    def draw(size: int) -> tuple[torch.Tensor, torch.Tensor]:
        y, log_prob = made().rsample_and_log_prob((size,))
        return y, log_prob

    return Flow(
        parameters,
        lambda x: made().log_prob(x),
        lambda size: made().sample((size,)),
        draw,
        compared,  # type: ignore[arg-type]
    )
