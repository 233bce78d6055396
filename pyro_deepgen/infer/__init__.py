# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Objectives and engines: differentiable bounds for any Pyro model and guide."""

from .auto_flow import AutoFlow
from .compiled_loss import CompiledLoss
from .compiled_svi import CompiledSVI
from .importance_weighted import ImportanceWeightedELBO
from .log_weights import LogWeights, log_weights
from .mean_field import MeanFieldELBO
from .objective import Objective

__all__ = [
    "AutoFlow",
    "CompiledLoss",
    "CompiledSVI",
    "ImportanceWeightedELBO",
    "LogWeights",
    "MeanFieldELBO",
    "Objective",
    "log_weights",
]
