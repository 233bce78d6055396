# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Distributions that own parameters, and distributions that Pyro does not have."""

from .buffered import BufferedDistribution
from .discretized_logistic import DiscretizedLogistic
from .module import DistributionModule

__all__ = ["BufferedDistribution", "DiscretizedLogistic", "DistributionModule"]
