# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Layers of units that share their weights over an image, and what acts on them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.distributions import constraints
from torch.nn.functional import conv2d, conv_transpose2d

from .context import offsets
from .energy_distribution import EnergyDistribution
from .pooling import ProbabilisticMaxPooling
from .units import BinaryUnits, GaussianUnits, Units

# Units by layer; ``None`` for layers that are not given.
Layers = list[torch.Tensor | None]


class ConvolutionalLayer(NamedTuple):
    """A layer of detection and pooling units.

    Args:
        num_filters: maps ``K`` of detection units.
        filter_size: the side of a filter.
        pool_size: the side of a block of detection units, of which at most one is on.
        padding: rows and columns of zeros around the layer below. Without, filters stay inside
            the image (a "valid" convolution, as in the paper), and units at its border have fewer
            connections; with ``filter_size - 1`` all have equally many.

    Example:
        >>> layer = ConvolutionalLayer(num_filters=8, filter_size=5)
        >>> layer.pool_size, layer.padding
        (2, 0)
    """

    num_filters: int
    filter_size: int
    pool_size: int = 2
    padding: int = 0


class ConvolutionalLayers(EnergyDistribution):
    """An image, and layers of detection and pooling units above it that share their weights.

    The image is layer 0; the detection units of layer ``l`` see the pooling units of layer
    ``l - 1``. Given its neighbours, a layer is independent units or blocks of them.
    """

    base_bias: torch.Tensor

    def __init__(
        self,
        image_shape: Sequence[int],
        layers: Sequence[ConvolutionalLayer],
        *,
        visible: Units | None,
        context_dim: int,
        bias: nn.Module | None,
        **settings: Any,
    ) -> None:
        shape = tuple(image_shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"expected an image's shape (channels, height, width), got {shape}")
        if not layers:
            raise ValueError("expected one layer or more, got none")
        for layer in layers:
            if layer.num_filters < 1 or layer.filter_size < 1 or layer.padding < 0:
                raise ValueError(f"expected positive sizes and no negative padding, got {layer}")
            if layer.padding >= layer.filter_size:
                raise ValueError(
                    f"expected padding below filter_size, as other units see nothing, got {layer}"
                )
        visible = BinaryUnits(shape[0]) if visible is None else visible
        if not isinstance(visible, BinaryUnits | GaussianUnits) or visible.num_units != shape[0]:
            raise ValueError(
                f"expected BinaryUnits or GaussianUnits for the {shape[0]} channels of a pixel, "
                f"got {type(visible).__name__} for {visible.num_units}"
            )
        super().__init__(shape, context_dim=context_dim, **settings)
        self.layers, self.visible = tuple(layers), visible.at(self.temperature)
        self.pooling = [ProbabilisticMaxPooling(layer.pool_size) for layer in layers]
        self.register_buffer("base_bias", torch.zeros(shape))
        sizes = [shape[0], *[layer.num_filters for layer in layers]]
        self.__dict__["_sizes"] = sizes
        self.__dict__["_shapes"] = self._shapes_of(shape)
        if context_dim:
            self.offsets = offsets(context_dim, sizes) if bias is None else bias
        elif bias is not None:
            raise ValueError("expected context_dim with a network of the context, got 0")
        self.__dict__["_beta"] = None

    @abstractmethod
    def own_weight(self, level: int) -> torch.Tensor:
        """The filters ``(K_l, K_{l-1}, F, F)`` of a layer."""

    @abstractmethod
    def own_bias(self, level: int) -> torch.Tensor:
        """The biases ``(K_l,)`` of a layer's maps; of an image's channels for layer 0."""

    @property
    def support(self) -> Any:
        """Binary or real images."""
        binary = isinstance(self.visible, BinaryUnits)
        return constraints.independent(constraints.boolean if binary else constraints.real, 3)

    # ------------------------------------------------ shapes

    @property
    def num_layers(self) -> int:
        """Layers, the image among them."""
        return len(self.layers) + 1

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """Shapes of the image and of the detection units of each layer."""
        shapes: list[tuple[int, int, int]] = self.__dict__["_shapes"]
        return shapes

    def _shapes_of(self, shape: tuple[int, ...]) -> list[tuple[int, int, int]]:
        shapes = [(shape[0], shape[1], shape[2])]
        below = shape[1:]
        for layer, pooling in zip(self.layers, self.pooling, strict=True):
            height, width = (s + 2 * layer.padding - layer.filter_size + 1 for s in below)
            shapes.append((layer.num_filters, height, width))
            below = pooling.pooled_shape(height, width)
        return shapes

    # ------------------------------------------------ fields

    def _bias(self, level: int) -> torch.Tensor:
        """The bias ``(..., K, 1, 1)``, with the context's offset, over the temperature."""
        bias, context = self.own_bias(level), self.context
        if context is not None:
            sizes = self.__dict__["_sizes"]
            bias = bias + self.offsets(context).split(sizes, -1)[level]
        return bias[..., None, None] / self.temperature

    def _convolved(self, level: int, below: torch.Tensor) -> torch.Tensor:
        """What acts on the detection units of a layer from the units below it."""
        return _batched(
            conv2d, below, self.own_weight(level) / self.temperature, self.layers[level - 1].padding
        )

    def _convolved_back(self, level: int, h: torch.Tensor) -> torch.Tensor:
        """What acts on the units below a layer from its detection units."""
        weight = self.own_weight(level) / self.temperature
        return _batched(conv_transpose2d, h, weight, self.layers[level - 1].padding)

    def _statistic(self, level: int, x: torch.Tensor) -> torch.Tensor:
        """What the layer above sees of a layer: of the image, or its pooling units."""
        if level:
            return self.pooling[level - 1].pool(x)
        return self.visible.statistic(x.movedim(-3, -1)).movedim(-1, -3)

    def field(self, level: int, below: torch.Tensor | None, above: torch.Tensor | None) -> Any:
        """What acts on the units of a layer, over the temperature.

        Args:
            level: the layer.
            below: units ``(..., *shapes[level - 1])``, if there are any.
            above: units ``(..., *shapes[level + 1])``, if there are any.

        Returns:
            ``(..., *shapes[level])``, or what broadcasts to it.
        """
        field = self._bias(level)
        if below is not None:
            field = field + self._convolved(level, self._statistic(level - 1, below))
        if above is not None:
            back = self._convolved_back(level + 1, above)
            field = field + (self.pooling[level - 1].spread(back) if level else back)
        return self._on_path(level, field)

    def _on_path(self, level: int, field: torch.Tensor) -> torch.Tensor:
        beta = self.__dict__["_beta"]
        if beta is None:
            return field
        beta = beta[..., None, None, None]
        moved: torch.Tensor = beta * field
        return moved if level else moved + (1 - beta) * self.base_bias

    def field_in(self, level: int, layers: Layers) -> torch.Tensor:
        """The field of a layer given its neighbours among all layers, in its full shape."""
        below = layers[level - 1] if level else None
        above = layers[level + 1] if level + 1 < self.num_layers else None
        field: torch.Tensor = self.field(level, below, above)
        return field.expand(*field.shape[:-3], *self.shapes[level])

    def draw(self, level: int, field: torch.Tensor) -> torch.Tensor:
        """Units of a layer given the field on them, ``(..., *shapes[level])``."""
        if level:
            return self.pooling[level - 1].sample(field)
        return self.visible.sample(field.movedim(-3, -1)).movedim(-1, -3)

    def log_normalizer(self, level: int, field: torch.Tensor) -> torch.Tensor:
        """The logarithm ``(...)`` of the sum over a layer's units given the field on them."""
        if level:
            return self.pooling[level - 1].log_normalizer(field)
        by_pixel = self.visible.log_normalizer(field.movedim(-3, -1))
        return by_pixel.sum((-1, -2))

    def log2_states(self, level: int) -> float:
        """The binary logarithm of the number of a layer's states; infinite for real images."""
        if level:
            return self.pooling[level - 1].log2_states(self.shapes[level])
        pixels = self.shapes[0][1] * self.shapes[0][2]
        return pixels * math.log2(self.visible.num_states())

    def all_states(self, level: int) -> torch.Tensor:
        """All states ``(S, *shapes[level])`` of a layer."""
        shape, like = self.shapes[level], self.base_bias
        if level:
            return self.pooling[level - 1].states(shape, like)
        images: torch.Tensor = BinaryUnits(math.prod(shape)).states(like).unflatten(-1, shape)
        return images

    def own_score(self, level: int, x: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
        """The log-weight ``(...)`` of a layer's units for themselves, in a field."""
        if level:
            return (x * field).sum((-1, -2, -3))
        score = (self._statistic(0, x) * field).sum((-1, -2, -3))
        return score - self.visible.self_energy(x.movedim(-3, -1)).sum((-1, -2))

    def log_weight(self, layers: Layers) -> torch.Tensor:
        """The log-weight ``(...)`` of some layers, with the others summed out.

        Args:
            layers: units ``(..., *shapes[level])`` by layer; ``None`` for those to sum out, no two
                of which are neighbours.
        """
        total: Any = 0.0
        for level, x in enumerate(layers):
            if x is None:
                total = total + self.log_normalizer(level, self.field_in(level, layers))
            else:  # the coupling to the layer below is counted here, and that to the one above not
                below = layers[level - 1] if level else None
                total = total + self.own_score(level, x, self.field(level, below, None))
        weight: torch.Tensor = total
        return weight

    def redrawn(self, layers: Layers, parity: int, known: torch.Tensor | None = None) -> Layers:
        """All layers with the even or the odd ones drawn anew, given the others.

        Args:
            layers: units by layer.
            parity: 0 for the even layers, 1 for the odd ones.
            known: a mask of the image; what is known stays.
        """
        new = list(layers)
        for level in range(parity, self.num_layers, 2):
            drawn = self.draw(level, self.field_in(level, layers))
            before = layers[level]
            if level == 0 and known is not None and before is not None:
                drawn = torch.where(known, before, drawn)
            new[level] = drawn
        return new


def _batched(operation: Any, x: torch.Tensor, weight: torch.Tensor, padding: int) -> torch.Tensor:
    """A convolution over the last three dimensions of as many as there are."""
    result: torch.Tensor = operation(x.reshape(-1, *x.shape[-3:]), weight, padding=padding)
    return result.reshape(x.shape[:-3] + result.shape[1:])
