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
from typing_extensions import Self

from .context import offsets
from .copied_units import Copies
from .layered_machine import LayeredMachine
from .negative_phase import ContrastiveDivergence, NegativePhase, PersistentChains
from .pooling import ProbabilisticMaxPooling
from .units import BinaryUnits, GaussianUnits, Units


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


class ConvolutionalLayers(LayeredMachine):
    """An image, and layers of detection and pooling units above it that share their weights.

    The image is layer 0; the detection units of layer ``l`` see the pooling units of layer
    ``l - 1``. Given its neighbours, a layer is independent units or blocks of them. Chains hold the
    even layers, the image among them.

    A subclass makes its parameters after this initialiser, and calls :meth:`ready`.
    """

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
        kind = visible.units if isinstance(visible, Copies) else visible
        if not isinstance(kind, BinaryUnits | GaussianUnits) or visible.num_units != shape[0]:
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
        binary = self.visible.support.is_discrete
        return constraints.independent(constraints.boolean if binary else constraints.real, 3)

    # ------------------------------------------------ shapes

    @property
    def moving(self) -> range:
        """The even layers."""
        return range(0, self.num_layers, 2)

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

    def bias(self, level: int, context: torch.Tensor | None) -> torch.Tensor:
        """The bias ``(..., K, 1, 1)`` of a layer, with what a context adds."""
        bias = self.own_bias(level)
        if context is not None:
            bias = bias + self.offsets(context).split(self.__dict__["_sizes"], -1)[level]
        return bias[..., None, None]

    def from_below(self, level: int, below: torch.Tensor) -> torch.Tensor:
        """The layer below, its pooling units or the image, through the filters."""
        seen = self._statistic(level - 1, below)
        return _batched(conv2d, seen, self.own_weight(level), self.layers[level - 1].padding)

    def from_above(self, level: int, above: torch.Tensor) -> torch.Tensor:
        """Detection units of the layer above back through its filters, to all units of a block."""
        padding = self.layers[level].padding
        back = _batched(conv_transpose2d, above, self.own_weight(level + 1), padding)
        return self.pooling[level - 1].spread(back) if level else back

    def _statistic(self, level: int, x: torch.Tensor) -> torch.Tensor:
        """What the layer above sees of a layer: of the image, or its pooling units."""
        if level:
            return self.pooling[level - 1].pool(x)
        return self.visible.statistic(x.movedim(-3, -1)).movedim(-1, -3)

    # ------------------------------------------------ units

    def mean_of(self, level: int, field: torch.Tensor) -> torch.Tensor:
        """Means of a layer given the field on it, ``(..., *shapes[level])``."""
        if level:
            return self.pooling[level - 1].mean(field)
        return self.visible.mean(field.movedim(-3, -1)).movedim(-1, -3)

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

    def own_score(self, level: int, x: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
        """The log-weight ``(...)`` of a layer's units for themselves, in a field."""
        if level:
            return (x * field).sum((-1, -2, -3))
        score = (self._statistic(0, x) * field).sum((-1, -2, -3))
        return score - self.visible.self_energy(x.movedim(-3, -1)).sum((-1, -2))

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

    # ------------------------------------------------ sizes, and where annealing begins

    def resized(self, height: int, width: int, negative_phase: NegativePhase | None = None) -> Self:
        """The machine over images of another size, with the same weights and biases.

        Its normalising constant is another one, so that the view begins without an estimate, and
        with a base of annealing and a negative phase of its own.

        Args:
            height: of the images.
            width: of the images.
            negative_phase: see :class:`EnergyDistribution`.

        Raises:
            ValueError: if blocks of detection units do not tile what this size leaves of them.
        """
        view = self.expand(self.batch_shape)
        shape = torch.Size([self.event_shape[0], height, width])
        view.__dict__["_event_shape"] = shape
        view.__dict__["_shapes"] = self._shapes_of(shape)
        fresh = {
            "log_partition_values": torch.full_like(self.log_partition_values, torch.nan),
            "log_partition_for": torch.zeros_like(self.log_partition_for),
            "base_bias": self.base_bias.new_zeros(shape),
        }
        view.__dict__["_buffers"] = {**self._buffers, **fresh}
        if negative_phase is None:
            negative_phase = ContrastiveDivergence() if self.context_dim else PersistentChains()
        view.__dict__["_modules"] = {**self._modules, "negative_phase": negative_phase}
        view.ready()
        return view

    def set_base(self, data: torch.Tensor) -> None:
        """Start annealing from the mean of some images ``(N, *event_shape)``: a shorter way."""
        mean = data.reshape(-1, *self.event_shape).mean(0).movedim(0, -1)
        self.base_bias.copy_(self.visible.field_of(mean).movedim(-1, 0))


def _batched(operation: Any, x: torch.Tensor, weight: torch.Tensor, padding: int) -> torch.Tensor:
    """A convolution over the last three dimensions of as many as there are."""
    result: torch.Tensor = operation(x.reshape(-1, *x.shape[-3:]), weight, padding=padding)
    return result.reshape(x.shape[:-3] + result.shape[1:])
