# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The PixelCNN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..nn import MaskedConv2d, as_size
from .outputs import Output
from .pixel_distribution import ContextMaps, PixelDistribution, Shifts
from .pixel_walk import Run

POINT = (1, 1)


class PixelCNN(PixelDistribution):
    r"""A stack of masked convolutions over the pixels above and to the left.

    .. math::
        h^0 &= W_A * x \\
        h^l &= h^{l-1} + U^l * r(V^l * r(T^l * r(h^{l-1})) + C^l c), \qquad r = \mathrm{relu} \\
        \theta &= P * r(Q * r(h^L))

    :math:`W_A` is a large convolution with mask A, :math:`V^l` one with mask B, the others are
    convolutions of single pixels with mask B. :math:`T^l` halves the number of channels, and
    :math:`U^l` doubles it. Its blind spot: with a square kernel, a step of one row up reaches
    ``size // 2`` columns to the right and no more, however many layers there are, so that
    some pixels above are never seen; :class:`GatedPixelCNN` sees them.

    Args:
        image_shape: ``(C, H, W)``. Values are made in reading order, and the channels of a pixel
            one after the other.
        output: the family of one variable: :class:`BinaryOutput` by default,
            ``CategoricalOutput(256)`` (values are whole numbers) or
            ``LogisticMixtureOutput(10)`` (values are levels from 0 to 1).
        num_blocks: number :math:`L` of residual blocks.
        num_channels: number of channels of :math:`h^l`, an even number.
        first_kernel_size: size of the kernel of :math:`W_A`, an odd number.
        kernel_size: size of the kernels :math:`V^l`, an odd number.
        num_head_channels: number of channels of the last hidden layer; by default
            ``num_channels``.
        context_dim: number of dimensions of a vector context.
        context_channels: number of channels of a context map ``(context_channels, H, W)``.
        one_hot: whether classes enter as one-hot vectors, and not as numbers from -1 to 1.
        validate_args: whether ``log_prob`` checks its argument.

    Raises:
        ValueError: if a size does not fit, or the output is not discrete.

    References:
        van den Oord, Kalchbrenner and Kavukcuoglu, Pixel recurrent neural networks, 2016,
        arXiv:1601.06759.

    Example:
        >>> import torch
        >>> net = PixelCNN((1, 2, 3), num_blocks=1, num_channels=8)
        >>> torch.allclose(net.log_prob(net.enumerate_support()).exp().sum(), torch.tensor(1.0))
        True
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        output: Output | None = None,
        *,
        num_blocks: int = 5,
        num_channels: int = 64,
        first_kernel_size: int = 7,
        kernel_size: int = 3,
        num_head_channels: int | None = None,
        context_dim: int = 0,
        context_channels: int = 0,
        one_hot: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(
            image_shape,
            output,
            context_dim=context_dim,
            context_channels=context_channels,
            one_hot=one_hot,
            validate_args=validate_args,
        )
        wide = self._labels(num_channels, "num_channels")
        narrow = self._labels(num_channels // 2, "num_channels // 2")
        first, inner = (first_kernel_size, first_kernel_size), (kernel_size, kernel_size)
        self.first = MaskedConv2d(self.image_labels, wide, first, "A")
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    MaskedConv2d(wide, narrow, POINT, "B"),
                    MaskedConv2d(narrow, narrow, inner, "B"),
                    MaskedConv2d(narrow, wide, POINT, "B"),
                ]
            )
            for _ in range(as_size(num_blocks, "num_blocks"))
        )
        self.head = head(
            wide,
            self._labels(num_head_channels or num_channels, "num_head_channels"),
            self.parameter_labels,
        )
        widths = [len(narrow)] * len(self.blocks)
        self.context_maps = ContextMaps(context_channels or context_dim, widths)

    def features(self, run: Run, x: torch.Tensor | None, shifts: Shifts) -> torch.Tensor:
        """Parameters of pixels; see :class:`PixelDistribution`."""
        h = run(self.first, x)
        for block, shift in zip(self.blocks, shifts, strict=True):
            assert isinstance(block, nn.ModuleList)
            down, inner, up = block
            h = h + run(up, torch.relu(run(inner, torch.relu(run(down, torch.relu(h))), shift)))
        return run_head(self.head, run, h)


def head(labels: Sequence[int], hidden: Sequence[int], outputs: Sequence[int]) -> nn.ModuleList:
    """The two convolutions of single pixels that give the parameters.

    Args:
        labels: number of the group of every input channel.
        hidden: that of the hidden channels.
        outputs: that of the outputs.
    """
    return nn.ModuleList(
        [MaskedConv2d(labels, hidden, POINT, "B"), MaskedConv2d(hidden, outputs, POINT, "B")]
    )


def run_head(layers: nn.ModuleList, run: Run, h: torch.Tensor) -> torch.Tensor:
    """Run the two last convolutions, each after a rectifier."""
    for layer in layers:
        h = run(layer, torch.relu(h))
    return h
