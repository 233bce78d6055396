# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Distributions that are a product of conditionals."""

from .autoregressive_distribution import AutoregressiveDistribution
from .drawing import Drawing
from .imputation import Imputation
from .linear import LinearAutoregressive
from .made import MADE
from .nade import NADE
from .nade_k import NADEk
from .neural_autoregressive_net import NeuralAutoregressiveNet
from .orderless_nade import OrderlessNADE
from .outputs import BinaryOutput, CategoricalOutput, Output
from .real_outputs import GaussianOutput, MixtureOutput
from .rnade import RNADE

__all__ = [
    "MADE",
    "NADE",
    "RNADE",
    "AutoregressiveDistribution",
    "BinaryOutput",
    "CategoricalOutput",
    "Drawing",
    "GaussianOutput",
    "Imputation",
    "LinearAutoregressive",
    "MixtureOutput",
    "NADEk",
    "NeuralAutoregressiveNet",
    "OrderlessNADE",
    "Output",
]
