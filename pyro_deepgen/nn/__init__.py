# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Networks: plain modules that hold no probability and no Pyro site."""

from .batching import apply_batched
from .context import join_context, linear_with_context
from .convolutional import ConvDecoder, ConvEncoder, Unpool
from .dense import MLP, as_shape

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "Unpool",
    "apply_batched",
    "as_shape",
    "join_context",
    "linear_with_context",
]
