# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Networks: plain modules that hold no probability and no Pyro site."""

from .batching import apply_batched
from .context import join_context, linear_with_context
from .convolutional import ConvDecoder, ConvEncoder, Unpool
from .coupling_convolutional import CouplingCNN
from .coupling_dense import CouplingMLP
from .coupling_residual import CouplingResNet, ResidualBlock, WeightNormConv2d
from .degrees import as_order, spread_degrees
from .dense import MLP
from .evaluation import evaluating
from .masked import MaskedLinear, MaskedMLP
from .masked_convolution import MaskedConv2d, spread_labels
from .sizes import as_shape, as_size, as_sizes

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "CouplingCNN",
    "CouplingMLP",
    "CouplingResNet",
    "MaskedConv2d",
    "MaskedLinear",
    "MaskedMLP",
    "ResidualBlock",
    "Unpool",
    "WeightNormConv2d",
    "apply_batched",
    "as_order",
    "as_shape",
    "as_size",
    "as_sizes",
    "evaluating",
    "join_context",
    "linear_with_context",
    "spread_degrees",
    "spread_labels",
]
