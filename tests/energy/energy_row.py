# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""One row of the table of energies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class EnergyRow:
    """A machine so small that everything about it can be computed.

    `make` gives it with parameters that are not near zero, and takes keywords of its class, of
    which the tests use `negative_phase`, `context_dim` and `sampling_steps`. `values` are all
    values that it can have, or a grid of them with `log_cell`, the logarithm of a cell's volume.
    `reference` is `log p(x) + log Z` of such values by sums that are written out, and no code of
    the library.
    """

    name: str
    cls: type
    make: Callable[..., Any]
    reference: Callable[[Any, torch.Tensor], torch.Tensor]
    values: Callable[[Any], torch.Tensor]
    log_cell: float | None = None
    # Steps after which a chain from `start` is as good as exact.
    chain_steps: int = 30
    has_context: bool = True
    # What training climbs but for `log Z`, where that is not the likelihood but its best bound by
    # mean field; with a mean field of its own.
    bound: Callable[[Any, torch.Tensor], torch.Tensor] | None = None

    @property
    def finite(self) -> bool:
        return self.log_cell is None

    def climbed(self, machine: Any, value: torch.Tensor) -> torch.Tensor:
        """What training climbs for some values, but for `log Z`."""
        return (self.reference if self.bound is None else self.bound)(machine, value)

    def log_z(self, machine: Any) -> torch.Tensor:
        """The log normalising constant by the reference."""
        return self.reference(machine, self.values(machine)).logsumexp(0) + (self.log_cell or 0.0)

    def probabilities(self, machine: Any) -> torch.Tensor:
        """The probability of every value."""
        return self.reference(machine, self.values(machine)).softmax(0)

    @torch.no_grad()
    def exact_states(self, machine: Any, num: int) -> torch.Tensor:
        """Independent draws of all units; of a grid, uniform in its cells."""
        if machine.is_small:
            drawn: torch.Tensor = machine.all_units.exact_sample(num)
            return drawn
        probs, values = self.probabilities(machine), self.values(machine)
        width = torch.tensor(self.log_cell or 0.0).exp() ** (1 / values[0].numel())
        chosen = values[torch.multinomial(probs, num, replacement=True)]
        return chosen + width * (torch.rand(num, *values.shape[1:]) - 0.5)
