# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Machines of several layers whose hidden units are inferred by mean field, or drawn."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from typing_extensions import Self

from .layer_states import LayerStates
from .layered_machine import LayeredMachine, Layers
from .mean_field import MeanField

# Hidden states that are summed over for each datum at most.
MAX_HIDDEN_STATES = 1 << 12


class InferredLayers(LayeredMachine):
    r"""A machine whose hidden units do not sum out in closed form.

    In training mode they are inferred by mean field, and ``log_prob`` is the bound

    .. math:: \log p(v) \ge -E_q[E(v, h)] + H(q) - \log Z

    or, with ``clamped_steps``, they are drawn given the data, and the gradient is that of the
    likelihood. In evaluation mode ``log_prob`` is exact where both sums can be enumerated, and else
    this bound. Without gradients it has the value of evaluation mode in training too, but for
    ``log Z``, of which it takes the last estimate.

    A subclass sets ``mean_field`` and ``clamped_steps``.
    """

    mean_field: MeanField
    clamped_steps: int

    @abstractmethod
    def entropy_of(self, level: int, mean: torch.Tensor) -> torch.Tensor:
        """The entropy ``(...)`` of a hidden layer of independent units, or blocks, by means."""

    @abstractmethod
    def drawn_from(self, level: int, mean: torch.Tensor) -> torch.Tensor:
        """Units of a hidden layer drawn independently, ``(..., *shapes[level])``, by means."""

    # ------------------------------------------------ energies

    def energy(self, x: torch.Tensor, *hidden: torch.Tensor) -> torch.Tensor:
        r"""The energy :math:`E(v, h_1, \dots, h_L) / T`; or the free energy of visible units alone.

        Args:
            x: visible units ``(..., *event_shape)``.
            hidden: all hidden layers ``(..., *shapes[l])``, or none. Without them they are summed
                out if every other layer has no more than 2^12 states, and else the value is the
                upper bound of the free energy by mean field.

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
            x: visible units ``(..., *event_shape)``.
            means: of the hidden layers; inferred, without gradients, by default.
        """
        if means is None:
            with torch.no_grad():
                means = self.infer(x)
        energy = -self.log_weight([x, *means])
        for level, mean in enumerate(means, start=1):
            energy = energy - self.entropy_of(level, mean)
        return energy

    def infer(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The mean-field means ``[(..., *shapes[1]), ...]`` of all hidden layers: features.

        Args:
            x: visible units ``(..., *event_shape)``.
        """
        means: list[torch.Tensor] = self.mean_field(self, x)
        return means

    # ------------------------------------------------ hidden units given visible ones

    @torch.no_grad()
    def complete(self, value: torch.Tensor) -> torch.Tensor:
        """What chains hold, with hidden units drawn given visible ones ``(..., *event_shape)``.

        The draws are exact where ``log_prob_is_bound`` is false, else from the mean field, moved by
        ``clamped_steps`` steps.
        """
        units = self.all_units
        if units.alone:
            return value
        if not self.log_prob_is_bound:
            layers = LayerStates(self, value).draw(1)
            return units.join([None if x is None else x[0] for x in layers])
        state = self._drawn_about(value, self.infer(value))
        if not self.clamped_steps:
            return state
        clamped = self.known_part(torch.ones_like(value, dtype=torch.bool))
        return units.transition(state, self.clamped_steps, clamped)

    def _drawn_about(self, value: torch.Tensor, means: Sequence[torch.Tensor]) -> torch.Tensor:
        """What chains hold, with hidden units drawn from the mean field."""
        layers: Layers = [value]
        layers += [self.drawn_from(level, mean) for level, mean in enumerate(means, start=1)]
        return self.all_units.join(layers)

    # ------------------------------------------------ the distribution

    @property
    def log_prob_is_bound(self) -> bool:
        """Whether ``log_prob`` in evaluation mode is the mean-field bound."""
        return LayerStates(self, self.base_bias).count > MAX_HIDDEN_STATES

    def phases(self, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Energies of data, or their bounds by mean field, and of the negative phase's draws."""
        if self.clamped_steps:
            state = self.complete(value)
            self.observe(state)
            learning = self.learning
            positive = learning.all_units.energy(state)
        else:
            with torch.no_grad():
                means = self.infer(value)
                state = self._drawn_about(value, means)
                self.observe(self.all_units.join([value, *means]))
            learning = self.learning
            positive = learning.variational_energy(value, means)
        return positive, learning.negative_energy(self.negative_phase(self.all_units, state))

    @property
    def learning(self) -> Self:
        """The machine whose energies' gradients are those of learning; itself by default."""
        return self

    def negative_energy(self, draws: torch.Tensor) -> torch.Tensor:
        """Energies ``(...)`` of what chains hold, with further layers summed out where it helps."""
        return self.all_units.energy(draws)

    def bound(self, x: torch.Tensor) -> torch.Tensor:
        """The mean-field bound of the log-density ``(...)``, also where that is known.

        Args:
            x: visible units ``(..., *event_shape)``.

        Raises:
            UnknownPartitionError: if the normalising constant is not known.
        """
        return -self.variational_energy(x) - self.log_partition()
