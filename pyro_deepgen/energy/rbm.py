# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Restricted Boltzmann machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import nn
from typing_extensions import Self

from .centring import CentredLayers, as_offset_rate
from .context import offsets
from .energy_distribution import EnergyDistribution
from .log_partition import UnknownPartitionError, log_sum_of
from .negative_phase import NegativePhase
from .units import BinaryUnits, FreeUnits, GaussianUnits, Units


class RBM(EnergyDistribution):
    r"""A restricted Boltzmann machine, with its hidden units summed out.

    .. math::
        E(v, h) &= e(v) + e(h) - b^T s(v) - c^T s(h) - s(v)^T W s(h) \\
        E(v) &= e(v) - b^T s(v) - \sum_j A(c_j + (s(v)^T W)_j)

    With binary units ``s(v) = v``, ``e = 0`` and ``A = softplus``. Units take values in {0, 1}.

    Args:
        visible: number of binary visible units ``V``, or :class:`Units`.
        hidden: number of binary hidden units ``H``, or :class:`Units`.
        weight_scale: standard deviation of the first weights.
        context_dim: size of a context that shifts both biases; 0 for none.
        bias: a network from ``(..., context_dim)`` to offsets ``(..., V + H)``; linear by default.
        centred: whether the gradient in training is that of centred units (the enhanced gradient),
            which does not depend on which value is called 1. The density is the same.
        offset_rate: how fast the offsets follow the means of the data in training.
        negative_phase: see :class:`EnergyDistribution`.
        temperature: see :class:`EnergyDistribution`.
        sampling_steps: see :class:`EnergyDistribution`.
        validate_args: see :class:`EnergyDistribution`.

    Raises:
        ValueError: for sizes out of range, and for two layers of Gaussian units, whose energy has
            no lower bound in general.

    References:
        Information processing in dynamical systems: Foundations of harmony theory, Paul Smolensky,
        1986. Training Products of Experts by Minimizing Contrastive Divergence, Geoffrey Hinton,
        2002.

    Example:
        >>> import torch
        >>> rbm = RBM(4, 3).eval()
        >>> states = BinaryUnits(4).states(torch.zeros(()))
        >>> bool(torch.isclose(rbm.log_prob(states).logsumexp(0), torch.zeros(()), atol=1e-5))
        True
    """

    weight: torch.Tensor
    visible_bias: torch.Tensor
    hidden_bias: torch.Tensor
    base_bias: torch.Tensor
    visible_offset: torch.Tensor
    hidden_offset: torch.Tensor

    def __init__(
        self,
        visible: int | Units,
        hidden: int | Units,
        *,
        weight_scale: float = 0.01,
        context_dim: int = 0,
        bias: nn.Module | None = None,
        centred: bool = False,
        offset_rate: float = 0.01,
        negative_phase: NegativePhase | None = None,
        temperature: float = 1.0,
        sampling_steps: int = 1000,
        validate_args: bool | None = None,
    ) -> None:
        visible = BinaryUnits(visible) if isinstance(visible, int) else visible
        hidden = BinaryUnits(hidden) if isinstance(hidden, int) else hidden
        if isinstance(visible, GaussianUnits) and isinstance(hidden, GaussianUnits):
            raise ValueError(
                "the energy of two layers of GaussianUnits has no lower bound for large weights: "
                "expected other units in one of them"
            )
        super().__init__(
            (visible.num_units,),
            negative_phase=negative_phase,
            temperature=temperature,
            sampling_steps=sampling_steps,
            context_dim=context_dim,
            validate_args=validate_args,
        )
        self.visible, self.hidden = visible.at(temperature), hidden.at(temperature)
        shape = visible.num_units, hidden.num_units
        self.weight = nn.Parameter(weight_scale * torch.randn(shape))
        self.visible_bias = nn.Parameter(torch.zeros(shape[0]))
        self.hidden_bias = nn.Parameter(torch.zeros(shape[1]))
        self.register_buffer("base_bias", torch.zeros(shape[0]))
        self.centred, self.offset_rate = centred, as_offset_rate(offset_rate)
        if centred:
            means = [u.mean(torch.zeros(u.num_units)) for u in (self.visible, self.hidden)]
            self.register_buffer("visible_offset", visible.statistic(means[0]).detach().clone())
            self.register_buffer("hidden_offset", hidden.statistic(means[1]).detach().clone())
        if context_dim:
            self.bias = offsets(context_dim, shape) if bias is None else bias
        elif bias is not None:
            raise ValueError("expected context_dim with a network of the context, got 0")
        self.__dict__["_beta"] = None
        self.ready()

    @property
    def support(self) -> Any:
        """The support of the visible units."""
        return self.visible.support

    # ------------------------------------------------ fields

    def _weights(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Weights and biases, over the temperature, with the context's offsets."""
        w, b, c = self.weight, self.visible_bias, self.hidden_bias
        if self.centred and self.training and torch.is_grad_enabled():
            centred: Any = CentredLayers.apply
            w, b, c = centred(w, b, c, self.visible_offset, self.hidden_offset)
        context = self.context
        if context is not None:
            moved = self.bias(context)
            b, c = b + moved[..., : len(b)], c + moved[..., len(b) :]
        if self.temperature == 1:
            return w, b, c
        return w / self.temperature, b / self.temperature, c / self.temperature

    def _on_path(self, field: torch.Tensor) -> torch.Tensor:
        beta: torch.Tensor | None = self.__dict__["_beta"]
        return field if beta is None else beta[..., None].to(field.dtype) * field

    def hidden_field(self, v: torch.Tensor) -> torch.Tensor:
        """What acts on the hidden units, from ``(..., V)`` to ``(..., H)``."""
        w, _, c = self._weights()
        return self._on_path(self.visible.statistic(v) @ w + c)

    def visible_field(self, h: torch.Tensor) -> torch.Tensor:
        """What acts on the visible units, from ``(..., H)`` to ``(..., V)``."""
        w, b, _ = self._weights()
        return self._from_base(self.hidden.statistic(h) @ w.mT + b)

    def _from_base(self, field: torch.Tensor) -> torch.Tensor:
        beta: torch.Tensor | None = self.__dict__["_beta"]
        if beta is None:
            return field
        beta = beta[..., None].to(field.dtype)
        return beta * field + (1 - beta) * self.base_bias

    # ------------------------------------------------ the energy

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        """The free energy ``(...)`` of visible units ``(..., V)``, over the temperature."""
        w, b, c = self._weights()
        s = self.visible.statistic(x)
        b = self._from_base(b)
        # The base has a dimension for temperatures, a context one for each datum.
        linear = s @ b if b.dim() == 1 and b.dtype == s.dtype else (s * b).sum(-1)
        own = self.visible.self_energy(x) - linear
        return own - self.hidden.log_normalizer(self._on_path(s @ w + c))

    def joint_energy(self, v: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """``E(v, h) / T``, of ``(..., V)`` and ``(..., H)``."""
        w, b, c = self._weights()
        s_v, s_h = self.visible.statistic(v), self.hidden.statistic(h)
        own = self.visible.self_energy(v)
        own = own + self.hidden.self_energy(h)
        field = self._from_base(s_h @ w.mT + b)
        return own - (s_v * field).sum(-1) - (s_h * self._on_path(c)).sum(-1)

    def sample_hidden(self, v: torch.Tensor) -> torch.Tensor:
        """A draw of the hidden units given the visible ones."""
        return self.hidden.sample(self.hidden_field(v))

    def sample_visible(self, h: torch.Tensor) -> torch.Tensor:
        """A draw of the visible units given the hidden ones."""
        return self.visible.sample(self.visible_field(h))

    @torch.no_grad()
    def sample_joint(
        self, sample_shape: Sequence[int] = torch.Size()
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws of the visible and of the hidden units, ``(*sample_shape, *batch_shape, ...)``."""
        v = self.sample(sample_shape)
        return v, self.sample_hidden(v)

    def transition(
        self, x: torch.Tensor, num_steps: int = 1, known: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Draw all hidden units, then all visible ones that are not known, so many times."""
        for _ in range(num_steps):
            drawn = self.sample_visible(self.sample_hidden(x))
            x = drawn if known is None else torch.where(known, x, drawn)
        return x

    def start(self, num_chains: int) -> torch.Tensor:
        """Visible units as their biases alone would have them."""
        free = FreeUnits(self.visible, self.visible_bias.detach() / self.temperature)
        return free.sample((num_chains,)).detach()

    @torch.no_grad()
    def observe(self, state: torch.Tensor) -> None:
        """Let the offsets follow the means of the data, where units are centred."""
        if self.centred:
            few = state
            if not self.context_dim:  # some will do, as the averages are over many batches
                few = state.reshape(-1, state.shape[-1])
                few = few[:: max(1, len(few) // 32)]
            hidden = self.hidden.mean(self.hidden_field(few))
            means = self.visible.statistic(state), self.hidden.statistic(hidden)
            for offset, mean in zip((self.visible_offset, self.hidden_offset), means, strict=True):
                offset.lerp_(mean.reshape(-1, len(offset)).mean(0), self.offset_rate)

    # ------------------------------------------------ the normalising constant

    def set_base(self, data: torch.Tensor) -> None:
        """Start annealing from the mean of some data, ``(N, V)``, which shortens the way.

        Raises:
            ValueError: for units without a field in closed form.
        """
        mean = data.reshape(-1, self.visible.num_units).mean(0)
        self.base_bias.copy_(self.visible.field_of(mean))

    def bridge(self, beta: torch.Tensor) -> Self:
        """The machine with its couplings times ``beta``, and biases between the base's and its."""
        view = self.expand(self.batch_shape)
        view.__dict__["_beta"] = beta
        return view

    def path_start(self) -> Any:
        """Independent visible units with the base's biases."""
        return FreeUnits(self.visible, self.base_bias)

    def num_states(self) -> float:
        """The states of the smaller layer."""
        return min(self.visible.num_states(), self.hidden.num_states())

    def exact_log_partition(self) -> torch.Tensor:
        """``log Z`` by enumeration of the smaller layer."""
        if not self.is_small:
            raise UnknownPartitionError(self._too_large())
        states, of = self._smaller_layer()
        width = sum(self.weight.shape) * self.lead.numel()
        return log_sum_of(lambda part: -of(self._led(part)), states, width)

    def exact_sample(self, num_draws: int) -> torch.Tensor:
        """Draws by enumeration of the smaller layer."""
        if not self.is_small:
            raise UnknownPartitionError(self._too_large())
        states, of = self._smaller_layer()
        scores = -of(self._led(states)).expand(-1, *self.lead)
        drawn = states[dist.Categorical(logits=scores.movedim(0, -1)).sample((num_draws,))]
        return drawn if of == self.energy else self.sample_visible(drawn)

    def _smaller_layer(self) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
        """The states of the smaller layer ``(S, N)``, and their free energy."""
        if self.visible.num_states() <= self.hidden.num_states():
            return self.visible.states(self.weight), self.energy
        return self.hidden.states(self.weight), self._energy_of_hidden

    def _led(self, states: torch.Tensor) -> torch.Tensor:
        return states.reshape(-1, *[1] * len(self.lead), states.shape[-1])

    def _energy_of_hidden(self, h: torch.Tensor) -> torch.Tensor:
        _, _, c = self._weights()
        s = self.hidden.statistic(h)
        own = self.hidden.self_energy(h) - (s * self._on_path(c)).sum(-1)
        return own - self.visible.log_normalizer(self.visible_field(h))
