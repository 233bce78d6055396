# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""How often an image can be halved."""

from __future__ import annotations

from collections.abc import Sequence

from ..nn import as_size, as_sizes


def check_levels(image_shape: Sequence[int], num_levels: int) -> tuple[int, int, int]:
    """Read the shape of an image whose sides can be halved at every level.

    Args:
        image_shape: ``(C, H, W)``.
        num_levels: how often the sides are halved.

    Raises:
        ValueError: if it is no shape of an image, or a side cannot be halved so often.

    Example:
        >>> check_levels([1, 28, 28], 2)
        (1, 28, 28)
        >>> try:
        ...     check_levels([1, 28, 28], 3)
        ... except ValueError as error:
        ...     print(str(error).split("; ")[1])
        use num_levels=2, or pad it to 32 x 32
    """
    shape = as_sizes(image_shape, "image_shape")
    if len(shape) != 3:
        raise ValueError(
            f"expected an image shape (channels, height, width), got {image_shape}; a grey 28 x 28 "
            "image is (1, 28, 28)"
        )
    channels, height, width = shape
    step = 2 ** as_size(num_levels, "num_levels")
    if height % step or width % step:
        possible = next(n for n in range(num_levels, -1, -1) if not (height | width) % 2**n)
        fewer = f"use num_levels={possible}, or " if possible else ""
        padded = " x ".join(str(-(-side // step) * step) for side in (height, width))
        raise ValueError(
            f"expected an image whose height and width are multiples of {step} = 2^{num_levels}, "
            f"got {height} x {width}; {fewer}pad it to {padded}"
        )
    return channels, height, width
