# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""How good a model is: likelihoods that name their scale, active units, MMD, C2ST, Parzen."""

from .active_units import ActiveUnits, active_units
from .c2st import c2st
from .figure import LikelihoodFigure, bits_per_dimension, rescale
from .likelihood import log_likelihood, naive_log_likelihood
from .mmd import (
    gaussian_kernel,
    inverse_multiquadric_kernel,
    median_bandwidth,
    mmd,
    polynomial_kernel,
)
from .parzen import parzen_bandwidth, parzen_log_likelihood

__all__ = [
    "ActiveUnits",
    "LikelihoodFigure",
    "active_units",
    "bits_per_dimension",
    "c2st",
    "gaussian_kernel",
    "inverse_multiquadric_kernel",
    "log_likelihood",
    "median_bandwidth",
    "mmd",
    "naive_log_likelihood",
    "parzen_bandwidth",
    "parzen_log_likelihood",
    "polynomial_kernel",
    "rescale",
]
