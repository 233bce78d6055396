# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Distributions that own parameters, and distributions that Pyro does not have."""

from .buffered import BufferedDistribution
from .discretized_logistic import DiscretizedLogistic
from .flow import FlowDistribution
from .latent_space import attribute_direction, interpolate, latent_path, manipulate
from .module import DistributionModule

__all__ = [
    "BufferedDistribution",
    "DiscretizedLogistic",
    "DistributionModule",
    "FlowDistribution",
    "attribute_direction",
    "interpolate",
    "latent_path",
    "manipulate",
]
