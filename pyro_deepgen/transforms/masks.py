# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Which variables a coupling layer keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..nn import as_size, as_sizes


def halves_mask(num_dims: int, flip: bool = False) -> torch.Tensor:
    r"""Keep the first half of a vector, or with ``flip`` the other variables.

    .. math:: m_i = [i < \lceil D / 2 \rceil]

    Args:
        num_dims: number of dimensions :math:`D`, at least 2.
        flip: whether to keep what would be changed, and change what would be kept.

    Returns:
        Truth values of shape ``(D,)``, true where a variable is kept.

    Raises:
        ValueError: if ``num_dims`` is not a whole number above 1.

    Example:
        >>> halves_mask(5).tolist()
        [True, True, True, False, False]
        >>> bool((halves_mask(5) ^ halves_mask(5, flip=True)).all())
        True
    """
    size = _at_least_two(num_dims)
    mask = torch.arange(size) < (size + 1) // 2
    return ~mask if flip else mask


def alternating_mask(num_dims: int, flip: bool = False) -> torch.Tensor:
    r"""Keep every other variable of a vector from the first, or with ``flip`` from the second.

    .. math:: m_i = [i \text{ is even}]

    Args:
        num_dims: number of dimensions :math:`D`, at least 2.
        flip: whether to keep what would be changed, and change what would be kept.

    Returns:
        Truth values of shape ``(D,)``, true where a variable is kept.

    Raises:
        ValueError: if ``num_dims`` is not a whole number above 1.

    Example:
        >>> alternating_mask(5).tolist()
        [True, False, True, False, True]
        >>> bool((alternating_mask(5) ^ alternating_mask(5, flip=True)).all())
        True
    """
    mask = torch.arange(_at_least_two(num_dims)) % 2 == 0
    return ~mask if flip else mask


def checkerboard_mask(image_shape: Sequence[int], flip: bool = False) -> torch.Tensor:
    r"""Keep the fields of one colour of a chequered image, in all channels.

    .. math:: m_{cij} = [i + j \text{ is even}]

    Args:
        image_shape: ``(C, H, W)``, of at least two pixels.
        flip: whether to keep what would be changed, and change what would be kept.

    Returns:
        Truth values of shape ``(C, H, W)``, true where a variable is kept.

    Raises:
        ValueError: if ``image_shape`` is not the shape of an image of two pixels or more.

    Example:
        >>> checkerboard_mask((1, 2, 3)).int().tolist()
        [[[1, 0, 1], [0, 1, 0]]]
    """
    channels, height, width = _image(image_shape)
    if height * width < 2:
        raise ValueError(f"expected an image of two pixels or more, got shape {image_shape}")
    mask = (torch.arange(height).unsqueeze(-1) + torch.arange(width)) % 2 == 0
    mask = mask.expand(channels, height, width).clone()
    return ~mask if flip else mask


def channel_mask(image_shape: Sequence[int], flip: bool = False) -> torch.Tensor:
    r"""Keep the first half of the channels of an image, or with ``flip`` the other channels.

    .. math:: m_{cij} = [c < \lceil C / 2 \rceil]

    Args:
        image_shape: ``(C, H, W)``, of at least two channels.
        flip: whether to keep what would be changed, and change what would be kept.

    Returns:
        Truth values of shape ``(C, H, W)``, true where a variable is kept.

    Raises:
        ValueError: if ``image_shape`` is not the shape of an image of two channels or more.

    Example:
        >>> channel_mask((4, 2, 2)).any(-1).any(-1).tolist()
        [True, True, False, False]
    """
    channels, height, width = _image(image_shape)
    if channels < 2:
        raise ValueError(
            f"expected an image of two channels or more, got shape {image_shape}; squeeze it "
            "first, or use a checkerboard mask"
        )
    return halves_mask(channels, flip)[:, None, None].expand(channels, height, width).clone()


def _at_least_two(num_dims: int) -> int:
    size = as_size(num_dims, "num_dims")
    if size < 2:
        raise ValueError(
            "expected two dimensions or more, since a coupling layer keeps some variables and "
            f"changes others, got num_dims={num_dims}"
        )
    return size


def _image(image_shape: Sequence[int]) -> tuple[int, int, int]:
    shape = as_sizes(image_shape, "image_shape")
    if len(shape) != 3:
        raise ValueError(
            f"expected an image shape (channels, height, width), got {image_shape}; a grey 28 x 28 "
            "image is (1, 28, 28)"
        )
    return shape
