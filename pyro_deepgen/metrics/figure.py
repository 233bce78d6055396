# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Likelihood figures that name their unit and the scale of the data."""

from __future__ import annotations

from math import log
from typing import NamedTuple

import torch


class LikelihoodFigure(NamedTuple):
    """A mean log-likelihood with its standard error, unit and the scale of the data.

    A density changes with the unit of the data, so a likelihood without its scale says nothing.

    Args:
        value: the mean over the data.
        standard_error: standard error of that mean over the data.
        unit: ``"nats"`` or ``"bits per dimension"``.
        scale: the units of the data, in words.
        num_data: number of data.

    Example:
        >>> import torch
        >>> print(LikelihoodFigure.nats(torch.tensor([-1.0, -3.0]), "grey levels / 255"))
        -2.000 +- 1.000 nats (2 data, grey levels / 255)
    """

    value: float
    standard_error: float
    unit: str
    scale: str
    num_data: int

    @staticmethod
    def nats(log_likelihood: torch.Tensor, scale: str) -> LikelihoodFigure:
        """The mean of log-likelihoods of shape ``(N,)`` in nats."""
        return _mean(log_likelihood, "nats", scale)

    @staticmethod
    def bits(
        log_likelihood: torch.Tensor, num_dims: int, bin_width: float, scale: str
    ) -> LikelihoodFigure:
        """The mean of :func:`bits_per_dimension`."""
        bits = bits_per_dimension(log_likelihood, num_dims, bin_width)
        return _mean(bits, "bits per dimension", scale)

    def __str__(self) -> str:
        return (
            f"{self.value:.3f} +- {self.standard_error:.3f} {self.unit} "
            f"({self.num_data} data, {self.scale})"
        )


def _mean(values: torch.Tensor, unit: str, scale: str) -> LikelihoodFigure:
    if values.dim() != 1 or len(values) < 2:
        raise ValueError(
            f"expected log-likelihoods of shape (N,) with N of 2 or more, got {tuple(values.shape)}"
        )
    values = values.double()
    error = float(values.std() / len(values) ** 0.5)
    return LikelihoodFigure(float(values.mean()), error, unit, scale, len(values))


def bits_per_dimension(
    log_likelihood: torch.Tensor, num_dims: int, bin_width: float
) -> torch.Tensor:
    r"""Bits that a code based on the model needs for each dimension of quantised data.

    .. math::
        b = -\frac{\log p(x) + D \log \Delta}{D \log 2}

    for a log-density in units in which neighbouring levels are :math:`\Delta` apart: 1 for grey
    levels 0 to 255, 1/256 for the same dequantised to [0, 1). The result does not depend on the
    unit, since with :math:`y = c x` the log-density falls by :math:`D \log c` while
    :math:`\Delta` becomes :math:`c \Delta`. For probabilities of the levels themselves,
    :math:`\Delta = 1`.

    Args:
        log_likelihood: log-densities in nats, of any shape.
        num_dims: :math:`D`, dimensions of one datum.
        bin_width: :math:`\Delta`, in the units of the data.

    Returns:
        Bits per dimension, of the shape of ``log_likelihood``.

    Raises:
        ValueError: if ``num_dims`` or ``bin_width`` is not positive.

    Example:
        >>> import torch
        >>> uniform = torch.zeros(1)  # log-density of 784 uniform variables on [0, 1]
        >>> round(float(bits_per_dimension(uniform, 784, 1 / 256)), 6)
        8.0
    """
    if num_dims < 1 or bin_width <= 0:
        raise ValueError(
            f"expected num_dims of 1 or more and a positive bin_width, got {num_dims} and "
            f"{bin_width}"
        )
    return -(log_likelihood + num_dims * log(bin_width)) / (num_dims * log(2))


def rescale(log_density: torch.Tensor, num_dims: int, factor: float) -> torch.Tensor:
    r"""The log-density of :math:`y = c x` from that of :math:`x`: :math:`\log p(x) - D \log c`.

    Args:
        log_density: log-densities of ``x`` in nats, of any shape.
        num_dims: :math:`D`, dimensions of one datum.
        factor: :math:`c > 0`.

    Returns:
        Log-densities of ``y``, of the same shape.

    Raises:
        ValueError: if ``factor`` is not positive.

    Example:
        >>> import torch
        >>> density = torch.tensor([-3.0])
        >>> same = rescale(rescale(density, 10, 255.0), 10, 1 / 255.0)
        >>> bool(torch.allclose(same, density))
        True
    """
    if factor <= 0:
        raise ValueError(f"expected a positive factor, got {factor}")
    return log_density - num_dims * log(factor)
