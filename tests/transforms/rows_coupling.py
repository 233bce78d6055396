# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Rows of the table of transforms: coupling layers and flows."""

from typing import Any

import torch
from torch import nn

from pyro_deepgen.nn import CouplingMLP, CouplingResNet
from pyro_deepgen.transforms import (
    Additive,
    Affine,
    Composed,
    Coupling,
    DiagonalScaling,
    Equation,
    RationalQuadratic,
    channel_mask,
    checkerboard_mask,
    nice,
    real_nvp,
    spline_coupling,
)
from tests.transforms.row import TransformRow

# Smooth, so that finite differences behave.
NET: dict[str, Any] = {"hidden_dims": (8,), "activation": nn.Tanh}
CONTEXT: dict[str, Any] = {"context_dim": 3, **NET}


def image_coupling(equation: Equation, mask: torch.Tensor, context_dim: int = 0) -> Coupling:
    """Return a layer for images; a network sees all channels of a checkerboard."""
    kept, changed = (m.flatten(1).any(1).sum().item() for m in (mask, ~mask))
    network = CouplingResNet(
        int(kept),
        int(changed),
        equation.num_parameters,
        channels=4,
        num_blocks=1,
        context_dim=context_dim,
        activation=nn.Tanh,
    )
    return Coupling(equation, network, mask, context_dim=context_dim)


def scattered_coupling() -> Coupling:
    """Return a layer whose mask is of no pattern."""
    mask = torch.tensor([True, False, False, True, False])
    return Coupling(Affine(), CouplingMLP(2, (8,), 3, 2, activation=nn.Tanh), mask)


COUPLING_TRANSFORMS = [
    TransformRow("diagonal_scaling", DiagonalScaling, lambda: DiagonalScaling(3), (3,)),
    TransformRow(
        "diagonal_scaling_images", DiagonalScaling, lambda: DiagonalScaling((2, 1, 2)), (2, 1, 2)
    ),
    TransformRow("coupling_scattered", Coupling, scattered_coupling, (5,), noise=0.5),
    TransformRow(
        "coupling_channels",
        Coupling,
        lambda: image_coupling(Affine(2.0), channel_mask((3, 2, 2), flip=True)),
        (3, 2, 2),
        noise=0.3,
    ),
    TransformRow(
        "coupling_channels_spline",
        Coupling,
        lambda: image_coupling(RationalQuadratic(3), channel_mask((2, 2, 1)), 3),
        (2, 2, 1),
        noise=0.3,
    ),
    TransformRow(
        "coupling_checkerboard",
        Coupling,
        lambda: image_coupling(Affine(2.0), checkerboard_mask((1, 2, 3))),
        (1, 2, 3),
        noise=0.3,
    ),
    TransformRow(
        "coupling_checkerboard_context",
        Coupling,
        lambda: image_coupling(Affine(2.0), checkerboard_mask((2, 2, 2), flip=True), 3),
        (2, 2, 2),
        noise=0.3,
    ),
    TransformRow(
        "coupling_checkerboard_additive",
        Coupling,
        lambda: image_coupling(Additive(), checkerboard_mask((2, 2, 2), flip=True)),
        (2, 2, 2),
    ),
    TransformRow("nice", Composed, lambda: nice(2, **NET), (2,)),
    TransformRow("nice_alternating", Composed, lambda: nice(3, mask="alternating", **NET), (3,)),
    TransformRow("real_nvp", Composed, lambda: real_nvp(2, num_layers=3, **NET), (2,), noise=0.5),
    TransformRow(
        "real_nvp_context",
        Composed,
        lambda: real_nvp(5, num_layers=3, mask="alternating", bound=2.0, **CONTEXT),
        (5,),
        noise=0.5,
    ),
    TransformRow(
        "spline_coupling",
        Composed,
        lambda: spline_coupling(2, num_layers=2, num_bins=4, **NET),
        (2,),
        noise=0.5,
    ),
    TransformRow(
        "spline_coupling_context",
        Composed,
        lambda: spline_coupling(3, num_layers=2, num_bins=3, bound=2.0, **CONTEXT),
        (3,),
        noise=0.5,
    ),
]
