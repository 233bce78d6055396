# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Bijections from the base to the data, each with an inverse and a log-determinant."""

from .act_norm import ActNorm
from .additive import Additive
from .affine import CholeskyAffine, cholesky_affine
from .affine_equation import Affine
from .autoregressive import Autoregressive
from .autoregressive_layers import autoregressive_layers
from .composed import Composed
from .conditioned import Conditioned
from .coupling import Coupling
from .coupling_layers import coupling_layers
from .dequantize import Dequantize
from .equation import Equation
from .glow import glow
from .inverse import Inverse
from .invertible_conv import InvertibleConv1x1
from .logistic_mixture import LogisticMixture
from .logit import Logit
from .maf import iaf, maf, spline_autoregressive
from .masks import alternating_mask, channel_mask, checkerboard_mask, halves_mask
from .multi_scale import MultiScale
from .nice import nice
from .parameters import ContextParameters
from .planar import Planar, planar
from .quantile import Quantile
from .radial import Radial, radial
from .rational_quadratic import RationalQuadratic
from .real_nvp import real_nvp
from .roots import increasing_root
from .scaling import DiagonalScaling
from .spline_coupling import spline_coupling
from .squeeze import Squeeze
from .sylvester import Sylvester, sylvester
from .transform import Transform

__all__ = [
    "ActNorm",
    "Additive",
    "Affine",
    "Autoregressive",
    "CholeskyAffine",
    "Composed",
    "Conditioned",
    "ContextParameters",
    "Coupling",
    "Dequantize",
    "DiagonalScaling",
    "Equation",
    "Inverse",
    "InvertibleConv1x1",
    "LogisticMixture",
    "Logit",
    "MultiScale",
    "Planar",
    "Quantile",
    "Radial",
    "RationalQuadratic",
    "Squeeze",
    "Sylvester",
    "Transform",
    "alternating_mask",
    "autoregressive_layers",
    "channel_mask",
    "checkerboard_mask",
    "cholesky_affine",
    "coupling_layers",
    "glow",
    "halves_mask",
    "iaf",
    "increasing_root",
    "maf",
    "nice",
    "planar",
    "radial",
    "real_nvp",
    "spline_autoregressive",
    "spline_coupling",
    "sylvester",
]
