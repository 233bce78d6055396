# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Uniform noise that gives grey levels a density."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_deepgen.datasets.dataset import DataScale


def dequantize(x: Tensor, num_levels: int, generator: torch.Generator | None = None) -> Tensor:
    r"""Grey values as continuous ones: :math:`y = (k + u) / K`, :math:`u \sim U(0, 1)`.

    :math:`k = (K - 1) x` is the grey level of a value of :math:`x`, :math:`K` the number of levels.
    The density of :math:`y` bounds the probability of the levels from below,
    :math:`E_u[\log p(y)] - D \log K \le \log P(k)`, and :math:`1 / K` is the bin width of its
    units (:func:`dequantized_scale`). To make the noise afresh at each presentation, pass
    ``functools.partial(dequantize, num_levels=256)`` as the ``transform`` of a training loop.

    Args:
        x: Grey values :math:`k / (K - 1)` in [0, 1] as the loaders give them, any shape.
        num_levels: :math:`K`.
        generator: The source of the noise, on the device of ``x``; ``None`` is the global one.

    Returns:
        Values in (0, 1), with the shape, dtype and device of ``x``. The noise keeps a few
        rounding errors away from the ends of its bin, so that :func:`quantize` inverts exactly.

    Raises:
        ValueError: If ``num_levels`` is below 2, or the dtype of ``x`` too coarse for it.

    References:
        RNADE: the real-valued neural autoregressive density-estimator, Benigno Uria, Iain Murray
        and Hugo Larochelle, 2013, arXiv:1306.0186; A note on the evaluation of generative models,
        Lucas Theis, Aaron van den Oord and Matthias Bethge, 2015, arXiv:1511.01844.

    Example:
        >>> x = torch.arange(17.0) / 16
        >>> torch.equal(quantize(dequantize(x, 17), 17), x)
        True
    """
    _check_levels(x, num_levels)
    level = (x.detach() * (num_levels - 1)).round()
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    margin = 2 * num_levels * torch.finfo(x.dtype).eps
    return (level + margin + (1 - 2 * margin) * noise) / num_levels


def quantize(y: Tensor, num_levels: int) -> Tensor:
    r"""The grey values :math:`x = \lfloor K y \rfloor / (K - 1)` that :func:`dequantize` had.

    Args:
        y: Continuous values in [0, 1), any shape; values outside go to the nearest level.
        num_levels: :math:`K`.

    Returns:
        Grey values in [0, 1], with the shape of ``y``.

    Raises:
        ValueError: If ``num_levels`` is below 2, or the dtype of ``y`` too coarse for it.

    Example:
        >>> quantize(torch.tensor([0.1, 0.49, 0.51, 0.9]), 2).tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    _check_levels(y, num_levels)
    return (y * num_levels).floor().clamp(0, num_levels - 1) / (num_levels - 1)


def dequantized_scale(num_levels: int) -> DataScale:
    """The units of dequantised data, in which one grey level is ``1 / num_levels`` wide.

    Args:
        num_levels: The number of grey levels.

    Returns:
        The scale.

    Example:
        >>> dequantized_scale(256).bin_width * 256
        1.0
    """
    return DataScale(f"(grey level + noise) / {num_levels} in (0, 1)", 1 / num_levels)


def _check_levels(x: Tensor, num_levels: int) -> None:
    if num_levels < 2:
        raise ValueError(f"num_levels must be at least 2, got {num_levels}")
    if not x.is_floating_point():
        raise ValueError(
            f"expected floating-point grey values in [0, 1], got {x.dtype}; divide integer levels "
            "by num_levels - 1"
        )
    if num_levels * torch.finfo(x.dtype).eps > 1e-3:
        raise ValueError(
            f"{x.dtype} cannot hold {num_levels} levels and noise between them; use torch.float32"
        )
