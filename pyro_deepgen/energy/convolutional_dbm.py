# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Convolutional deep Boltzmann machines."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .convolutional_enumeration import LayerStates
from .convolutional_layers import ConvolutionalLayer, Layers
from .convolutional_machine import ConvolutionalMachine
from .negative_phase import NegativePhase
from .units import Units

# Hidden states that are summed over for each datum at most.
MAX_HIDDEN_STATES = 1 << 12


class ConvolutionalDBM(ConvolutionalMachine):
    r"""A Boltzmann machine over images, of several layers with pooling between them.

    .. math::
        E(v, h_1, \dots, h_L) = e(v) - c^T \sum_{ij} s(v)_{ij}
            - \sum_{l=1}^L \sum_k \sum_{ij} h^k_{l,ij}
            \bigl(b_{l,k} + (\tilde W_l^k * p_{l-1})_{ij}\bigr)

    with :math:`p_0 = s(v)` and :math:`p_l` the pooling units of layer ``l``, each the sum of a
    block of detection units :math:`h_l` of which at most one is on. A pooling unit passes what
    comes from above to all units of its block. With one layer it is a :class:`ConvolutionalRBM`.

    The hidden units do not sum out in closed form. In training mode they are inferred by mean
    field: :math:`q` holds each block of detection units for independent of the others, and the
    gradient is that of

    .. math:: \log p(v) \ge -E_q[E(v, h)] + H(q) - \log Z.

    In evaluation mode ``log_prob`` is exact where both sums can be enumerated (2^20 states for
    ``log Z``, 2^12 hidden states for an image), else **this bound**; ``log_prob_is_bound`` tells
    which. Chains move the even layers, the image among them; the odd ones are drawn in each step,
    and summed out in the gradient of ``log Z`` and in the weights of annealing.

    Args:
        image_shape: ``(channels, height, width)``; :meth:`resized` gives other sizes.
        layers: sizes of the hidden layers, from the image upwards.
        visible: units for the channels of a pixel; :class:`BinaryUnits` by default.
        mean_field_steps: how often the mean field moves each hidden layer.
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
        mean_field_steps: int = 10,
        weight_scale: float = 0.01,
        context_dim: int = 0,
        bias: nn.Module | None = None,
        negative_phase: NegativePhase | None = None,
        temperature: float = 1.0,
        sampling_steps: int = 1000,
        validate_args: bool | None = None,
    ) -> None:
        if mean_field_steps < 1:
            raise ValueError(f"expected 1 mean-field step or more, got {mean_field_steps}")
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
        self.mean_field_steps = mean_field_steps
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

    # ------------------------------------------------ the hidden units

    def infer(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Means of all detection units by mean field, given images ``(..., *event_shape)``.

        They start from one pass upwards that doubles the fields of layers with others above. Then
        all even layers move at once, and all odd ones: no half step lowers the bound.

        Returns:
            ``[(..., *shapes[1]), ..., (..., *shapes[L])]``.
        """
        means: Layers = [x, *[None] * (self.num_layers - 1)]
        for level in range(1, self.num_layers):
            field = self.field_in(level, means)
            if level < self.num_layers - 1:
                field = 2 * field - self.field_in(level, [None] * self.num_layers)
            means[level] = self.pooling[level - 1].mean(field)
        for _ in range(self.mean_field_steps if self.num_layers > 2 else 0):
            for first in (2, 1):
                for level in range(first, self.num_layers, 2):
                    means[level] = self.pooling[level - 1].mean(self.field_in(level, means))
        return [mean for mean in means[1:] if mean is not None]

    @torch.no_grad()
    def complete(self, value: torch.Tensor) -> torch.Tensor:
        """Even layers, with hidden units drawn given images ``(..., *event_shape)``.

        The draws are exact where ``log_prob_is_bound`` is false, else from the mean field.
        """
        if self.num_layers == 2:
            return value
        if self.log_prob_is_bound:
            return self._drawn_from(value, self.infer(value))
        layers = LayerStates(self, value).draw(1)
        return self.all_units.join([None if x is None else x[0] for x in layers])

    def _drawn_from(self, image: torch.Tensor, means: Sequence[torch.Tensor]) -> torch.Tensor:
        """Even layers: the image, and draws from the mean field of the hidden ones."""
        layers: Layers = [image]
        for pooling, mean in zip(self.pooling, means, strict=True):
            layers.append(pooling.sample_from(mean))
        return self.all_units.join(layers)

    @torch.no_grad()
    def sample_layers(self, sample_shape: Sequence[int] = torch.Size()) -> list[torch.Tensor]:
        """Draws of the image and of all detection units, ``(*sample_shape, *batch_shape, ...)``."""
        layers = self.redrawn(self.all_units.split(self.sample_all(sample_shape)), 1)
        return [x for x in layers if x is not None]

    # ------------------------------------------------ energies

    def energy(self, x: torch.Tensor, *hidden: torch.Tensor) -> torch.Tensor:
        r"""The energy :math:`E(v, h_1, \dots, h_L) / T`; or the free energy of images alone.

        Args:
            x: images ``(..., *event_shape)``.
            hidden: detection units ``(..., *shapes[l])`` of all hidden layers, or none. Without
                them they are summed out if every other layer has no more than 2^12 states, and else
                the value is the upper bound of the free energy by mean field.

        Raises:
            ValueError: for some but not all of the hidden layers.
        """
        if hidden:
            if len(hidden) != self.num_layers - 1:
                raise ValueError(
                    f"expected {self.num_layers - 1} hidden layers or none, got {len(hidden)}"
                )
            return -self.log_weight([x, *hidden])
        if self.log_prob_is_bound:
            return self.variational_energy(x)
        return -LayerStates(self, x).log_sum()

    def variational_energy(
        self, x: torch.Tensor, means: Sequence[torch.Tensor] | None = None
    ) -> torch.Tensor:
        r"""The mean-field bound :math:`E_q[E(v, h)] / T - H(q)`, at or above the free energy.

        At a fixed point its gradient is that of the bound although the means are held fixed.

        Args:
            x: images ``(..., *event_shape)``.
            means: of the detection units of the hidden layers; inferred, without gradients, by
                default.
        """
        if means is None:
            with torch.no_grad():
                means = self.infer(x)
        pairs = zip(self.pooling, means, strict=True)
        entropy = torch.stack([pooling.entropy(mean) for pooling, mean in pairs]).sum(0)
        return -self.log_weight([x, *means]) - entropy

    # ------------------------------------------------ the distribution

    @property
    def log_prob_is_bound(self) -> bool:
        """Whether ``log_prob`` in evaluation mode is the mean-field bound."""
        return LayerStates(self, self.base_bias).count > MAX_HIDDEN_STATES

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """The log-density or the bound ``(..., *batch_shape)``; see the class for which.

        Args:
            value: ``(..., *batch_shape, *event_shape)``.

        Raises:
            UnknownPartitionError: in evaluation mode, or where a parameter is a result of other
                computations, if the normalising constant is not known.
        """
        if self.__dict__["_replaced"] or not self.training:
            return super().log_prob(value)
        if self._validate_args:
            self._validate_sample(value)
        value = self.broadcast(value)
        with torch.no_grad():
            means = self.infer(value)
            state = self._drawn_from(value, means)
        last = self.log_partition_values[0].nan_to_num(0.0)
        score = -self.variational_energy(value, means) - last
        if not (torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())):
            return score
        machine = self.all_units
        negative = machine.energy(self.negative_phase(machine, state))
        if not self.negative_phase.for_each_datum:
            negative = negative.mean()
        return score + (negative - negative.detach())

    def bound(self, x: torch.Tensor) -> torch.Tensor:
        """The mean-field bound of the log-density ``(...)``, also where that is known.

        Args:
            x: images ``(..., *event_shape)``.

        Raises:
            UnknownPartitionError: if the normalising constant is not known.
        """
        return -self.variational_energy(x) - self.log_partition()
