# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The pixel recurrent neural network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from ..nn import MaskedConv2d, as_size
from .outputs import Output
from .pixel_cnn import POINT, head, run_head
from .pixel_distribution import ContextMaps, PixelDistribution, Shifts
from .pixel_lstm import DiagonalLSTM, RowLSTM
from .pixel_walk import Run


class PixelRNN(PixelDistribution):
    r"""Layers of long short-term memories over the pixels before.

    .. math::
        h^0 &= W_A * x \\
        h^l &= h^{l-1} + U^l * \mathrm{LSTM}^l(h^{l-1}, x) + C^l c \\
        \theta &= P * r(Q * r(h^L)), \qquad r = \mathrm{relu}

    The diagonal LSTM runs over the skewed image from the left and from the right, and sees all
    pixels before in one layer. The row LSTM runs down the rows, and sees a triangle above a pixel,
    wider by ``kernel_size // 2`` columns to each side with each row: what lies to the right of it,
    and of what :math:`W_A` sees, is not seen, however many layers there are. For ``log_prob`` the
    diagonal one takes :math:`H + W - 1` steps a layer and the row LSTM :math:`H`; a draw carries
    their states on. Beyond the published network, the LSTMs see the image where their states come
    from: :math:`h^0` at a pixel does not contain its own value, and so the last pixel of the row
    above would not be seen.

    Args:
        image_shape: ``(C, H, W)``. Values are made in reading order, and the channels of a pixel
            one after the other.
        output: the family of one variable: :class:`BinaryOutput` by default,
            ``CategoricalOutput(256)`` (values are whole numbers) or
            ``LogisticMixtureOutput(10)`` (values are levels from 0 to 1).
        kind: ``"diagonal"`` or ``"row"``.
        num_layers: number :math:`L` of layers.
        num_units: number of units of each LSTM.
        num_channels: number of channels of :math:`h^l`; by default twice the units.
        first_kernel_size: size of the kernel of :math:`W_A`, an odd number.
        kernel_size: size of the row LSTM's kernels, an odd number; the diagonal one has none.
        num_head_channels: number of channels of the last hidden layer; by default
            ``num_channels``.
        context_dim: number of dimensions of a vector context, which all layers see at each pixel.
        context_channels: number of channels of a context map ``(context_channels, H, W)``.
        one_hot: whether classes enter as one-hot vectors, and not as numbers from -1 to 1.
        validate_args: whether ``log_prob`` checks its argument.

    Raises:
        ValueError: if a size does not fit, the kind is unknown or the output is not discrete.

    References:
        van den Oord, Kalchbrenner and Kavukcuoglu, Pixel recurrent neural networks, 2016,
        arXiv:1601.06759.

    Example:
        >>> import torch
        >>> net = PixelRNN((1, 2, 3), num_layers=1, num_units=4)
        >>> torch.allclose(net.log_prob(net.enumerate_support()).exp().sum(), torch.tensor(1.0))
        True
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        output: Output | None = None,
        *,
        kind: Literal["diagonal", "row"] = "diagonal",
        num_layers: int = 3,
        num_units: int = 16,
        num_channels: int | None = None,
        first_kernel_size: int = 7,
        kernel_size: int = 3,
        num_head_channels: int | None = None,
        context_dim: int = 0,
        context_channels: int = 0,
        one_hot: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        if kind not in ("diagonal", "row"):
            raise ValueError(f'expected kind "diagonal" or "row", got {kind!r}')
        super().__init__(
            image_shape,
            output,
            context_dim=context_dim,
            context_channels=context_channels,
            one_hot=one_hot,
            validate_args=validate_args,
        )
        units = self._labels(num_units, "num_units")
        num_channels = num_channels or 2 * num_units
        h = self._labels(num_channels, "num_channels")
        size = (first_kernel_size, first_kernel_size)
        self.first = MaskedConv2d(self.image_labels, h, size, "A")
        num = as_size(num_layers, "num_layers")
        self.recurrent = nn.ModuleList(
            DiagonalLSTM(h, units, self.image_labels)
            if kind == "diagonal"
            else RowLSTM(h, units, self.image_labels, kernel_size)
            for _ in range(num)
        )
        self.up = nn.ModuleList(MaskedConv2d(units, h, POINT, "B") for _ in range(num))
        hidden = self._labels(num_head_channels or num_channels, "num_head_channels")
        self.head = head(h, hidden, self.parameter_labels)
        self.context_maps = ContextMaps(context_channels or context_dim, [num_channels] * num)

    def features(self, run: Run, x: torch.Tensor | None, shifts: Shifts) -> torch.Tensor:
        """Parameters of pixels; see :class:`PixelDistribution`."""
        h = run(self.first, x)
        for recurrent, up, shift in zip(self.recurrent, self.up, shifts, strict=True):
            h = h + run(up, run.with_image(recurrent, h), shift)
        return run_head(self.head, run, h)
