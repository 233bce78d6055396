# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Rows of the table of transforms: the parts of flows for images, and such flows."""

from typing import Any

import torch
from torch import nn

from pyro_deepgen.transforms import (
    ActNorm,
    Composed,
    InvertibleConv1x1,
    Logit,
    MultiScale,
    Squeeze,
    Transform,
    cholesky_affine,
    glow,
    planar,
    real_nvp,
)
from tests.transforms.row import TransformRow

SMALL: dict[str, Any] = {"hidden_channels": 4, "bound": 2.0, "activation": nn.Tanh}


def started(transform: Transform, *event_shape: int) -> Transform:
    """Show a transform its first batch, and fill a network's weights that are 0 at first."""
    context = torch.randn(8, transform.context_dim) if transform.context_dim else None
    with torch.no_grad():
        for parameter in transform.parameters():
            if parameter.dim() == 4 and not parameter.any():
                parameter.add_(0.1 * torch.randn_like(parameter))
        transform.inverse_and_log_det(1 + 2 * torch.randn(8, *event_shape), context)
    assert all(m.initialized for m in transform.modules() if isinstance(m, ActNorm))
    return transform


def two_scales_of_vectors() -> MultiScale:
    """Return levels of vectors, of one event dimension."""
    return MultiScale([planar(2), cholesky_affine(4)], (4,))


def two_scales_in_context() -> MultiScale:
    """Return levels of which the coarse one only depends on a context."""
    coarse = glow((2, 2, 2), 1, 1, context_dim=3, **SMALL).levels[0]
    assert isinstance(coarse, Transform)
    return MultiScale([coarse, Squeeze().inv], (1, 4, 4))


IMAGE_TRANSFORMS = [
    TransformRow("squeeze", Squeeze, Squeeze, (2, 4, 2)),
    TransformRow("squeeze_thrice", Squeeze, lambda: Squeeze(3), (1, 3, 6)),
    TransformRow("unsqueeze", Squeeze, lambda: Squeeze().inv, (4, 2, 1)),
    TransformRow("act_norm", ActNorm, lambda: started(ActNorm(2), 2), (2,)),
    TransformRow(
        "act_norm_images", ActNorm, lambda: started(ActNorm((2, 2, 2)), 2, 2, 2), (2, 2, 2)
    ),
    TransformRow("act_norm_evaluated", ActNorm, lambda: ActNorm((2, 1, 2)).eval(), (2, 1, 2)),
    TransformRow(
        "invertible_conv", InvertibleConv1x1, lambda: InvertibleConv1x1(3), (3, 2, 2), noise=0.3
    ),
    TransformRow("logit", Logit, Logit, ()),
    TransformRow("logit_inside", Logit, lambda: Logit(0.05), ()),
    TransformRow("logit_images", Composed, lambda: Composed([ActNorm(2).eval(), Logit(0.1)]), (2,)),
    TransformRow("multi_scale_vectors", MultiScale, two_scales_of_vectors, (4,), noise=0.5),
    TransformRow(
        "multi_scale_context",
        MultiScale,
        lambda: started(two_scales_in_context(), 1, 4, 4),
        (16,),
        noise=0.2,
    ),
    TransformRow(
        "glow",
        MultiScale,
        lambda: started(glow((1, 4, 4), 2, 2, **SMALL), 1, 4, 4),
        (16,),
        noise=0.2,
    ),
    TransformRow(
        "glow_context",
        MultiScale,
        lambda: started(glow((2, 4, 2), 1, 2, context_dim=3, **SMALL), 2, 4, 2),
        (16,),
        noise=0.2,
    ),
    TransformRow(
        "real_nvp_images",
        MultiScale,
        lambda: started(real_nvp((1, 4, 4), num_levels=1, num_blocks=1, **SMALL), 1, 4, 4),
        (16,),
        noise=0.1,
    ),
]
