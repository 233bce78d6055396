# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The gated PixelCNN, without a blind spot."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..nn import MaskedConv2d, as_size
from .outputs import Output
from .pixel_cnn import POINT, head, run_head
from .pixel_distribution import ContextMaps, PixelDistribution, Shifts
from .pixel_walk import Run


def gate(x: torch.Tensor) -> torch.Tensor:
    r"""The gated unit :math:`\tanh(a) \odot \sigma(b)` of the halves of the channels.

    Example:
        >>> import torch
        >>> gate(torch.zeros(2, 6)).shape
        torch.Size([2, 3])
    """
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()


class GatedPixelCNN(PixelDistribution):
    r"""Gated convolutions in two stacks: one sees all rows above, the other the row to the left.

    .. math::
        u^l &= W_v^l * v^{l-1}, & v^l &= g(u^l + C_v^l c) \\
        h^l &= h^{l-1} + R^l * g(W_h^l * h^{l-1} + D^l * u^l + C_h^l c), &
        g(a, b) &= \tanh(a) \odot \sigma(b)

    The vertical stack :math:`v` sees rectangles of the rows above; the horizontal one :math:`h`
    sees the pixels to the left, and the vertical stack through :math:`D`, convolutions of single
    pixels. The first layer has no :math:`h^0` to add, :math:`W_h^1` has mask A and :math:`W_v^1`
    sees the rows above only. A step up reaches as far right as left, and so with enough layers
    every pixel before is seen: ``first_kernel_size // 2 + (num_layers - 1) * (kernel_size // 2)``
    columns to each side, and as many rows up.

    Args:
        image_shape: ``(C, H, W)``. Values are made in reading order, and the channels of a pixel
            one after the other.
        output: the family of one variable: :class:`BinaryOutput` by default,
            ``CategoricalOutput(256)`` (values are whole numbers) or
            ``LogisticMixtureOutput(10)`` (values are levels from 0 to 1).
        num_layers: number :math:`L` of layers.
        num_channels: number of channels of each stack.
        first_kernel_size: size of the kernels of the first layer, an odd number from 3.
        kernel_size: size of the other kernels, an odd number.
        num_head_channels: number of channels of the last hidden layer; by default
            ``num_channels``.
        context_dim: number of dimensions of a vector context, which all layers see at each pixel.
        context_channels: number of channels of a context map ``(context_channels, H, W)``, of
            which all layers see the place of the pixel, and its neighbours in the row.
        one_hot: whether classes enter as one-hot vectors, and not as numbers from -1 to 1.
        validate_args: whether ``log_prob`` checks its argument.

    Raises:
        ValueError: if a size does not fit, or the output is not discrete.

    References:
        van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves and Kavukcuoglu, Conditional image
        generation with PixelCNN decoders, 2016, arXiv:1606.05328.

    Example:
        >>> import torch
        >>> net = GatedPixelCNN((1, 2, 3), num_layers=2, num_channels=4, context_dim=2)
        >>> given = net.condition(torch.tensor([1.0, -1.0]))
        >>> torch.allclose(given.log_prob(given.enumerate_support()).exp().sum(), torch.tensor(1.0))
        True
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        output: Output | None = None,
        *,
        num_layers: int = 8,
        num_channels: int = 32,
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
        h = self._labels(num_channels, "num_channels")
        layers = []
        for number in range(as_size(num_layers, "num_layers")):
            size, inputs = (kernel_size, h) if number else (first_kernel_size, self.image_labels)
            layers.append(
                nn.ModuleDict(
                    {
                        "vertical": MaskedConv2d(
                            inputs, h + h, (size, size), "rows" if number else "above"
                        ),
                        "down": MaskedConv2d(h + h, h + h, POINT, "rows"),
                        "horizontal": MaskedConv2d(
                            inputs, h + h, (1, size), "B" if number else "A"
                        ),
                        "out": MaskedConv2d(h, h, POINT, "B"),
                    }
                )
            )
        self.layers = nn.ModuleList(layers)
        hidden = self._labels(num_head_channels or num_channels, "num_head_channels")
        self.head = head(h, hidden, self.parameter_labels)
        # The last layer's vertical stack is seen before its gate only, which needs no context.
        widths = [2 * len(h)] * (2 * len(layers) - 1)
        self.context_maps = ContextMaps(context_channels or context_dim, widths)

    def begin_row(self, run: Run, x: torch.Tensor, shifts: Shifts) -> Shifts:
        """Run the vertical stack, and give what it adds to the horizontal one."""
        downs: Shifts = []
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, nn.ModuleDict)
            before_gate = run.rows(layer["vertical"], x)
            downs.append(run.rows(layer["down"], before_gate) + run.here(shifts[number]))
            if number + 1 < len(self.layers):
                x = gate(before_gate + run.here(shifts[len(self.layers) + number]))
        return downs

    def features(self, run: Run, x: torch.Tensor | None, shifts: Shifts) -> torch.Tensor:
        """Run the horizontal stack; see :class:`PixelDistribution`."""
        h = x
        for number, (layer, down) in enumerate(zip(self.layers, shifts, strict=True)):
            assert isinstance(layer, nn.ModuleDict)
            added = run(layer["out"], gate(run(layer["horizontal"], h, down)))
            h = added if number == 0 else h + added  # type: ignore[operator]
        assert h is not None
        return run_head(self.head, run, h)
