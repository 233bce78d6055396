# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Metropolis' algorithm with normal steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .adaptive import Adaptive
from .compiled import compiled
from .metropolis import choose
from .state import Info, State, Values, pack, unpack

POTENTIAL = "~potential"


class RandomWalk(Adaptive):
    r"""Metropolis' algorithm with normal steps, which needs no gradient.

    .. math::
        q' = q + \varepsilon\, s \odot \xi, \quad \xi \sim \mathcal N(0, I), \qquad
        \alpha = \min(1, \exp(U(q) - U(q')))

    The warm-up adapts the step size :math:`\varepsilon` over all chains, and the scales :math:`s`
    to their pooled standard deviations.

    Args:
        target: a Pyro model, a distribution, or a :class:`Target`.
        scale: the first :math:`\varepsilon`; ``2.38 / sqrt(D)`` by default, which is best for a
            standard normal target of many dimensions.
        target_accept: the acceptance rate to adapt to.
        adapt_step_size: whether the warm-up adapts :math:`\varepsilon`.
        adapt_scale: whether the warm-up adapts :math:`s`.
        sites: the sites that this kernel moves; all by default.
        compile: see :class:`Kernel`.
        potential_fn: see :class:`Kernel`.

    Raises:
        ValueError: for numbers out of range.

    References:
        Equation of State Calculations by Fast Computing Machines, N. Metropolis et al., 1953.
        Weak convergence and optimal scaling of random walk Metropolis algorithms, G. O. Roberts,
        A. Gelman and W. R. Gilks, 1997.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("x", dist.Exponential(2.0))
        >>> kernel = RandomWalk(model, compile=False)
        >>> kernel.setup(0)
        >>> state = kernel.init({"x": torch.distributions.Exponential(2.0).sample((4000,)).log()})
        >>> _, draws, _ = kernel.advance(state, num_draws=5)  # of log x, from exact ones
        >>> bool((draws["x"].exp().mean(1) - 0.5).abs().max() < 4 * 0.5 / 4000**0.5)
        True
    """

    def __init__(
        self,
        target: Any = None,
        *,
        scale: float | None = None,
        target_accept: float = 0.234,
        adapt_step_size: bool = True,
        adapt_scale: bool = True,
        sites: Sequence[str] | None = None,
        compile: bool | str = True,
        potential_fn: Callable[[Values], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(
            target,
            step_size=scale,
            target_accept=target_accept,
            adapt_step_size=adapt_step_size,
            adapt_scale=adapt_scale,
            sites=sites,
            compile=compile,
            potential_fn=potential_fn,
        )

    def first_step_size(self, dim: int) -> float:
        """The best one for a standard normal target."""
        return float(2.38 / dim**0.5)

    def init(self, state: State) -> State:
        """Add the potential."""
        return self._complete(self.values(state))

    @compiled
    def _complete(self, values: Values) -> State:
        return {**values, POTENTIAL: self.target.potential(values)}

    @compiled
    def step(self, state: State) -> tuple[State, Info]:
        """Propose a normal step in every chain, and accept or reject it."""
        position = pack(state, self.sites)
        noise = torch.randn_like(position)
        position = position + self.tuning["step_size"] * self.tuning["scale"] * noise
        moved = unpack(position, self.target.shapes(self.sites))
        potential = self.target.potential({**self.values(state), **moved})
        proposed = {**moved, POTENTIAL: potential}
        state, info = choose(state[POTENTIAL] - potential, proposed, state)
        return state, {**info, "potential": state[POTENTIAL]}
