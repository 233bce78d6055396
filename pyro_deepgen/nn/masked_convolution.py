# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Convolutions over what precedes a pixel in reading order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import conv2d, pad

from .sizes import as_size

Sight = Literal["A", "B", "rows", "above"]


def spread_labels(num_channels: int, num_groups: int) -> list[int]:
    """Give each of a layer's channels the number of a group, evenly and in order.

    Args:
        num_channels: number of channels.
        num_groups: number of groups, at most as many.

    Returns:
        The number of each channel's group, counted from 0.

    Raises:
        ValueError: if there are fewer channels than groups.

    Example:
        >>> spread_labels(5, 3)
        [0, 0, 1, 1, 2]
    """
    if num_channels < num_groups:
        raise ValueError(
            f"expected at least {num_groups} channels in a layer, one for each channel of the "
            f"image, got {num_channels}"
        )
    return [channel * num_groups // num_channels for channel in range(num_channels)]


class MaskedConv2d(nn.Module):
    r"""A convolution whose output at a pixel sees only what precedes the pixel in reading order.

    With weights for the rows above and for the row itself,

    .. math:: y_{ij} = b + \sum_{a=0}^{r} \sum_{|d| \leq s} (W_{ad} \odot M_{ad})\, x_{i-a, j+d},

    where :math:`M` hides what stands to the right in the pixel's own row (:math:`a = 0, d > 0`).
    At the pixel itself (:math:`a = d = 0`), where the channels are made group by group, a channel
    sees the groups before its own (mask A: the input is the image, whose values are not known
    yet) or up to its own (mask B: the input has been computed from values before).

    The sight ``"rows"`` hides nothing of the pixel's own row, and ``"above"`` all of it: they are
    for features of rows that are complete.

    Args:
        in_labels: number of the group of every input channel.
        out_labels: number of the group of every output channel.
        kernel_size: height and width of the whole kernel, odd numbers; ``2 r + 1`` and
            ``2 s + 1``. What lies below the pixel has no weights.
        sight: ``"A"``, ``"B"``, ``"rows"`` or ``"above"``.

    Raises:
        ValueError: if a kernel's size is even, or there is nothing above to see.

    References:
        van den Oord, Kalchbrenner and Kavukcuoglu, Pixel recurrent neural networks, 2016,
        arXiv:1601.06759.

    Example:
        >>> import torch
        >>> layer, x = MaskedConv2d([0], [0], (3, 3), "A"), torch.randn(1, 1, 3, 3)
        >>> jacobian = torch.autograd.functional.jacobian(lambda x: layer(x)[0, 0, 1, 1], x)
        >>> (jacobian[0, 0] != 0).int()
        tensor([[1, 1, 1],
                [1, 0, 0],
                [0, 0, 0]], dtype=torch.int32)
    """

    def __init__(
        self,
        in_labels: Sequence[int],
        out_labels: Sequence[int],
        kernel_size: tuple[int, int],
        sight: Sight,
    ) -> None:
        super().__init__()
        height, width = (as_size(size, "kernel_size") for size in kernel_size)
        if height % 2 == 0 or width % 2 == 0 or (sight == "above" and height == 1):
            raise ValueError(
                "expected a kernel of an odd height and width, and of a height above 1 where it "
                f"sees the rows above only, got {tuple(kernel_size)}"
            )
        self.sight, self.side = sight, width // 2
        self.num_rows = height // 2 + (sight != "above")
        self.in_labels, self.out_labels = list(in_labels), list(out_labels)
        shape = (len(self.out_labels), len(self.in_labels), self.num_rows, width)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape[0]))
        mask = torch.ones(shape)
        if sight in ("A", "B"):
            before, after = torch.tensor(self.in_labels), torch.tensor(self.out_labels)[:, None]
            mask[:, :, -1, self.side + 1 :] = 0
            mask[:, :, -1, self.side] = (before < after if sight == "A" else before <= after).to(
                mask.dtype
            )
        self.mask: torch.Tensor
        self.register_buffer("mask", mask, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw starting values, within the inverse square root of the number of inputs seen."""
        bound = self.mask.sum((1, 2, 3)).clamp(min=1).rsqrt()
        with torch.no_grad():
            self.weight.uniform_(-1, 1).mul_(bound[:, None, None, None])
            self.bias.uniform_(-1, 1).mul_(bound)

    def seen_weight(self) -> torch.Tensor:
        """Weights with zeros where the mask hides, ``(out, in, rows, width)``."""
        return self.weight if self.sight in ("rows", "above") else self.weight * self.mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(N, in, H, W)`` to ``(N, out, H, W)``."""
        if self.sight == "above":
            x = pad(x, (self.side, self.side, self.num_rows, 0))[:, :, :-1]
        elif self.side or self.num_rows > 1:  # a pad by nothing would copy
            x = pad(x, (self.side, self.side, self.num_rows - 1, 0))
        return conv2d(x, self.seen_weight(), self.bias)

    def extra_repr(self) -> str:
        """Name the sizes in the printed form."""
        sizes = f"{len(self.in_labels)}, {len(self.out_labels)}"
        return f"{sizes}, rows={self.num_rows}, width={2 * self.side + 1}, sight={self.sight!r}"
