# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What all kernels with Hamiltonian dynamics share: integrator, metric and warm-up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .adaptive import Adaptive
from .compiled import compiled
from .mass_matrix import whitened, widened
from .state import State, Values, unpack

POTENTIAL, GRADIENT = "~potential", "~gradient"
MAX_ENERGY_ERROR = 1000.0


class Hamiltonian(Adaptive):
    r"""A kernel that follows Hamilton's equations for the energy ``U(q) + p^T M^{-1} p / 2``.

    With :math:`M^{-1} = L L^T` and the whitened momentum :math:`a = L^T p`, which is standard
    normal, a leapfrog step of size :math:`\epsilon` is

    .. math::
        a' = a - \tfrac{\epsilon}{2} L^T \nabla U(q), \quad q' = q + \epsilon L a', \quad
        a'' = a' - \tfrac{\epsilon}{2} L^T \nabla U(q').

    The warm-up adapts the step size by dual averaging of the acceptance over all chains, and the
    metric by their pooled variance in growing windows.
    """

    def __init__(
        self,
        target: Any = None,
        *,
        step_size: float = 1.0,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        full_mass: bool = False,
        target_accept_prob: float = 0.8,
        sites: Sequence[str] | None = None,
        compile: bool | str = True,
        potential_fn: Callable[[Values], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(
            target,
            step_size=step_size,
            adapt_step_size=adapt_step_size,
            adapt_scale=adapt_mass_matrix,
            full_mass=full_mass,
            target_accept=target_accept_prob,
            sites=sites,
            compile=compile,
            potential_fn=potential_fn,
        )

    def init(self, state: State) -> State:
        """Add the potential and its gradient."""
        return self._complete(self.values(state))

    @compiled
    def _complete(self, values: Values) -> State:
        potential, gradient = self.target.potential_and_gradient(values, self.sites)
        return {**values, POTENTIAL: potential, GRADIENT: gradient}

    def leapfrog(
        self,
        others: Values,
        q: torch.Tensor,
        a: torch.Tensor,
        gradient: torch.Tensor,
        step_size: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """One step of the integrator; chains come last, lest small dimensions slow all loops down.

        Args:
            others: values of the sites that do not move (others are ignored).
            q: positions ``(D, C)``.
            a: whitened momenta ``(D, C)``.
            gradient: of the potential ``(D, C)``.
            step_size: of every chain ``(C,)``, or of all ``()``.

        Returns:
            Positions, whitened momenta, gradients, and potentials ``(C,)``.
        """
        scale = self.tuning["scale"]
        a = a - 0.5 * step_size * whitened(gradient, scale)
        q = q + step_size * widened(a, scale)
        moved = unpack(q.mT, self.target.shapes(self.sites))
        potential, rows = self.target.potential_and_gradient({**others, **moved}, self.sites)
        gradient = rows.mT.contiguous()
        a = a - 0.5 * step_size * whitened(gradient, scale)
        return q, a, gradient, potential

    def whiten_position(self, q: torch.Tensor) -> torch.Tensor:
        """``L^{-1} q`` for positions ``(D, C)``."""
        scale = self.tuning["scale"]
        if scale.dim() == 1:
            return q / scale[:, None]
        narrowed: torch.Tensor = torch.linalg.solve_triangular(scale, q, upper=False)
        return narrowed
