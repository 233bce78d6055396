# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Distributions that are a product of conditionals."""

from .autoregressive_distribution import AutoregressiveDistribution
from .drawing import Drawing
from .imputation import Imputation
from .linear import LinearAutoregressive
from .logistic_output import LogisticMixtureOutput
from .made import MADE
from .nade import NADE
from .nade_k import NADEk
from .neural_autoregressive_net import NeuralAutoregressiveNet
from .orderless_nade import OrderlessNADE
from .outputs import BinaryOutput, CategoricalOutput, Output
from .pixel_cnn import PixelCNN
from .pixel_gated import GatedPixelCNN
from .pixel_rnn import PixelRNN
from .real_outputs import GaussianOutput, MixtureOutput
from .rnade import RNADE
from .wavenet import WaveNet

__all__ = [
    "MADE",
    "NADE",
    "RNADE",
    "AutoregressiveDistribution",
    "BinaryOutput",
    "CategoricalOutput",
    "Drawing",
    "GatedPixelCNN",
    "GaussianOutput",
    "Imputation",
    "LinearAutoregressive",
    "LogisticMixtureOutput",
    "MixtureOutput",
    "NADEk",
    "NeuralAutoregressiveNet",
    "OrderlessNADE",
    "Output",
    "PixelCNN",
    "PixelRNN",
    "WaveNet",
]
