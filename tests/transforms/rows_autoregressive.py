# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Rows of the table of transforms: autoregressive ones."""

from typing import Any

from torch import nn

from pyro_deepgen.nn import MaskedMLP
from pyro_deepgen.transforms import (
    Additive,
    Affine,
    Autoregressive,
    Composed,
    LogisticMixture,
    RationalQuadratic,
    iaf,
    maf,
    spline_autoregressive,
)
from tests.transforms.row import TransformRow

NET: dict[str, Any] = {"hidden_dims": (8, 7), "activation": nn.Tanh}


def uneven() -> Autoregressive:
    """Return a layer with few units, of degrees that leave some out, and a skip connection."""
    network = MaskedMLP(
        4,
        (3, 5),
        2,
        order=[2, 0, 3, 1],
        context_dim=2,
        degrees=[[3, 0, 1], [1, 0, 3, 3, 1]],
        skip=True,
        activation=nn.Tanh,
    )
    return Autoregressive(Affine(), network)


def linear() -> Autoregressive:
    return Autoregressive(Affine(), MaskedMLP(3, (), 2, order=[1, 2, 0]), parameters_from="base")


# Layers multiply what the parameters' changes do, so these are smaller than 1.
AUTOREGRESSIVE_TRANSFORMS = [
    TransformRow("maf", Composed, lambda: maf(2, num_layers=3, **NET), (2,), noise=0.3),
    TransformRow(
        "maf_context", Composed, lambda: maf(3, num_layers=2, context_dim=2, **NET), (3,), noise=0.3
    ),
    TransformRow(
        "maf_random_order",
        Composed,
        lambda: maf(4, num_layers=2, order="random", skip=True, **NET),
        (4,),
        noise=0.3,
    ),
    TransformRow("iaf", Composed, lambda: iaf(2, num_layers=3, **NET), (2,), noise=0.3),
    TransformRow(
        "iaf_context",
        Composed,
        lambda: iaf(3, num_layers=2, context_dim=2, **NET),
        (3,),
        noise=0.3,
    ),
    TransformRow(
        "maf_additive",
        Composed,
        lambda: maf(3, num_layers=2, equation=Additive, **NET),
        (3,),
        noise=0.3,
    ),
    TransformRow(
        "spline_autoregressive",
        Composed,
        lambda: spline_autoregressive(2, num_layers=2, num_bins=4, **NET),
        (2,),
        smooth=False,
        noise=0.3,
    ),
    TransformRow(
        "spline_iaf_context",
        Autoregressive,
        lambda: Autoregressive(
            RationalQuadratic(3),
            MaskedMLP(2, (8,), 8, context_dim=2, activation=nn.Tanh),
            parameters_from="base",
        ),
        (2,),
        smooth=False,
        noise=0.3,
    ),
    TransformRow(
        "logistic_mixture",
        Composed,
        lambda: iaf(2, num_layers=1, equation=lambda: LogisticMixture(3), **NET).inv,
        (2,),
        noise=0.3,
    ),
    TransformRow(
        "logistic_mixture_from_data",
        Composed,
        lambda: maf(3, num_layers=1, context_dim=2, equation=lambda: LogisticMixture(2), **NET),
        (3,),
        noise=0.3,
    ),
    TransformRow("autoregressive_uneven", Autoregressive, uneven, (4,), noise=0.3),
    TransformRow("autoregressive_linear", Autoregressive, linear, (3,), noise=0.3),
    TransformRow("maf_one", Composed, lambda: maf(1, num_layers=2, **NET), (1,), noise=0.3),
    TransformRow(
        "maf_one_context",
        Composed,
        lambda: maf(1, num_layers=1, context_dim=2, skip=True, **NET),
        (1,),
        noise=0.3,
    ),
]
