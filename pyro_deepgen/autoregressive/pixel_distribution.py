# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What distributions of images that are made pixel by pixel have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import product

import torch
from torch import nn
from torch.nn.functional import one_hot
from typing_extensions import Self

from ..nn import as_shape, as_size, spread_labels
from .autoregressive_distribution import AutoregressiveDistribution
from .drawing import Drawing
from .logistic_output import LogisticMixtureOutput
from .outputs import BinaryOutput, CategoricalOutput, Output
from .pixel_walk import PixelWalk, Run, WholeImages

Shifts = list[torch.Tensor | None]


class PixelDistribution(AutoregressiveDistribution):
    r"""Images as a product of conditionals, in reading order and channel by channel in a pixel.

    .. math:: p(x \mid c) = \prod_{i, j, k} p(x_{kij} \mid x_{<ij}, x_{<k, ij}, c)

    A subclass writes a network of masked layers once (:meth:`features`, and :meth:`begin_row` for
    what sees complete rows only), and says what a context adds to its layers
    (``context_maps``). The network runs on whole images for ``log_prob``, and pixel by pixel for a
    draw, in which each layer computes each of its activations once.

    With :class:`LogisticMixtureOutput` the network sees the pixels before, and the mixture itself
    couples the channels of a pixel.

    Args:
        image_shape: ``(C, H, W)``.
        output: the family of one variable: binary by default, :class:`CategoricalOutput` or
            :class:`LogisticMixtureOutput`.
        context_dim: number of dimensions of a vector context, the same at each pixel.
        context_channels: number of channels of a context map, ``(context_channels, H, W)``.
        one_hot: whether classes enter as one-hot vectors, and not as numbers from -1 to 1.
        validate_args: whether ``log_prob`` checks its argument.

    Raises:
        ValueError: if a shape or size does not fit, the output is not discrete, or there are both
            kinds of context.
    """

    order_indices: torch.Tensor
    context_maps: ContextMaps

    def __init__(
        self,
        image_shape: Sequence[int],
        output: Output | None,
        *,
        context_dim: int = 0,
        context_channels: int = 0,
        one_hot: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        shape, output = as_shape(image_shape), output or BinaryOutput()
        if len(shape) != 3:
            raise ValueError(
                f"expected an image shape (channels, height, width), got {shape}; a grey 28 x 28 "
                "image is (1, 28, 28)"
            )
        if isinstance(output, Output) and output.num_values is None:
            raise ValueError(
                "expected as output BinaryOutput(), CategoricalOutput(256) or "
                f"LogisticMixtureOutput(10), say, got {output!r}"
            )
        if one_hot and not isinstance(output, CategoricalOutput):
            raise ValueError(f"expected a CategoricalOutput with one_hot=True, got {output!r}")
        if context_dim and context_channels:
            raise ValueError(
                "expected a vector context or a context map, got context_dim="
                f"{context_dim} and context_channels={context_channels}: lay the vector out as "
                "further channels of the map"
            )
        self.context_shape: tuple[int, ...] = (context_dim,)
        if context_channels:
            self.context_shape = (as_size(context_channels, "context_channels"), *shape[1:])
            context_dim = self.context_shape[0] * shape[1] * shape[2]
        super().__init__(shape, output, context_dim=context_dim, validate_args=validate_args)
        self.context_channels, self.one_hot = context_channels, one_hot
        channels, height, width = shape
        numbers = torch.arange(channels * height * width).reshape(shape)
        order = numbers.permute(1, 2, 0).reshape(1, -1)
        self.register_buffer("order_indices", order, persistent=False)
        self.num_groups = 1 if isinstance(output, LogisticMixtureOutput) else channels
        per_channel = range(channels) if self.num_groups > 1 else [0] * channels
        width_in = output.num_inputs if one_hot else 1
        self.image_labels = [k for k in per_channel for _ in range(width_in)]
        if isinstance(output, LogisticMixtureOutput):
            self.parameter_labels = [0] * output.num_pixel_parameters(channels)
        else:
            self.parameter_labels = [k for k in per_channel for _ in range(output.num_parameters)]

    # ------------------------------------------------ what a subclass writes

    @abstractmethod
    def features(self, run: Run, x: torch.Tensor | None, shifts: Shifts) -> torch.Tensor:
        """Parameters of pixels, with every layer run by ``run``.

        Args:
            run: runs a layer.
            x: images ``(N, in, H, W)``; ``None`` at a single pixel, whose values are not known.
            shifts: what :meth:`begin_row` gave.
        """

    def begin_row(self, run: Run, x: torch.Tensor, shifts: Shifts) -> Shifts:
        """Run the layers that see complete rows.

        Args:
            run: runs a layer.
            x: images ``(N, in, H, W)``; in a draw the row above, ``(N, in, 1, W)``.
            shifts: what the context adds to layers, each ``(N, out, H, W)``, with ones where it
                does not depend on the pixel.

        Returns:
            What is to be added to the outputs of layers of :meth:`features`.
        """
        return shifts

    def context_shifts(self, context: torch.Tensor | None) -> Shifts:
        """What contexts ``(N, context_dim)`` add to each layer that sees them."""
        if context is not None and self.context_channels:
            context = context.reshape((len(context), *self.context_shape))
        shifts: Shifts = self.context_maps(context)
        return shifts

    # ------------------------------------------------ the distribution

    @property
    def orders(self) -> torch.Tensor:
        """Reading order, with the channels of a pixel one after the other, ``(1, D)``."""
        return self.order_indices

    def condition(self, context: torch.Tensor) -> Self:
        """Return the distribution given contexts, which shares the parameters.

        Args:
            context: contexts of shape ``(*batch, context_dim)``, or maps of shape
                ``(*batch, context_channels, H, W)``.

        Raises:
            ValueError: if the shape does not fit.
        """
        if not self.context_channels:
            return super().condition(context)
        if context.shape[-3:] != self.context_shape:
            raise ValueError(
                f"expected context maps whose last dimensions are {self.context_shape}, got shape "
                f"{tuple(context.shape)}"
            )
        return super().condition(context.flatten(-3))

    def params_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the context, as a likelihood tells it to who makes its network."""
        super().params_shape(event_shape)
        return self.context_shape

    def enumerate_support(self, expand: bool = True) -> torch.Tensor:
        """All images, ``(S, *batch_shape, C, H, W)``; see :class:`AutoregressiveDistribution`."""
        numbers = super().enumerate_support(expand)
        output = self.output
        if not isinstance(output, LogisticMixtureOutput):
            return numbers
        return output.level(numbers.to(next(self.parameters()).dtype))

    def conditionals(
        self, x: torch.Tensor, context: torch.Tensor | None = None, component: int = 0
    ) -> torch.Tensor:
        """Parameters ``(*batch, C, H, W, P)`` from images ``(*batch, C, H, W)``, in one pass."""
        batch = x.shape[:-3]
        if context is not None:
            batch = torch.broadcast_shapes(batch, context.shape[:-1])
            context = context.expand((*batch, self.context_dim))
            context = context.reshape((batch.numel(), self.context_dim))
        x = x.expand(batch + self.event_shape).reshape((batch.numel(), *self.event_shape))
        inputs = self.encode(x)
        run = WholeImages(inputs)
        shifts = self.begin_row(run, inputs, self.context_shifts(context))
        parameters = self.features(run, inputs, shifts)
        if isinstance(self.output, LogisticMixtureOutput):
            pixels, values = parameters.movedim(1, -1), x.movedim(1, -1)
            num = len(self.image_labels)
            parts = [self.output.couple(pixels, values[..., :k], num) for k in range(num)]
            split = torch.stack(parts, 1)
        else:
            width = self.output.num_parameters
            split = parameters.unflatten(1, (-1, width)).movedim(2, -1)
        return split.reshape(batch + split.shape[1:])

    @torch.no_grad()
    def generate(
        self,
        drawing: Drawing,
        batch_shape: torch.Size,
        context: torch.Tensor | None = None,
        component: int = 0,
    ) -> torch.Tensor:
        """Make the pixels one by one; every activation is computed once.

        What the rows above add to a row is computed for all its pixels together.
        """
        num, (channels, height, width) = batch_shape.numel(), self.event_shape
        if context is not None:
            context = context.expand((*batch_shape, self.context_dim))
            context = context.reshape((num, self.context_dim))
        given = self.context_shifts(context)
        num_inputs = len(self.image_labels)
        walk = PixelWalk(num, width, self.num_groups)
        x: list[torch.Tensor] = []
        above = next(self.parameters()).new_zeros((num, num_inputs, 1, width))
        for row in range(height):
            walk.new_row(row)
            shifts = self.begin_row(walk, above, given)
            inputs = []
            for column, group in product(range(width), range(self.num_groups)):
                walk.move_to(column, group)
                made = self._draw_group(drawing, len(x), self.features(walk, None, shifts))
                x += made
                inputs.append(self.encode(torch.stack(made, -1)[:, :, None, None]).flatten(1))
                walk.learn(inputs[-1])
            above = torch.cat(inputs, -1).reshape((num, width, num_inputs)).mT.unsqueeze(2)
        pixels = torch.stack(x, -1).reshape((num, height, width, channels))
        return pixels.movedim(-1, 1).reshape((*batch_shape, self.event_shape.numel()))

    # ------------------------------------------------ inside

    def _draw_group(
        self, drawing: Drawing, place: int, parameters: torch.Tensor
    ) -> list[torch.Tensor]:
        """Draw one channel, or all channels of a pixel that the mixture couples."""
        if not isinstance(self.output, LogisticMixtureOutput):
            return [drawing(place, parameters)]
        made: list[torch.Tensor] = []
        num = len(self.image_labels)
        for channel in range(num):
            earlier = torch.stack(made, -1) if made else parameters[:, :0]
            made.append(drawing(place + channel, self.output.couple(parameters, earlier, num)))
        return made

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """What the network sees of images ``(N, C, H, W)``: ``(N, in, H, W)``, 0 is outside."""
        dtype, num = next(self.parameters()).dtype, self.output.num_values
        assert num is not None
        if self.one_hot:
            return one_hot(x.long(), num).movedim(-1, 2).flatten(1, 2).to(dtype)
        top = num - 1 if isinstance(self.output, CategoricalOutput) else 1
        return 2 * x.to(dtype) / top - 1

    def _labels(self, num_channels: int, name: str) -> list[int]:
        """Spread the channels of a layer over the groups."""
        return spread_labels(as_size(num_channels, name), self.num_groups)


class ContextMaps(nn.Module):
    """Linear maps from a context to what it adds to the channels of each of several layers.

    Args:
        num_inputs: number of dimensions of the context, 0 for none.
        widths: number of channels of each layer.
    """

    def __init__(self, num_inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = list(widths)
        self.linear: nn.Linear | None = None
        if num_inputs:
            self.linear = nn.Linear(num_inputs, sum(widths), bias=False)

    def forward(self, context: torch.Tensor | None) -> Shifts:
        """Map vectors ``(N, D)``, or maps ``(N, D, H, W)``, to a shift for each layer."""
        if self.linear is None or context is None:
            return [None] * len(self.widths)
        if context.dim() == 2:
            context = context[:, :, None, None]
        shifts = self.linear(context.movedim(1, -1)).movedim(-1, 1)
        return list(shifts.split(self.widths, 1))
