# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The flows of Pyro that ours are measured beside."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import transforms as T
from pyro.distributions.torch_transform import TransformModule
from pyro.nn import AutoRegressiveNN, DenseNN

from pyro_deepgen.transforms import Composed

from .flows_contestants import Flow, Parameter, Sizes
from .flows_copies import copy_network, copy_planar, couplings


def maf(ours: Composed, sizes: Sizes) -> Flow:
    """`AffineAutoregressive`, from the data to the base."""
    parts = []
    for i in range(sizes.layers):
        network = AutoRegressiveNN(sizes.dims, list(sizes.hidden), permutation=_order(sizes, i))
        parts.append(T.AffineAutoregressive(network))
    return _autoregressive(parts, sizes)


def spline_autoregressive(ours: Composed, sizes: Sizes) -> Flow:
    """`SplineAutoregressive`, from the data to the base."""
    bins, parts = sizes.bins, []
    for i in range(sizes.layers):
        network = AutoRegressiveNN(
            sizes.dims,
            list(sizes.hidden),
            param_dims=[bins, bins, bins - 1],
            permutation=_order(sizes, i),
        )
        options = {"count_bins": bins, "bound": sizes.bound, "order": "quadratic"}
        parts.append(T.SplineAutoregressive(sizes.dims, network, **options))
    return _autoregressive(parts, sizes)


def real_nvp(ours: Composed, sizes: Sizes) -> Flow:
    """`AffineCoupling`, with a permutation that exchanges the halves in between."""
    half = sizes.dims // 2
    parts = []
    for _ in range(sizes.layers):
        parts.append(T.AffineCoupling(half, DenseNN(half, list(sizes.hidden), [half, half])))
    return _coupling(ours, parts, sizes)


def spline_coupling(ours: Composed, sizes: Sizes) -> Flow:
    """`SplineCoupling`, with a permutation that exchanges the halves in between."""
    half, bins = sizes.dims // 2, sizes.bins
    parts = []
    for _ in range(sizes.layers):
        network = DenseNN(half, list(sizes.hidden), [half * bins, half * bins, half * (bins - 1)])
        options = {"count_bins": bins, "bound": sizes.bound, "order": "quadratic"}
        parts.append(T.SplineCoupling(sizes.dims, half, network, identity=True, **options))
        del parts[-1].lower_spline  # the identity does not use it
    return _coupling(ours, parts, sizes)


def planar(ours: Composed, sizes: Sizes) -> Flow:
    """`Planar`, which can score its own draws only."""
    parts = [T.Planar(sizes.dims) for _ in ours]
    copied = [
        parameter
        for part, layer in zip(parts, ours, strict=True)
        for parameter in copy_planar(layer, part.w, part.u, part.bias)
    ]
    return _flow(parts, copied, sizes, "loss")


def _order(sizes: Sizes, i: int) -> Any:
    upwards: Any = torch.arange(sizes.dims)  # Pyro's annotation is of an older kind of tensor
    return upwards.flip(0) if i % 2 else upwards


def _autoregressive(parts: Sequence[TransformModule], sizes: Sizes) -> Flow:
    parameters = [Parameter(p) for part in parts for p in part.parameters()]
    return _flow([part.inv for part in parts], parameters, sizes, "size")


def _coupling(ours: Composed, parts: Sequence[TransformModule], sizes: Sizes) -> Flow:
    exchange = torch.arange(sizes.dims).roll(sizes.dims // 2)
    transforms: list[T.Transform] = [parts[0]]
    for _, part in pairwise(parts):
        transforms += [T.Permute(exchange), part]
    if len(parts) % 2 == 0:
        transforms.append(T.Permute(exchange))
    copied = [
        parameter
        for part, layer in zip(parts, couplings(ours), strict=True)
        for parameter in copy_network(layer, part, by_variable=False)
    ]
    return _flow(transforms, copied, sizes, "all")


def _flow(
    transforms: Sequence[T.Transform], parameters: list[Parameter], sizes: Sizes, compared: str
) -> Flow:
    base = dist.Normal(torch.zeros(sizes.dims), torch.ones(sizes.dims)).to_event(1)
    flow = dist.TransformedDistribution(base, list(transforms), validate_args=False)

    def forget() -> None:
        # Kept values would be of parameters before the last step, or spare the work to be timed.
        for transform in transforms:
            for part in (transform, transform.inv):
                part._cached_x_y = None, None

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        forget()
        log_prob: torch.Tensor = flow.log_prob(x)
        return log_prob

    def draw(size: int) -> tuple[torch.Tensor, torch.Tensor]:
        forget()
        y = flow.rsample((size,))
        return y, flow.log_prob(y)

    def sample(size: int) -> torch.Tensor:
        forget()
        y: torch.Tensor = flow.sample((size,))
        return y

    return Flow(parameters, log_prob, sample, draw, compared)  # type: ignore[arg-type]
