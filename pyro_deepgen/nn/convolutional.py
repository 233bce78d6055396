# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Convolutional encoders and decoders for images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import pad

from .context import join_context


class Unpool(nn.Module):
    r"""Undo a max-pooling whose switches are unknown: fixed placement.

    Every value goes to the upper-left corner of a block of its own, and the rest of the block is
    0: :math:`y_{si, sj} = x_{ij}`. A decoder that starts from a sample of the prior has no pooling
    switches, so the place must be fixed.

    Args:
        block_size: side :math:`s` of a block.

    Raises:
        ValueError: if ``block_size < 1``.

    References:
        Learning to Generate Chairs with Convolutional Neural Networks, Dosovitskiy,
        Springenberg, Brox, 2015, arXiv:1411.5928.

    Example:
        >>> import torch
        >>> from torch.nn.functional import max_pool2d
        >>> x = torch.rand(1, 1, 3, 3)
        >>> y = Unpool(2)(x)
        >>> torch.equal(max_pool2d(y, 2), x), y.count_nonzero() == x.count_nonzero()
        (True, tensor(True))
    """

    def __init__(self, block_size: int = 2) -> None:
        super().__init__()
        if block_size < 1:
            raise ValueError(f"expected a block_size of 1 or more, got {block_size}")
        self.block_size = block_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(..., H, W)`` to ``(..., H * block_size, W * block_size)``."""
        s = self.block_size
        *lead, height, width = x.shape
        y = pad(x[..., None, :, None], (0, s - 1, 0, 0, 0, s - 1))  # (..., H, s, W, s)
        return y.reshape((*lead, height * s, width * s))

    def extra_repr(self) -> str:
        """Name the block size in the printed form."""
        return f"block_size={self.block_size}"


def _divided(image_shape: Sequence[int], num_halvings: int) -> tuple[int, int]:
    """Height and width after ``num_halvings`` halvings, or an error."""
    if len(image_shape) != 3:
        raise ValueError(
            f"expected an image shape (channels, height, width), got {tuple(image_shape)}; "
            "a grey 28 x 28 image is (1, 28, 28)"
        )
    if num_halvings == 0:
        raise ValueError("expected channels with one entry for each convolution, got none")
    _, height, width = image_shape
    factor = 2**num_halvings
    if height % factor or width % factor:
        raise ValueError(
            f"expected a height and a width that {factor} divides, since {num_halvings} layers "
            f"each halve them; got {height} x {width}: use fewer entries of channels, or pad the "
            "images"
        )
    return height // factor, width // factor


class ConvEncoder(nn.Module):
    """Convolutions with stride 2 and one hidden dense layer, from an image to a vector.

    Args:
        image_shape: ``(C, H, W)``; ``2 ** len(channels)`` divides ``H`` and ``W``.
        out_dim: size of the output vector.
        channels: output channels of each convolution, which halves height and width.
        hidden_dim: units of the dense layer.
        context_dim: size of a context that joins the features before the dense layer.
        activation: makes the nonlinearity.

    Raises:
        ValueError: if the image shape is not ``(C, H, W)`` or cannot be halved often enough, or
            ``channels`` is empty; if an input or context has the wrong shape.

    Example:
        >>> import torch
        >>> ConvEncoder((1, 28, 28), 10)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        out_dim: int,
        *,
        channels: Sequence[int] = (32, 64),
        hidden_dim: int = 256,
        context_dim: int = 0,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        height, width = _divided(image_shape, len(channels))
        self.image_shape, self.context_dim = tuple(image_shape), context_dim
        sizes = [image_shape[0], *channels]
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(sizes):
            layers += [nn.Conv2d(c_in, c_out, 4, stride=2, padding=1), activation()]
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Sequential(
            nn.Linear(sizes[-1] * height * width + context_dim, hidden_dim),
            activation(),
            nn.Linear(hidden_dim, out_dim),
        )

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """Map images ``(B, C, H, W)`` and contexts ``(B, context_dim)`` to ``(B, out_dim)``."""
        if x.dim() != 4 or tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"expected images of shape (N, {', '.join(map(str, self.image_shape))}), got "
                f"{tuple(x.shape)}"
            )
        features = self.convolutions(x).flatten(1)
        output: torch.Tensor = self.dense(join_context(features, context, self.context_dim))
        return output


class ConvDecoder(nn.Module):
    """A dense layer and convolutions that double the image, from a vector to an image.

    Args:
        in_dim: size of the input vector.
        image_shape: ``(C, H, W)``; ``2 ** len(channels)`` divides ``H`` and ``W``.
        params_per_pixel: ``None`` for one number a pixel (output ``(B, C, H, W)``), or ``P`` for
            the ``P`` parameters of a pixel's distribution (output ``(B, C, H, W, P)``).
        channels: input channels of each doubling step.
        hidden_dim: units of the dense layer.
        upsampling: ``"transposed"`` (transposed convolution of stride 2) or ``"unpool"``
            (:class:`Unpool`, then a convolution).
        context_dim: size of a context that joins the input vector.
        activation: makes the nonlinearity.

    Raises:
        ValueError: if the image shape is not ``(C, H, W)`` or cannot be halved often enough,
            ``channels`` is empty or ``upsampling`` is unknown; if an input or context has the
            wrong shape.

    Example:
        >>> import torch
        >>> ConvDecoder(10, (1, 28, 28), upsampling="unpool")(torch.zeros(2, 10)).shape
        torch.Size([2, 1, 28, 28])
        >>> ConvDecoder(10, (1, 28, 28), params_per_pixel=2)(torch.zeros(2, 10)).shape
        torch.Size([2, 1, 28, 28, 2])
    """

    def __init__(
        self,
        in_dim: int,
        image_shape: Sequence[int],
        *,
        params_per_pixel: int | None = None,
        channels: Sequence[int] = (64, 32),
        hidden_dim: int = 256,
        upsampling: Literal["transposed", "unpool"] = "transposed",
        context_dim: int = 0,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        if upsampling not in ("transposed", "unpool"):
            raise ValueError(f'expected upsampling "transposed" or "unpool", got {upsampling!r}')
        height, width = _divided(image_shape, len(channels))
        self.image_shape, self.in_dim, self.context_dim = tuple(image_shape), in_dim, context_dim
        self.params_per_pixel = params_per_pixel
        self.start = (channels[0], height, width)
        self.dense = nn.Sequential(
            nn.Linear(in_dim + context_dim, hidden_dim),
            activation(),
            nn.Linear(hidden_dim, channels[0] * height * width),
        )
        sizes = [*channels, image_shape[0] * (params_per_pixel or 1)]
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(sizes):
            layers.append(activation())
            if upsampling == "transposed":
                layers.append(nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1))
            else:
                layers += [Unpool(2), nn.Conv2d(c_in, c_out, 5, padding=2)]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, z: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """Map vectors ``(B, in_dim)`` and contexts ``(B, context_dim)`` to images."""
        if z.dim() != 2 or z.shape[1] != self.in_dim:
            raise ValueError(f"expected vectors of shape (N, {self.in_dim}), got {tuple(z.shape)}")
        features = self.dense(join_context(z, context, self.context_dim))
        images: torch.Tensor = self.convolutions(features.reshape((-1, *self.start)))
        if self.params_per_pixel is None:
            return images
        channels, height, width = self.image_shape
        split = images.reshape(-1, channels, self.params_per_pixel, height, width)
        return split.movedim(2, -1)
