# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Convolutional restricted Boltzmann machines with probabilistic max pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .convolutional_layers import ConvolutionalLayer, ConvolutionalLayers
from .negative_phase import NegativePhase
from .units import Units


class ConvolutionalRBM(ConvolutionalLayers):
    r"""A restricted Boltzmann machine over images, with filters that are used everywhere.

    .. math::
        E(v, h) &= e(v) - \sum_k \sum_{ij} h^k_{ij} (\tilde W^k * s(v))_{ij}
            - \sum_k b_k \sum_{ij} h^k_{ij} - c^T \sum_{ij} s(v)_{ij} \\
        E(v) &= e(v) - c^T \sum_{ij} s(v)_{ij}
            - \sum_k \sum_\alpha \log \Bigl(1 + \sum_{(ij) \in B_\alpha} \exp I^k_{ij}(v)\Bigr),
        \quad I^k(v) = b_k + \tilde W^k * s(v)

    where at most one detection unit :math:`h^k_{ij}` of a block :math:`B_\alpha` is on and
    :math:`\tilde W^k * s(v)` is the image seen through the filter :math:`W^k`, as PyTorch's
    ``conv2d`` has it. With binary pixels ``s(v) = v`` and ``e = 0``. Filters stay inside the image
    unless ``padding`` puts zeros around it, see :class:`ConvolutionalLayer`.

    The machine has more hidden units than pixels, so that few of them should be on: a term of the
    loss can hold the mean of :meth:`detection_mean` near a small number, as in the paper.

    Args:
        image_shape: ``(channels, height, width)``; :meth:`resized` gives other sizes.
        num_filters: maps ``K`` of detection units.
        filter_size: the side of a filter.
        pool_size: the side of a block; 1 for no pooling.
        padding: rows and columns of zeros around the image.
        visible: units for the channels of a pixel; :class:`BinaryUnits` by default.
        weight_scale: standard deviation of the first weights.
        context_dim: size of a context that shifts the biases of channels and maps; 0 for none.
        bias: a network from ``(..., context_dim)`` to offsets ``(..., channels + K)``; linear by
            default.
        negative_phase: see :class:`EnergyDistribution`.
        temperature: see :class:`EnergyDistribution`.
        sampling_steps: see :class:`EnergyDistribution`.
        validate_args: see :class:`EnergyDistribution`.

    Raises:
        ValueError: for sizes out of range, and where blocks do not tile the detection units.

    References:
        Convolutional deep belief networks for scalable unsupervised learning of hierarchical
        representations, Honglak Lee, Roger Grosse, Rajesh Ranganath and Andrew Y. Ng, 2009.

    Example:
        >>> import torch
        >>> machine = ConvolutionalRBM((1, 3, 3), num_filters=2, filter_size=2).eval()
        >>> images = machine.all_states(0)
        >>> total = machine.log_prob(images).logsumexp(0)
        >>> images.shape, bool(torch.isclose(total, torch.zeros(()), atol=1e-5))
        (torch.Size([512, 1, 3, 3]), True)
    """

    weight: torch.Tensor
    visible_bias: torch.Tensor
    hidden_bias: torch.Tensor

    def __init__(
        self,
        image_shape: Sequence[int],
        num_filters: int,
        filter_size: int,
        pool_size: int = 2,
        *,
        padding: int = 0,
        visible: Units | None = None,
        weight_scale: float = 0.01,
        context_dim: int = 0,
        bias: nn.Module | None = None,
        negative_phase: NegativePhase | None = None,
        temperature: float = 1.0,
        sampling_steps: int = 1000,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(
            image_shape,
            [ConvolutionalLayer(num_filters, filter_size, pool_size, padding)],
            visible=visible,
            context_dim=context_dim,
            bias=bias,
            negative_phase=negative_phase,
            temperature=temperature,
            sampling_steps=sampling_steps,
            validate_args=validate_args,
        )
        channels = self.event_shape[0]
        filters = torch.randn(num_filters, channels, filter_size, filter_size)
        self.weight = nn.Parameter(weight_scale * filters)
        self.visible_bias = nn.Parameter(torch.zeros(channels))
        self.hidden_bias = nn.Parameter(torch.zeros(num_filters))
        self.ready()

    def own_weight(self, level: int) -> torch.Tensor:
        """The filters ``(K, channels, F, F)``."""
        return self.weight

    def own_bias(self, level: int) -> torch.Tensor:
        """The biases of the channels, or of the maps."""
        return self.hidden_bias if level else self.visible_bias

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        """The free energy ``(...)`` of images ``(..., *event_shape)``, over the temperature."""
        return -self.log_weight([x, None])

    def joint_energy(self, v: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """``E(v, h) / T`` of images and detection units ``(..., *shapes[1])``."""
        return -self.log_weight([v, h])

    def detection_mean(self, v: torch.Tensor) -> torch.Tensor:
        """Probabilities ``(..., *shapes[1])`` of the detection units given images."""
        return self.pooling[0].mean(self.field_in(1, [v, None]))

    def sample_hidden(self, v: torch.Tensor) -> torch.Tensor:
        """A draw ``(..., *shapes[1])`` of the detection units given images."""
        return self.draw(1, self.field_in(1, [v, None]))

    def sample_visible(self, h: torch.Tensor) -> torch.Tensor:
        """A draw ``(..., *event_shape)`` of the image given detection units."""
        return self.draw(0, self.field_in(0, [None, h]))

    @torch.no_grad()
    def sample_joint(
        self, sample_shape: Sequence[int] = torch.Size()
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws of the image and the detection units, ``(*sample_shape, *batch_shape, ...)``."""
        v = self.sample(sample_shape)
        return v, self.sample_hidden(v)

    def pool(self, h: torch.Tensor) -> torch.Tensor:
        """The pooling units, or their means, of detection units' ``(..., *shapes[1])``."""
        return self.pooling[0].pool(h)
