# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Glow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from ..nn import CouplingCNN, as_size
from .act_norm import ActNorm
from .affine_equation import Affine
from .composed import Composed
from .coupling import Coupling
from .image_levels import check_levels
from .invertible_conv import InvertibleConv1x1
from .masks import channel_mask
from .multi_scale import MultiScale
from .squeeze import Squeeze
from .transform import Transform


def glow(
    image_shape: Sequence[int],
    num_levels: int = 2,
    num_steps: int = 8,
    *,
    context_dim: int = 0,
    hidden_channels: int = 128,
    bound: float = 5.0,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> MultiScale:
    r"""Make a Glow flow from a flat vector to an image.

    Seen from the data, each level squeezes the image and makes :math:`K` steps; all levels but the
    last then factor out half of the variables. A step is an :class:`ActNorm`, an
    :class:`InvertibleConv1x1` and an affine coupling layer whose network has three convolutions,
    the last of which gives 0 at first. With a context (a class, as one-hot vector) the networks see
    it too. The variables that are factored out have the same base as all others.

    Args:
        image_shape: ``(C, H, W)``.
        num_levels: number of levels, :math:`L`; ``H`` and ``W`` must be multiples of
            ``2 ** num_levels``.
        num_steps: number of steps of a level, :math:`K`.
        context_dim: number of dimensions of the context, 0 for none.
        hidden_channels: number of channels of the networks.
        bound: the largest logarithm of a scale in a coupling layer; see :class:`Affine`.
        activation: makes the nonlinearity of the networks.

    Returns:
        A :class:`MultiScale` from vectors of ``C * H * W`` variables to images.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0), ``bound``
            is not positive, or the image cannot be halved as often as there are levels.

    References:
        Kingma and Dhariwal, Glow: Generative flow with invertible 1x1 convolutions, 2018,
        arXiv:1807.03039.

    Example:
        >>> import torch
        >>> flow = glow((1, 4, 4), num_levels=2, num_steps=2, hidden_channels=8)
        >>> images = 3 + torch.randn(50, 1, 4, 4)
        >>> x, log_det = flow.inverse_and_log_det(images)
        >>> x.shape, torch.allclose(flow(x), images, atol=1e-4)
        (torch.Size([50, 16]), True)
    """
    shape = channels, height, width = check_levels(image_shape, num_levels)
    as_size(num_steps, "num_steps")
    levels: list[Transform] = []
    for _ in range(num_levels):
        channels, height, width = 4 * channels, height // 2, width // 2
        mask = channel_mask((channels, height, width))
        parts: list[Transform] = [Squeeze().inv]
        for _ in range(num_steps):
            network = CouplingCNN(
                channels // 2,
                channels // 2,
                Affine.num_parameters,
                channels=hidden_channels,
                context_dim=context_dim,
                activation=activation,
            )
            step = [
                Coupling(Affine(bound), network, mask, context_dim=context_dim),
                InvertibleConv1x1(channels),
                ActNorm(tuple(mask.shape)),
            ]
            parts = [*step, *parts]
        levels.insert(0, Composed(parts))
        channels //= 2
    return MultiScale(levels, shape)
