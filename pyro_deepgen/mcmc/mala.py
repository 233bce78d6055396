# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The Metropolis-adjusted Langevin algorithm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .adaptive import Adaptive
from .compiled import compiled
from .metropolis import choose
from .state import Info, State, Values, pack, unpack

POTENTIAL, GRADIENT = "~potential", "~gradient"


class MALA(Adaptive):
    r"""The Metropolis-adjusted Langevin algorithm: a step down the gradient, with noise.

    .. math::
        q' &= q - \tfrac{\varepsilon^2}{2} S^2 \nabla U(q) + \varepsilon S \xi,
            \quad \xi \sim \mathcal N(0, I) \\
        \xi' &= -\xi + \tfrac{\varepsilon}{2} S \left(\nabla U(q) + \nabla U(q')\right) \\
        \alpha &= \min\left(1, \exp\left(U(q) - U(q')
            + \tfrac12 |\xi|^2 - \tfrac12 |\xi'|^2\right)\right)

    where :math:`\xi'` is the noise that leads back. The warm-up adapts the step size
    :math:`\varepsilon` over all chains, and the diagonal :math:`S` to their pooled standard
    deviations.

    Args:
        target: a Pyro model, a distribution, or a :class:`Target`.
        step_size: the first :math:`\varepsilon`; ``D^(-1/6)`` by default.
        target_accept: the acceptance rate to adapt to.
        adapt_step_size: whether the warm-up adapts :math:`\varepsilon`.
        adapt_scale: whether the warm-up adapts :math:`S`.
        sites: the sites that this kernel moves; all by default.
        compile: see :class:`Kernel`.
        potential_fn: see :class:`Kernel`.

    Raises:
        ValueError: for numbers out of range.

    References:
        Exponential convergence of Langevin distributions and their discrete approximations,
        G. O. Roberts and R. L. Tweedie, 1996.
        Optimal scaling of discrete approximations to Langevin diffusions, G. O. Roberts and J. S.
        Rosenthal, 1998.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("x", dist.Normal(3.0, 2.0))
        >>> kernel = MALA(model, step_size=1.0, compile=False)
        >>> kernel.setup(0)
        >>> _, draws, _ = kernel.advance(kernel.init({"x": 3 + 2 * torch.randn(4000)}), 5)
        >>> bool((draws["x"].mean(1) - 3).abs().max() < 4 * 2 / 4000**0.5)  # from exact draws
        True
    """

    def __init__(
        self,
        target: Any = None,
        *,
        step_size: float | None = None,
        target_accept: float = 0.574,
        adapt_step_size: bool = True,
        adapt_scale: bool = True,
        sites: Sequence[str] | None = None,
        compile: bool | str = True,
        potential_fn: Callable[[Values], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(
            target,
            step_size=step_size,
            target_accept=target_accept,
            adapt_step_size=adapt_step_size,
            adapt_scale=adapt_scale,
            sites=sites,
            compile=compile,
            potential_fn=potential_fn,
        )

    def first_step_size(self, dim: int) -> float:
        """One that shrinks with the dimensions as the best one does."""
        return float(dim ** (-1 / 6))

    def init(self, state: State) -> State:
        """Add the potential and its gradient."""
        return self._complete(self.values(state))

    @compiled
    def _complete(self, values: Values) -> State:
        potential, gradient = self.target.potential_and_gradient(values, self.sites)
        return {**values, POTENTIAL: potential, GRADIENT: gradient}

    @compiled
    def step(self, state: State) -> tuple[State, Info]:
        """Propose a Langevin step in every chain, and accept or reject it."""
        step_size, scale = self.tuning["step_size"], self.tuning["scale"]
        position = pack(state, self.sites)
        noise = torch.randn_like(position)
        drift = 0.5 * step_size * scale * state[GRADIENT]
        moved = unpack(
            position + step_size * scale * (noise - drift), self.target.shapes(self.sites)
        )
        potential, gradient = self.target.potential_and_gradient(
            {**self.values(state), **moved}, self.sites
        )
        back = drift + 0.5 * step_size * scale * gradient - noise
        log_ratio = state[POTENTIAL] - potential + 0.5 * (noise**2 - back**2).sum(-1)
        proposed = {**moved, POTENTIAL: potential, GRADIENT: gradient}
        state, info = choose(log_ratio, proposed, state)
        return state, {**info, "potential": state[POTENTIAL]}
