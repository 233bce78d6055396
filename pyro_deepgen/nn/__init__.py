# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Networks: plain modules that hold no probability and no Pyro site."""

from .batching import apply_batched
from .context import join_context, linear_with_context
from .convolutional import ConvDecoder, ConvEncoder, Unpool
from .dense import MLP
from .evaluation import evaluating
from .sizes import as_shape, as_size, as_sizes

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "Unpool",
    "apply_batched",
    "as_shape",
    "as_size",
    "as_sizes",
    "evaluating",
    "join_context",
    "linear_with_context",
]
