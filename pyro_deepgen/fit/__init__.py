# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The one training loop: progress, held-out data, exact checkpoints, several processes."""

from .diagnosis import NonFiniteLossError
from .history import History
from .loop import fit
from .stages import fit_stages

__all__ = ["History", "NonFiniteLossError", "fit", "fit_stages"]
