# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A positive number from a free one."""

from __future__ import annotations

from math import e, log

import torch
from torch.nn.functional import softplus

_SHIFT = log(e - 1)  # softplus of it is 1


def positive_near_one(a: torch.Tensor) -> torch.Tensor:
    r"""Return :math:`\log(1 + (e - 1) e^a)`, an increasing positive function that is 1 at 0.

    Args:
        a: numbers of any shape.

    Example:
        >>> import torch
        >>> torch.allclose(positive_near_one(torch.zeros(2)), torch.ones(2))
        True
    """
    return softplus(a + _SHIFT)
