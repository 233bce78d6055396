# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Units that are there several times."""

from __future__ import annotations

from typing import Any

import torch

from .supports import CopiedSupport
from .units import Units


class Copies(Units):
    """Some units several times side by side, which share the parameters of the units.

    Args:
        units: the units.
        num_copies: how many times.

    Example:
        >>> import torch
        >>> from pyro_deepgen.energy import BinaryUnits
        >>> copies = Copies(BinaryUnits(3), 2)
        >>> copies.mean(torch.zeros(6)).tolist()
        [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    """

    def __init__(self, units: Units, num_copies: int) -> None:
        super().__init__(units.num_units * num_copies)
        self.units, self.num_copies = units, num_copies

    @property
    def support(self) -> Any:
        """That of the units, for each copy."""
        return CopiedSupport(self.units.support, self.num_copies)

    def _apart(self, x: torch.Tensor) -> torch.Tensor:
        apart: torch.Tensor = x.unflatten(-1, (self.num_copies, self.units.num_units))
        return apart

    def statistic(self, x: torch.Tensor) -> torch.Tensor:
        """That of each copy."""
        return self.units.statistic(self._apart(x)).flatten(-2)

    def self_energy(self, x: torch.Tensor) -> torch.Tensor:
        """The sum over the copies."""
        return self.units.self_energy(self._apart(x)).sum(-1)

    def log_normalizer(self, field: torch.Tensor) -> torch.Tensor:
        """The sum over the copies."""
        return self.units.log_normalizer(self._apart(field)).sum(-1)

    def mean(self, field: torch.Tensor) -> torch.Tensor:
        """That of each copy."""
        return self.units.mean(self._apart(field)).flatten(-2)

    def sample(self, field: torch.Tensor) -> torch.Tensor:
        """A draw of each copy."""
        return self.units.sample(self._apart(field)).flatten(-2)
