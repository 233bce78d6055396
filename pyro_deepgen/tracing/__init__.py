# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A Pyro program as one graph of tensor operations."""

from .device_only import device_only
from .function import CompiledFunction
from .graph import Graph, trace
from .modules import modules_behind
from .refusal import TracingError
from .repeat import is_recording, repeat
from .undo import without_trace

__all__ = [
    "CompiledFunction",
    "Graph",
    "TracingError",
    "device_only",
    "is_recording",
    "modules_behind",
    "repeat",
    "trace",
    "without_trace",
]
