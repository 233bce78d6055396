# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Paths of densities from a base to a target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .block_sampler import BlockTarget
from .distribution_target import DistributionTarget
from .state import Values
from .target import Target

# From two inverse temperatures, () or (C,), to the difference of the potentials (C,).
Difference = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Path(ABC):
    """Densities between a base (inverse temperature 0) and a target (1).

    Args:
        target: the end of the path; its sites are those of the path.
    """

    target: Target

    @abstractmethod
    def potential(self, values: Values, beta: torch.Tensor) -> torch.Tensor:
        """The potential of every chain at its inverse temperature.

        Args:
            values: unconstrained values ``(C, *shape)`` of all sites.
            beta: inverse temperatures ``(C,)``, or one for all chains ``()``.

        Returns:
            ``(C,)``.
        """

    @abstractmethod
    def differences(self, values: Values) -> Difference:
        r"""What the potentials differ by between any two inverse temperatures.

        Args:
            values: unconstrained values ``(C, *shape)`` of all sites.

        Returns:
            A function from ``beta, to``, each ``()`` or ``(C,)``, to
            :math:`U_\beta - U_{\text{to}}`, ``(C,)``, which evaluates no more than it must.
        """


class GeometricPath(Path):
    r"""The path that mixes the potentials of a base and of a target.

    .. math:: U_\beta = (1 - \beta) U_0 + \beta U_1

    Args:
        base: the start of the path, with the same sites; ``None`` is a constant potential, so that
            the path consists of powers of the target.
        target: its end.
    """

    def __init__(self, base: Target | None, target: Target) -> None:
        self.base, self.target = base, target

    def potential(self, values: Values, beta: torch.Tensor) -> torch.Tensor:
        """The mixture of both potentials ``(C,)``."""
        mixed = weighted(beta, self.target.potential(values))
        if self.base is not None:
            mixed = mixed + weighted(1 - beta, self.base.potential(values))
        return mixed

    def potential_and_gradient(
        self, values: Values, sites: Sequence[str], beta: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The potential ``(C,)`` and its gradient ``(C, D)`` by some sites."""
        row = beta[..., None]
        potential, gradient = self.target.potential_and_gradient(values, sites)
        potential, gradient = weighted(beta, potential), weighted(row, gradient)
        if self.base is not None:
            of_base, gradient_of_base = self.base.potential_and_gradient(values, sites)
            potential = potential + weighted(1 - beta, of_base)
            gradient = gradient + weighted(1 - row, gradient_of_base)
        return potential, gradient

    def differences(self, values: Values) -> Difference:
        """What the potentials differ by, for one evaluation of both ends."""
        rise = self.target.potential(values)
        if self.base is not None:
            rise = rise - self.base.potential(values)

        def difference(beta: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
            # Not as a difference of two large potentials, which would lose digits.
            return weighted(beta - to, rise)

        return difference


class OwnPath(Path):
    """The path that a distribution defines itself by ``bridge(beta)``.

    Args:
        program: has ``bridge(beta)``, which takes inverse temperatures ``()`` or ``(C,)`` and gives
            an object of the same kind: with ``energy`` of values ``(C, *event_shape)``, ``(C,)``,
            and with ``sample_block`` if :class:`BlockGibbs` is to move it.
        target: the target made of ``program``.

    Raises:
        ValueError: for a target that is no distribution.
    """

    def __init__(self, program: Any, target: Target) -> None:
        if not isinstance(target, (DistributionTarget, BlockTarget)):
            raise ValueError(
                f"{type(program).__name__} has bridge(beta), a path of its own, which is for "
                f"distributions and energies: give a base instead"
            )
        self.program, self.target = program, target

    def potential(self, values: Values, beta: torch.Tensor) -> torch.Tensor:
        """The energy of the distributions on the way ``(C,)``."""
        values = {name: values[name] for name in self.target.sites}
        bridged = self.program.bridge(beta)
        if isinstance(self.target, DistributionTarget):
            return self.target.potential_of(bridged, values)
        return BlockTarget(bridged).potential(values)

    def differences(self, values: Values) -> Difference:
        """What the energies differ by, for one evaluation each."""
        return lambda beta, to: self.potential(values, beta) - self.potential(values, to)


def weighted(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A product in which nothing weighs nothing, even where the value is infinite."""
    return torch.where(weight == 0, torch.zeros_like(value), weight * value)
