# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a kind of machine writes: its energy, its Markov chain, and its path from a base."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch

from pyro_deepgen.distributions import DistributionModule

from .log_partition import MAX_STATES, UnknownPartitionError


class Machine(DistributionModule):
    """An energy with a Markov chain; :class:`EnergyDistribution` makes a distribution of it.

    Where hidden units are not summed out of the energy, chains move all units: ``all_units`` is the
    machine over these.
    """

    context_dim: int

    # ------------------------------------------------ what a subclass writes

    @abstractmethod
    def energy(self, x: torch.Tensor) -> torch.Tensor:
        """``E(x) / T``, from ``(..., *event_shape)`` to ``(...)``."""

    @abstractmethod
    def transition(
        self, x: torch.Tensor, num_steps: int = 1, known: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Move chains ``(..., *event_shape)`` by steps that leave the distribution invariant.

        Args:
            x: the chains.
            num_steps: how many steps.
            known: a mask that broadcasts to ``x``; what is known does not move.
        """

    @abstractmethod
    def start(self, num_chains: int) -> torch.Tensor:
        """Values ``(num_chains, *event_shape)`` for chains to start from."""

    @abstractmethod
    def bridge(self, beta: torch.Tensor) -> Any:
        """A machine on the way from :meth:`path_start` (``beta = 0``) to this one (1).

        Args:
            beta: inverse temperatures ``()`` or ``(C,)``, one for each chain.
        """

    @abstractmethod
    def path_start(self) -> Any:
        """The normalised distribution at ``beta = 0``, with ``log_prob`` and ``sample``."""

    def num_states(self) -> float:
        """How many terms the exact normalising constant has; infinite where it is out of reach."""
        return float("inf")

    def exact_log_partition(self) -> torch.Tensor:
        """``log Z`` by enumeration, ``(*lead)``, with gradients.

        Raises:
            UnknownPartitionError: if there are too many states.
        """
        raise UnknownPartitionError(self._too_large())

    def exact_sample(self, num_draws: int) -> torch.Tensor:
        """Independent draws ``(num_draws, *event_shape)`` by enumeration.

        With contexts, ``(num_draws, *lead, *event_shape)``.

        Raises:
            UnknownPartitionError: if there are too many states.
        """
        raise UnknownPartitionError(self._too_large())

    # ------------------------------------------------ and where chains have hidden units

    @property
    def all_units(self) -> Machine:
        """The machine over what chains move, its own visible part first; itself by default."""
        return self

    def complete(self, value: torch.Tensor) -> torch.Tensor:
        """Values ``(..., *event_shape)`` with hidden units given them: the positive phase."""
        return value

    def visible_part(self, state: torch.Tensor) -> torch.Tensor:
        """The values ``(..., *event_shape)`` in those of all units."""
        return state

    def log_unnormalized(self, value: torch.Tensor) -> torch.Tensor:
        """``log p(x) + log Z`` of values ``(..., *event_shape)``, or a bound of it."""
        return -self.energy(value)

    @property
    def log_prob_is_bound(self) -> bool:
        """Whether :meth:`log_unnormalized` is a lower bound."""
        return False

    def known_part(self, mask: torch.Tensor) -> torch.Tensor:
        """What is known of all units, where so much is of the visible ones."""
        return mask

    def observe(self, state: torch.Tensor) -> None:
        """Note the positive phase of data that a gradient is about to be taken for."""

    def own_parameters(self) -> dict[str, torch.Tensor]:
        """The parameters that the machine holds itself, and not a network of it, by their names."""
        return dict(self.named_parameters(recurse=False))

    # ------------------------------------------------ what it has

    @property
    def is_small(self) -> bool:
        """Whether normalising constant and draws are exact."""
        return self.num_states() <= MAX_STATES

    @property
    def lead(self) -> torch.Size:
        """The batch shape of contexts; ``()`` without, where a batch is of the same machine."""
        return torch.Size() if self.__dict__["_context"] is None else self.batch_shape

    @property
    def context(self) -> torch.Tensor | None:
        """What the machine is conditioned on, ``(*batch, context_dim)``.

        Raises:
            ValueError: if it depends on a context and has none.
        """
        context: torch.Tensor | None = self.__dict__["_context"]
        if self.context_dim and context is None:
            raise ValueError(
                f"this {type(self).__name__} depends on a context: use .condition(context)"
            )
        return context

    def _too_large(self) -> str:
        return (
            f"{type(self).__name__} has {self.num_states():.3g} states to enumerate, and the limit "
            f"is {MAX_STATES}: estimate_log_partition() estimates log Z, and sample() runs chains"
        )
