# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""RealNVP for images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..nn import CouplingResNet, as_size
from .act_norm import ActNorm
from .affine_equation import Affine
from .composed import Composed
from .coupling import Coupling
from .image_levels import check_levels
from .masks import channel_mask, checkerboard_mask
from .multi_scale import MultiScale
from .squeeze import Squeeze
from .transform import Transform

Shape = tuple[int, int, int]


def real_nvp_image(
    image_shape: Sequence[int],
    *,
    num_levels: int = 2,
    hidden_channels: int = 32,
    num_blocks: int = 4,
    context_dim: int = 0,
    bound: float = 5.0,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> MultiScale:
    r"""Make a RealNVP flow from a flat vector to an image; ``real_nvp`` calls it for image shapes.

    Seen from the data, each level has three coupling layers with checkerboard masks in turn, a
    squeeze, three with channel masks in turn, and factors out half of the variables; four with
    checkerboard masks follow at the last scale. Their networks are residual, with weight
    normalisation. Where the paper has batch normalisation, which makes the density of one image
    depend on the others of its batch, an :class:`ActNorm` follows each layer; there is none within
    the networks.

    Args:
        image_shape: ``(C, H, W)``.
        num_levels: how often the image is squeezed and half of it factored out; ``H`` and ``W``
            must be multiples of ``2 ** num_levels``.
        hidden_channels: number of channels of the networks.
        num_blocks: number of residual blocks of a network.
        context_dim: number of dimensions of the context, 0 for none.
        bound: the largest logarithm of a scale in a coupling layer; see :class:`Affine`.
        activation: makes the nonlinearity of the networks.

    Returns:
        A :class:`MultiScale` from vectors of ``C * H * W`` variables to images.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0), ``bound``
            is not positive, or the image cannot be halved as often as there are levels.

    References:
        Dinh, Sohl-Dickstein and Bengio, Density estimation using Real NVP, 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> flow = real_nvp_image((1, 4, 4), num_levels=1, hidden_channels=8, num_blocks=1)
        >>> images = torch.randn(10, 1, 4, 4)
        >>> x, log_det = flow.inverse_and_log_det(images)
        >>> x.shape, torch.allclose(flow(x), images, atol=1e-4)
        (torch.Size([10, 16]), True)
    """
    shape = check_levels(image_shape, num_levels)

    def layers(shape: Shape, make_mask: Callable[..., torch.Tensor], num: int) -> list[Transform]:
        """Make coupling layers, from the base to the data."""
        parts: list[Transform] = []
        for i in range(num):
            mask = make_mask(shape, i % 2 == 1)
            kept, changed = (int(m.flatten(1).any(1).sum()) for m in (mask, ~mask))
            network = CouplingResNet(
                kept,
                changed,
                Affine.num_parameters,
                channels=as_size(hidden_channels, "hidden_channels"),
                num_blocks=num_blocks,
                context_dim=context_dim,
                activation=activation,
            )
            coupling = Coupling(Affine(bound), network, mask, context_dim=context_dim)
            parts = [ActNorm(shape), coupling, *parts]
        return parts

    levels: list[Transform] = []
    channels, height, width = shape
    for _ in range(num_levels):
        fine = (channels, height, width)
        coarse = (4 * channels, height // 2, width // 2)
        parts = [
            *layers(coarse, channel_mask, 3),
            Squeeze().inv,
            *layers(fine, checkerboard_mask, 3),
        ]
        levels.insert(0, Composed(parts))
        channels, height, width = 2 * channels, height // 2, width // 2
    levels.insert(0, Composed(layers((channels, height, width), checkerboard_mask, 4)))
    return MultiScale(levels, shape)
