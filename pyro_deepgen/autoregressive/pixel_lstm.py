# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Long short-term memories over the rows and over the diagonals of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import conv1d, linear, pad

from ..nn import MaskedConv2d
from .pixel_walk import ConvolutionSteps, groups_of


def cell(gates: torch.Tensor, memory: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    r"""One step of a long short-term memory.

    .. math:: c' = \sigma(f) \odot c + \sigma(i) \odot \tanh(g), \qquad
        h' = \sigma(o) \odot \tanh(c')

    Args:
        gates: :math:`o, f, i, g`, one after the other along a dimension.
        memory: :math:`c`.
        dim: that dimension.

    Returns:
        The state :math:`h'` and the memory :math:`c'`.

    Example:
        >>> import torch
        >>> h, c = cell(torch.zeros(1, 8), torch.ones(1, 2), 1)
        >>> c.tolist()
        [[0.5, 0.5]]
    """
    o, f, i, g = gates.chunk(4, dim)
    memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
    return o.sigmoid() * memory.tanh(), memory


class RowLSTM(nn.Module):
    r"""A long short-term memory that goes down the rows, all pixels of a row at once.

    .. math:: (o, f, i, g)_{i} = K_{is} * y_i + K_{ss} * h_{i-1} + K_{x} * x_{i-1}

    with one-dimensional convolutions along the row: :math:`K_{is}` has mask B, and the others see
    the row above to both sides. :math:`K_x` sees the image itself, since the features :math:`y` of
    a pixel, and so its state, do not contain its own value. A pixel sees a triangle above it,
    which is wider by ``kernel_size // 2`` columns to each side with every row.

    Args:
        in_labels: number of the group of every input channel.
        out_labels: number of the group of every unit.
        image_labels: number of the group of every channel of the image.
        kernel_size: size of the kernels, an odd number.
    """

    def __init__(
        self,
        in_labels: Sequence[int],
        out_labels: Sequence[int],
        image_labels: Sequence[int],
        kernel_size: int,
    ) -> None:
        super().__init__()
        self.out_labels = list(out_labels)
        size, gates = len(self.out_labels), self.out_labels * 4
        self.enter = MaskedConv2d(in_labels, gates, (1, kernel_size), "B")
        self.look = MaskedConv2d(image_labels, gates, (3, kernel_size), "above")
        self.side = kernel_size // 2
        bound = (size * kernel_size) ** -0.5
        weight = torch.empty(4 * size, size, kernel_size).uniform_(-bound, bound)
        self.recurrent_weight = nn.Parameter(weight)

    def recur(self, state: torch.Tensor) -> torch.Tensor:
        """What the row above ``(N, units, W)`` adds to the gates, ``(N, 4 units, W)``."""
        return conv1d(state, self.recurrent_weight, padding=self.side)

    def forward(self, x: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Map features ``(N, in, H, W)`` and the image to ``(N, units, H, W)``."""
        entered = self.enter(x) + self.look(image)
        state = memory = x.new_zeros((x.shape[0], len(self.out_labels), x.shape[3]))
        states = []
        for row in entered.unbind(2):
            state, memory = cell(row + self.recur(state), memory, 1)
            states.append(state)
        return torch.stack(states, 2)

    def steps(self, num: int, width: int, num_groups: int) -> RowLSTMSteps:
        """Begin to make images pixel by pixel."""
        return RowLSTMSteps(self, num, width, num_groups)


class RowLSTMSteps:
    """A row LSTM pixel by pixel: it carries the states and memories of two rows."""

    def __init__(self, layer: RowLSTM, num: int, width: int, num_groups: int) -> None:
        self.layer = layer
        self.enter = ConvolutionSteps(layer.enter, num, width, num_groups)
        self.gates = groups_of(layer.enter.out_labels, num_groups, layer.recurrent_weight.device)
        self.units = groups_of(layer.out_labels, num_groups, layer.recurrent_weight.device)
        self.inputs = groups_of(layer.look.in_labels, num_groups, layer.look.weight.device)
        shape = (num, len(layer.out_labels), width)
        self.state = layer.recurrent_weight.new_zeros(shape)
        self.memory = torch.zeros_like(self.state)
        self.image = self.state.new_zeros((num, len(layer.look.in_labels), width))
        self.before, self.from_above = self._above()

    def _above(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        look = self.layer.look
        seen = conv1d(self.image, look.weight[:, :, 0], look.bias, padding=look.side)
        added = self.layer.recur(self.state) + seen
        memories = [self.memory.index_select(1, units) for units in self.units]
        return memories, [added.index_select(1, gates) for gates in self.gates]

    def new_row(self) -> None:
        """Let the row that is complete be the one above."""
        self.enter.new_row()
        self.before, self.from_above = self._above()

    def put(self, column: int, group: int, value: torch.Tensor) -> None:
        """Keep a group of channels of the image ``(N, in)`` at a pixel."""
        self.image[:, :, column].index_copy_(1, self.inputs[group], value)

    def at(self, column: int, group: int, value: torch.Tensor | None) -> torch.Tensor:
        """Give a group of the states at a pixel."""
        entered = self.enter.at(column, group, value)
        gates = entered + self.from_above[group][:, :, column]
        state, memory = cell(gates, self.before[group][:, :, column], 1)
        self.state[:, :, column].index_copy_(1, self.units[group], state)
        self.memory[:, :, column].index_copy_(1, self.units[group], memory)
        return state


class DiagonalLSTM(nn.Module):
    r"""Two long short-term memories that go along the diagonals, from the left and from the right.

    .. math:: (o, f, i, g)_{ij} = K_{is} y_{ij} + K_{ss} (h_{i,j-1}, h_{i-1,j})

    where the memory :math:`c_{ij}` follows :math:`c_{i,j-1}`. All pixels of a diagonal are computed
    at once: what they depend on lies on the diagonal before. The second goes from right to left;
    its states enter one row further down, where all that they have seen is known. So it also sees
    the pixel :math:`x_{ij}` of the image itself, which :math:`y_{ij}` does not contain; without it
    the last pixel of the row above would not be seen. Together they see all pixels before.

    Args:
        in_labels: number of the group of every input channel.
        out_labels: number of the group of every unit.
        image_labels: number of the group of every channel of the image.
    """

    def __init__(
        self, in_labels: Sequence[int], out_labels: Sequence[int], image_labels: Sequence[int]
    ) -> None:
        super().__init__()
        self.out_labels = list(out_labels)
        size, gates = len(self.out_labels), self.out_labels * 4
        # The second's states enter a row below, where all channels of its inputs are known.
        self.enter = nn.ModuleList(
            MaskedConv2d(in_labels, gates, (1, 1), sight) for sight in ("B", "rows")
        )
        self.look = MaskedConv2d(image_labels, gates, (1, 1), "rows")
        bound = (2 * size) ** -0.5
        weight = torch.empty(2, 4 * size, 2 * size).uniform_(-bound, bound)
        self.recurrent_weight = nn.Parameter(weight)

    def forward(self, x: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Map features ``(N, in, H, W)`` and the image to ``(N, units, H, W)``."""
        height, width = x.shape[2:]
        order, sizes = diagonals(height, width, x.device)
        first, _ = self.enter
        assert isinstance(first, MaskedConv2d)
        turned = torch.cat([x, image], 1).flip(-1)  # for the second, which so goes the same way
        entered = torch.stack(
            [
                linear(in_order(x, order), first.seen_weight()[:, :, 0, 0], first.bias),
                linear(in_order(turned, order), *self.enter_from_right()),
            ]
        )
        states = self.along_diagonals(entered, sizes, width).index_select(1, order.argsort())
        from_left, from_right = states.permute(0, 2, 3, 1).unflatten(3, (height, width))
        made: torch.Tensor = from_left + pad(from_right[:, :, :-1].flip(-1), (0, 0, 1, 0))
        return made

    def enter_from_right(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight ``(4 units, in + image)`` and bias by which features and image enter together."""
        _, second = self.enter
        assert isinstance(second, MaskedConv2d)
        weight = torch.cat([second.weight, self.look.weight], 1)[:, :, 0, 0]
        return weight, second.bias + self.look.bias

    def along_diagonals(
        self, entered: torch.Tensor, sizes: Sequence[int], width: int
    ) -> torch.Tensor:
        """Run both from left to right, diagonal by diagonal.

        Args:
            entered: what enters the gates of the two at the pixels of each diagonal, from top to
                bottom, one diagonal after the other: ``(2, H W, N, 4 units)``.
            sizes: number of pixels of each diagonal.
            width: width of the image.

        Returns:
            States ``(2, H W, N, units)``.
        """
        height, recurrent = len(sizes) + 1 - width, self.recurrent_weight.mT
        state = memory = entered.new_zeros((2, 0, entered.shape[2], len(self.out_labels)))
        states = []
        for number, column in enumerate(entered.split(list(sizes), 1)):
            # Zeros stand for what is above the first row, and to the left of the first column.
            first, last = int(number < width), int(number < height)
            before = pad(state, (0, 0, 0, 0, first, last))
            beside_and_above = torch.cat([before[:, 1:], before[:, :-1]], -1)
            gates = torch.baddbmm(column.flatten(1, 2), beside_and_above.flatten(1, 2), recurrent)
            beside = pad(memory[:, 1 - first :], (0, 0, 0, 0, 0, last))
            state, memory = cell(gates.unflatten(1, column.shape[1:3]), beside, -1)
            states.append(state)
        return torch.cat(states, 1)

    def steps(self, num: int, width: int, num_groups: int) -> DiagonalLSTMSteps:
        """Begin to make images pixel by pixel."""
        return DiagonalLSTMSteps(self, num, width, num_groups)


def diagonals(
    height: int, width: int, device: torch.device | None = None
) -> tuple[torch.Tensor, list[int]]:
    """The pixels of each diagonal from the top right to the bottom left, one after the other.

    Returns:
        The numbers in reading order of all pixels, and how many there are on each diagonal.

    Example:
        >>> order, sizes = diagonals(2, 3)
        >>> order.tolist(), sizes
        ([0, 1, 3, 2, 4, 5], [1, 2, 2, 1])
    """
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    order = (rows[:, None] + columns).flatten().argsort(stable=True)
    num = height + width - 1
    return order, [min(k, height - 1) - max(k - width, -1) for k in range(num)]


def in_order(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Take the pixels of images ``(N, C, H, W)`` in an order: ``(H W, N, C)``."""
    return x.flatten(2).permute(2, 0, 1).contiguous().index_select(0, order)


class DiagonalLSTMSteps:
    """A diagonal LSTM pixel by pixel: it carries the states of the row above and to the left."""

    def __init__(self, layer: DiagonalLSTM, num: int, width: int, num_groups: int) -> None:
        first, _ = layer.enter
        assert isinstance(first, MaskedConv2d)
        size, device = len(layer.out_labels), layer.recurrent_weight.device
        self.enter = ConvolutionSteps(first, num, width, num_groups, keep=True)
        look = layer.look
        self.inputs = groups_of(look.in_labels, num_groups, device)
        # From right to left, features and the image enter together.
        self.enter_weight, self.enter_bias = layer.enter_from_right()
        # Of each direction: what the pixel beside adds to the gates, and what the pixel above.
        self.beside, self.above = layer.recurrent_weight.split(size, 2)
        self.units = groups_of(layer.out_labels, num_groups, device)
        self.gates = groups_of(first.out_labels, num_groups, device)
        self.weights = [self.beside[0].index_select(0, gates).mT for gates in self.gates]
        zeros = layer.recurrent_weight.new_zeros((width + 1, num, size))
        self.state, self.memory = zeros, zeros.clone()  # of the row; the first is left of it
        self.from_right = zeros[1:].clone()  # states of the row above
        self.added = zeros.new_zeros((width, num, 4 * size))
        self.image = zeros.new_zeros((num, width, len(look.in_labels)))

    def new_row(self) -> None:
        """Go over the complete row from right to left, and make it the row above."""
        row = torch.cat([self.enter.row(), self.image], -1).transpose(0, 1)
        entered = linear(row, self.enter_weight, self.enter_bias)
        entered = entered + linear(self.from_right, self.above[1])
        state = memory = torch.zeros_like(self.state[0])
        states = []
        for gates in entered.flip(0):
            state, memory = cell(torch.addmm(gates, state, self.beside[1].mT), memory, 1)
            states.append(state)
        self.from_right = torch.stack(states[::-1])
        self.enter.new_row()
        self.added = linear(self.state[1:], self.above[0])

    def put(self, column: int, group: int, value: torch.Tensor) -> None:
        """Keep a group of channels of the image ``(N, in)`` at a pixel."""
        self.image[:, column].index_copy_(1, self.inputs[group], value)

    def at(self, column: int, group: int, value: torch.Tensor | None) -> torch.Tensor:
        """Give a group of the states at a pixel."""
        gates, units = self.gates[group], self.units[group]
        entered = self.enter.at(column, group, value) + self.added[column].index_select(1, gates)
        entered = torch.addmm(entered, self.state[column], self.weights[group])
        state, memory = cell(entered, self.memory[column].index_select(1, units), 1)
        self.state[column + 1].index_copy_(1, units, state)
        self.memory[column + 1].index_copy_(1, units, memory)
        return state + self.from_right[column].index_select(1, units)
