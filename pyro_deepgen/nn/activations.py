# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Nonlinearities that may take the place of their input."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def over_its_input(activation: Callable[[], nn.Module]) -> nn.Module:
    """Make a nonlinearity whose input nobody else needs, in place where that is known to be right.

    The output of a dense layer or a convolution is needed by the nonlinearity alone, also for the
    gradient, and the one of images is large: to write over it spares a tenth of a flow's time.

    Args:
        activation: makes the nonlinearity.

    Returns:
        A rectifier that works in place for ``nn.ReLU``, else what ``activation()`` makes.

    Example:
        >>> import torch
        >>> h, relu = torch.tensor([-1.0, 2.0]), over_its_input(nn.ReLU)
        >>> relu(h) is h, h.tolist()
        (True, [0.0, 2.0])
    """
    return nn.ReLU(inplace=True) if activation is nn.ReLU else activation()
