# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Running a network of masked layers on whole images, or pixel by pixel with cached rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn
from torch.nn.functional import conv2d, pad

from ..nn import MaskedConv2d


class PixelSteps(Protocol):
    """What a layer knows of one batch of images that are made pixel by pixel."""

    def new_row(self) -> None:
        """Make ready for the next row: all pixels of the present one are known."""
        ...

    def at(self, column: int, group: int, value: torch.Tensor | None) -> torch.Tensor:
        """Take a group of input channels ``(N, in)`` at a pixel, give that group of the output."""
        ...


class SeesImage(PixelSteps, Protocol):
    """Steps of a layer that sees the image, and keeps what it will see of it."""

    def put(self, column: int, group: int, value: torch.Tensor) -> None:
        """Keep a group of channels of the image ``(N, in)`` at a pixel."""
        ...


class Run(Protocol):
    """A way of running a network: each layer goes through it.

    ``run(layer, x, shift)`` gives a layer's output and adds ``shift``, of shape ``(N, out, H, W)``
    with ones where it does not depend on the pixel; ``run.with_image(layer, x)`` is for layers that
    see the image as well; ``run.rows(layer, x)`` for those that see complete rows, and
    ``run.here(shift)`` gives what is needed of a shift in such a place.
    """

    def __call__(
        self, layer: nn.Module, x: torch.Tensor | None, shift: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run a layer."""
        ...

    def with_image(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Run a layer that also sees the image."""
        ...

    def rows(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Run a layer that sees complete rows."""
        ...

    def here(self, shift: torch.Tensor | None) -> torch.Tensor | float:
        """Give what is to be added to the output of a layer of complete rows."""
        ...


class WholeImages:
    """Run layers on whole images, ``(N, channels, H, W)``.

    Args:
        image: what the network sees of the images.
    """

    def __init__(self, image: torch.Tensor) -> None:
        self.image = image

    def __call__(
        self, layer: nn.Module, x: torch.Tensor | None, shift: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run a layer."""
        output: torch.Tensor = layer(x)
        return output if shift is None else output + shift

    def with_image(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Run a layer that also sees the image."""
        output: torch.Tensor = layer(x, self.image)
        return output

    def rows(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Run a layer that sees complete rows."""
        output: torch.Tensor = layer(x)
        return output

    def here(self, shift: torch.Tensor | None) -> torch.Tensor | float:
        """Give the shift as it is."""
        return 0.0 if shift is None else shift


class PixelWalk:
    """Run layers where the walk stands: at a group of channels ``(N, channels)`` of one pixel.

    Each layer keeps the rows of its input that it will see again, so that nothing is computed
    twice.

    Args:
        num: number of images :math:`N`.
        width: width of the images.
        num_groups: number of groups of channels.
    """

    def __init__(self, num: int, width: int, num_groups: int) -> None:
        self.num, self.width, self.num_groups = num, width, num_groups
        self.row = self.column = self.group = 0
        self._steps: dict[nn.Module, PixelSteps] = {}
        self._entrances: list[SeesImage] = []  # where the image comes in
        self._rows: dict[nn.Module, torch.Tensor] = {}
        self._indices: dict[nn.Module, list[torch.Tensor]] = {}

    def new_row(self, row: int) -> None:
        """Go to the first pixel of a row; the rows above are complete."""
        self.row = row
        if row > 0:
            for steps in self._steps.values():
                steps.new_row()

    def move_to(self, column: int, group: int) -> None:
        """Go to a group of channels of a pixel of the row."""
        self.column, self.group = column, group

    def learn(self, value: torch.Tensor) -> None:
        """Let the layers that see the image know the values ``(N, in)`` made at this place."""
        for steps in self._entrances:
            steps.put(self.column, self.group, value)

    def __call__(
        self, layer: nn.Module, x: torch.Tensor | None, shift: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run a layer at this pixel and group."""
        steps = self._steps.get(layer)
        if steps is None:
            steps = self._steps[layer] = self._begin(layer)
        output = steps.at(self.column, self.group, x)
        if shift is None:
            return output
        row = self.row if shift.shape[2] > 1 else 0
        here = shift[:, :, row, self.column if shift.shape[3] > 1 else 0]
        if self.num_groups > 1:
            here = here.index_select(1, self._indices[layer][self.group])
        return output + here

    def with_image(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Run a layer that also sees the image, in complete rows."""
        return self(layer, x)

    def rows(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Run a layer on the last row ``(N, in, 1, W)`` that it sees; it keeps those above."""
        assert isinstance(layer, MaskedConv2d)
        side = layer.side
        seen = self._rows.get(layer)
        if seen is None:
            seen = x.new_zeros((x.shape[0], x.shape[1], layer.num_rows, self.width + 2 * side))
        seen = torch.cat([seen[:, :, 1:], pad(x, (side, side))], 2)
        self._rows[layer] = seen
        return conv2d(seen, layer.weight, layer.bias)

    def here(self, shift: torch.Tensor | None) -> torch.Tensor | float:
        """Give the present row of a shift."""
        if shift is None:
            return 0.0
        return shift[:, :, self.row : self.row + 1] if shift.shape[2] > 1 else shift

    def _begin(self, layer: nn.Module) -> PixelSteps:
        labels = layer.out_labels
        assert isinstance(labels, list)
        device = next(layer.parameters()).device
        self._indices[layer] = groups_of(labels, self.num_groups, device)
        if isinstance(layer, MaskedConv2d):
            convolution = ConvolutionSteps(layer, self.num, self.width, self.num_groups)
            if layer.sight == "A":
                self._entrances.append(convolution)
            return convolution
        begin = layer.steps
        assert callable(begin)
        steps: SeesImage = begin(self.num, self.width, self.num_groups)
        self._entrances.append(steps)
        return steps


def groups_of(
    labels: Sequence[int], num_groups: int, device: torch.device | None = None
) -> list[torch.Tensor]:
    """The numbers of the channels of each group.

    Example:
        >>> [numbers.tolist() for numbers in groups_of([0, 1, 0, 1, 1], 2)]
        [[0, 2], [1, 3, 4]]
    """
    all_labels = torch.tensor(list(labels), device=device)
    return [(all_labels == group).nonzero().squeeze(-1) for group in range(num_groups)]


class ConvolutionSteps:
    """A masked convolution pixel by pixel.

    What the rows above add is computed for a whole row at once; what the row itself adds, from a
    window of it that ends at the pixel.

    Args:
        layer: a convolution with mask A or B.
        num: number of images.
        width: width of the images.
        num_groups: number of groups of channels.
        keep: whether to keep the row also where the layer itself needs the pixel only.
    """

    def __init__(
        self, layer: MaskedConv2d, num: int, width: int, num_groups: int, *, keep: bool = False
    ) -> None:
        weight, bias, side = layer.seen_weight(), layer.bias, layer.side
        num_in, device = len(layer.in_labels), layer.weight.device
        self.side, self.bias, self.above_weight = side, bias, weight[:, :, :-1]
        self.inputs = groups_of(layer.in_labels, num_groups, device)
        self.outputs = groups_of(layer.out_labels, num_groups, device)
        self.point = weight.shape[2] == 1 and side == 0 and num_groups == 1 and not keep
        own = weight[:, :, -1, : side + 1].transpose(1, 2).flatten(1)  # (out, positions * in)
        self.weights = [own.index_select(0, outputs).mT.contiguous() for outputs in self.outputs]
        biases = [bias.index_select(0, outputs) for outputs in self.outputs]
        # What is added at each column, in each group: the bias alone in the first row.
        self.start: list[Sequence[torch.Tensor]] = [[each] * width for each in biases]
        self.above = weight.new_zeros((num, num_in, layer.num_rows - 1, width + 2 * side))
        # All positions of the row side by side, so that a window of it is no copy.
        self.current = weight.new_zeros((num, (width + side) * num_in))
        ends = range((side + 1) * num_in, (width + side + 1) * num_in, num_in)
        self.windows = [self.current[:, end - own.shape[1] : end] for end in ends]
        self.places = [self.current[:, end - num_in : end] for end in ends]

    def row(self) -> torch.Tensor:
        """The inputs of the row, ``(N, W, in)``."""
        return torch.stack(self.places, 1)

    def new_row(self) -> None:
        """Let the row that is complete be the last of those above."""
        if self.above.shape[2]:
            last = pad(self.row().mT, (self.side, self.side)).unsqueeze(2)
            self.above = torch.cat([self.above[:, :, 1:], last], 2)
            base = conv2d(self.above, self.above_weight, self.bias).squeeze(2).permute(2, 0, 1)
            self.start = [base.index_select(2, outputs).unbind() for outputs in self.outputs]
        self.current.zero_()

    def put(self, column: int, group: int, value: torch.Tensor) -> None:
        """Keep a group of input channels ``(N, in)`` at a pixel."""
        if len(self.inputs) == 1:
            self.places[column].copy_(value)
        else:
            self.places[column].index_copy_(1, self.inputs[group], value)

    def at(self, column: int, group: int, value: torch.Tensor | None) -> torch.Tensor:
        """Give a group of the output at a pixel; an image's own values are not known yet."""
        seen = self.windows[column]
        if value is not None and self.point:
            seen = value
        elif value is not None:
            self.put(column, group, value)
        return torch.addmm(self.start[group][column], seen, self.weights[group])
