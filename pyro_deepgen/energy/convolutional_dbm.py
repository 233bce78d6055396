# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Convolutional deep Boltzmann machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from .convolutional_layers import ConvolutionalLayer, ConvolutionalLayers
from .convolutional_stage import convolutional_stage
from .inferred_layers import InferredLayers
from .mean_field import MeanField
from .negative_phase import ContrastiveDivergence, NegativePhase
from .pretraining import Stage, TiedStage, pretrained_layers
from .units import Units


class ConvolutionalDBM(ConvolutionalLayers, InferredLayers):
    r"""A Boltzmann machine over images, of several layers with pooling between them.

    .. math::
        E(v, h_1, \dots, h_L) = e(v) - c^T \sum_{ij} s(v)_{ij}
            - \sum_{l=1}^L \sum_k \sum_{ij} h^k_{l,ij}
            \bigl(b_{l,k} + (\tilde W_l^k * p_{l-1})_{ij}\bigr)

    with :math:`p_0 = s(v)` and :math:`p_l` the pooling units of layer ``l``, each the sum of a
    block of detection units :math:`h_l` of which at most one is on. A pooling unit passes what
    comes from above to all units of its block. With one layer it is a :class:`ConvolutionalRBM`.

    The hidden units do not sum out in closed form. In training mode they are inferred by mean
    field, :math:`q` with independent blocks of detection units, and the gradient is that of

    .. math:: \log p(v) \ge -E_q[E(v, h)] + H(q) - \log Z.

    In evaluation mode ``log_prob`` is exact where both sums can be enumerated (2^20 states for
    ``log Z``, 2^12 hidden states for an image), else **this bound**; ``log_prob_is_bound`` tells
    which. Chains move the even layers, the image among them; the odd ones are drawn in each step,
    and summed out in the gradient of ``log Z`` and in the weights of annealing.

    Training goes well after pretraining layer by layer, :meth:`stages`.

    Args:
        image_shape: ``(channels, height, width)``; :meth:`resized` gives other sizes.
        layers: sizes of the hidden layers, from the image upwards.
        visible: units for the channels of a pixel; :class:`BinaryUnits` by default.
        mean_field: how the hidden units are inferred; ``MeanField()`` by default.
        clamped_steps: see :class:`DeepBoltzmannMachine`.
        weight_scale: standard deviation of the first weights.
        context_dim: size of a context that shifts the biases of channels and maps; 0 for none.
        bias: a network from ``(..., context_dim)`` to offsets ``(..., channels + K_1 + ... +
            K_L)``; linear by default.
        negative_phase: see :class:`EnergyDistribution`.
        temperature: see :class:`EnergyDistribution`.
        sampling_steps: see :class:`EnergyDistribution`.
        validate_args: see :class:`EnergyDistribution`.

    Raises:
        ValueError: for sizes out of range, and where blocks do not tile the detection units.

    References:
        Convolutional deep belief networks for scalable unsupervised learning of hierarchical
        representations, Honglak Lee, Roger Grosse, Rajesh Ranganath and Andrew Y. Ng, 2009.
        Deep Boltzmann Machines, Ruslan Salakhutdinov and Geoffrey Hinton, 2009.

    Example:
        >>> import torch
        >>> layers = [ConvolutionalLayer(2, filter_size=2), ConvolutionalLayer(1, 1, pool_size=1)]
        >>> machine = ConvolutionalDBM((1, 3, 3), layers, weight_scale=1.0).eval()
        >>> images = machine.all_states(0)
        >>> total = machine.log_prob(images).logsumexp(0)
        >>> bool(torch.isclose(total, torch.zeros(()), atol=1e-5)), machine.log_prob_is_bound
        (True, False)
        >>> bool((machine.bound(images) <= machine.log_prob(images) + 1e-5).all())
        True
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        layers: Sequence[ConvolutionalLayer],
        *,
        visible: Units | None = None,
        mean_field: MeanField | None = None,
        clamped_steps: int = 0,
        weight_scale: float = 0.01,
        context_dim: int = 0,
        bias: nn.Module | None = None,
        negative_phase: NegativePhase | None = None,
        temperature: float = 1.0,
        sampling_steps: int = 1000,
        validate_args: bool | None = None,
    ) -> None:
        if clamped_steps < 0:
            raise ValueError(f"expected 0 clamped steps or more, got {clamped_steps}")
        super().__init__(
            image_shape,
            layers,
            visible=visible,
            context_dim=context_dim,
            bias=bias,
            negative_phase=negative_phase,
            temperature=temperature,
            sampling_steps=sampling_steps,
            validate_args=validate_args,
        )
        self.mean_field = MeanField() if mean_field is None else mean_field
        self.clamped_steps = clamped_steps
        maps = [shape[0] for shape in self.shapes]
        for level, size in enumerate(maps):
            self.register_parameter(f"bias{level}", nn.Parameter(torch.zeros(size)))
            if level:
                side = self.layers[level - 1].filter_size
                first = weight_scale * torch.randn(size, maps[level - 1], side, side)
                self.register_parameter(f"weight{level}", nn.Parameter(first))
        self.ready()

    def own_weight(self, level: int) -> torch.Tensor:
        """The filters ``(K_l, K_{l-1}, F, F)`` of a layer."""
        weight: torch.Tensor = getattr(self, f"weight{level}")
        return weight

    def own_bias(self, level: int) -> torch.Tensor:
        """The biases ``(K_l,)`` of a layer's maps; of an image's channels for layer 0."""
        bias: torch.Tensor = getattr(self, f"bias{level}")
        return bias

    def entropy_of(self, level: int, mean: torch.Tensor) -> torch.Tensor:
        """The entropy ``(...)`` of independent blocks of detection units by their means."""
        return self.pooling[level - 1].entropy(mean)

    def drawn_from(self, level: int, mean: torch.Tensor) -> torch.Tensor:
        """Blocks of detection units drawn independently by their means."""
        return self.pooling[level - 1].sample_from(mean)

    def stages(
        self, negative_phase: Callable[[], NegativePhase] = ContrastiveDivergence
    ) -> Iterator[Stage]:
        """Pretraining layer by layer; see :func:`~pyro_deepgen.energy.pretrained_layers`."""
        return pretrained_layers(self, negative_phase)

    def stage(self, level: int, up: int, down: int, negative_phase: NegativePhase) -> TiedStage:
        """A machine of a layer and the one below it, as one stage of :meth:`stages` trains it."""
        return convolutional_stage(self, level, up, down, negative_phase)
