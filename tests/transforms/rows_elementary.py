# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Rows of the table of transforms: the base classes, closed forms and elementary generators."""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import transforms as pyro_transforms
from torch import nn

from pyro_deepgen.transforms import (
    CholeskyAffine,
    Composed,
    Conditioned,
    Inverse,
    Planar,
    Quantile,
    Radial,
    Sylvester,
    cholesky_affine,
    planar,
    radial,
    sylvester,
)
from tests.transforms.row import TransformRow, uniform

NET: dict[str, Any] = {"context_dim": 3, "hidden_dims": (8,)}


def composed() -> Composed:
    """Return parts of this library, of PyTorch and of Pyro, of none and one event dimension."""
    swap = pyro_transforms.Permute(torch.tensor([1, 0]))
    scale = pyro_transforms.AffineTransform(torch.zeros(2), torch.tensor([0.5, -2.0]))
    return Composed([planar(2), swap, radial(2), scale, sylvester(2).inv])


def composed_in_context() -> Composed:
    return Composed([planar(2, **NET), radial(2), planar(2, **NET).inv])


def onto_the_square() -> Composed:
    return Composed([planar(2), pyro_transforms.SigmoidTransform()])


def off_the_square() -> Composed:
    return Composed([pyro_transforms.SigmoidTransform().inv, cholesky_affine(2)])


def logistic_quantile() -> Quantile:
    loc, scale = nn.Parameter(torch.tensor(0.5)), torch.tensor(2.0)
    return Quantile(
        dist.TransformedDistribution(
            dist.Uniform(torch.tensor(0.0), torch.tensor(1.0)),
            [pyro_transforms.SigmoidTransform().inv, pyro_transforms.AffineTransform(loc, scale)],
        )
    )


def normal_quantile() -> Quantile:
    return Quantile(dist.Normal(nn.Parameter(torch.tensor(0.5)), torch.tensor(2.0)))


ELEMENTARY_TRANSFORMS = [
    TransformRow("planar", Planar, lambda: planar(2), (2,)),
    TransformRow("planar_one", Planar, lambda: planar(1), (1,)),
    TransformRow("planar_context", Planar, lambda: planar(3, **NET), (3,)),
    TransformRow("radial", Radial, lambda: radial(2), (2,)),
    TransformRow("radial_one", Radial, lambda: radial(1), (1,)),
    TransformRow("radial_context", Radial, lambda: radial(3, **NET), (3,)),
    TransformRow("sylvester", Sylvester, lambda: sylvester(2), (2,)),
    TransformRow("sylvester_bottleneck", Sylvester, lambda: sylvester(4, 2), (4,)),
    TransformRow(
        "sylvester_context",
        Sylvester,
        lambda: sylvester(3, 2, num_reflections=3, **NET),
        (3,),
    ),
    TransformRow("cholesky_affine", CholeskyAffine, lambda: cholesky_affine(2), (2,)),
    TransformRow(
        "cholesky_affine_context",
        CholeskyAffine,
        lambda: cholesky_affine(3, **NET),
        (3,),
        noise=0.3,  # it takes the exponentials of the network's outputs
    ),
    TransformRow("quantile_normal", Quantile, normal_quantile, (), uniform),
    TransformRow(
        "quantile_laplace",
        Quantile,
        lambda: Quantile(dist.Laplace(torch.tensor(0.5), torch.tensor(2.0))),
        (),
        uniform,
        smooth=False,
    ),
    TransformRow("quantile_logistic", Quantile, logistic_quantile, (), uniform),
    TransformRow("composed", Composed, composed, (2,)),
    TransformRow("composed_context", Composed, composed_in_context, (2,)),
    TransformRow("onto_the_square", Composed, onto_the_square, (2,)),
    TransformRow("off_the_square", Composed, off_the_square, (2,), uniform, noise=0.3),
    TransformRow("inverse", Inverse, lambda: planar(2).inv, (2,)),
    TransformRow("inverse_context", Inverse, lambda: planar(2, **NET).inv, (2,)),
    TransformRow(
        "conditioned",
        Conditioned,
        lambda: planar(2, **NET).condition(torch.tensor([1.0, 0.5, -1])),
        (2,),
    ),
]
