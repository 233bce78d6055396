# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Running networks in evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(*parts: object) -> Iterator[None]:
    """Evaluation mode and no gradients inside, and each module's own mode again after.

    In evaluation mode dropout drops nothing, and batch normalisation uses its statistics without
    moving them.

    Args:
        parts: modules; whatever else is among them has no mode and is passed over.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Dropout(0.5))
        >>> with evaluating(net):
        ...     net.training, net(torch.ones(3)).tolist()
        (False, [1.0, 1.0, 1.0])
        >>> net.training
        True
    """
    modules = [m for part in parts if isinstance(part, nn.Module) for m in part.modules()]
    modes = [(m, m.training) for m in modules]
    try:
        for m in modules:
            m.training = False
        with torch.no_grad():
            yield
    finally:
        for m, mode in modes:
            m.training = mode
