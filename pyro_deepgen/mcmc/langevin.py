# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Langevin dynamics without a correction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .compiled import compiled
from .kernel import Kernel
from .state import Info, State, Values, pack, unpack
from .target import Target

GRADIENT = "~gradient"


class Langevin(Kernel):
    r"""Unadjusted Langevin dynamics at a temperature: always one gradient a step, nothing rejected.

    .. math:: q' = q - \tfrac{\varepsilon^2}{2} \nabla U(q) + \varepsilon \sqrt{T} \xi,
        \quad \xi \sim \mathcal N(0, I)

    The chains' law is near :math:`\exp(-U(q) / T)`, with a bias of order :math:`\varepsilon^2` that
    no number of steps takes away: a normal target of variance :math:`\sigma^2` is drawn with the
    variance :math:`T \sigma^2 / (1 - \varepsilon^2 / 4 \sigma^2)`, and with none at all from
    :math:`\varepsilon = 2 \sigma` on. Use it where a bias is harmless or rejection too dear (the
    negative phase of an energy model), and :class:`MALA` elsewhere.

    Args:
        target: a Pyro model, a distribution, or a :class:`Target`.
        step_size: :math:`\varepsilon`, fixed; as ``kernel.tuning["step_size"]`` it may be changed
            in place.
        temperature: :math:`T`, 0 or more; 0 descends the gradient. As
            ``kernel.tuning["temperature"]`` it may be changed in place.
        sites: the sites that this kernel moves; all by default.
        compile: see :class:`Kernel`.
        potential_fn: see :class:`Kernel`.

    Raises:
        ValueError: for numbers out of range.

    References:
        Exponential convergence of Langevin distributions and their discrete approximations,
        G. O. Roberts and R. L. Tweedie, 1996.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("x", dist.Normal(3.0, 2.0))
        >>> kernel = Langevin(model, step_size=0.5, temperature=0.0, compile=False)
        >>> kernel.setup(0)
        >>> state, _, _ = kernel.advance(kernel.init({"x": torch.zeros(4)}), 500)
        >>> bool(torch.allclose(state["x"], torch.tensor(3.0)))  # at the mode
        True
    """

    def __init__(
        self,
        target: Any = None,
        *,
        step_size: float = 0.1,
        temperature: float = 1.0,
        sites: Sequence[str] | None = None,
        compile: bool | str = True,
        potential_fn: Callable[[Values], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(target, sites=sites, compile=compile, potential_fn=potential_fn)
        if not step_size > 0:
            raise ValueError(f"expected a positive step_size, got {step_size}")
        if not temperature >= 0:
            raise ValueError(f"expected a temperature of 0 or more, got {temperature}")
        self._step_size, self._temperature = step_size, temperature

    def bind(self, target: Target, sites: Sequence[str] | None = None) -> None:
        """Let the kernel move some sites of a target."""
        super().bind(target, sites)
        like = torch.empty(0, dtype=target.sites[self.sites[0]].dtype, device=target.device)
        step_size, temperature = (
            like.new_tensor(self._step_size),
            like.new_tensor(self._temperature),
        )
        self.load_tuning({"step_size": step_size, "temperature": temperature})

    def init(self, state: State) -> State:
        """Add the gradient."""
        return self._complete(self.values(state))

    @compiled
    def _complete(self, values: Values) -> State:
        _, gradient = self.target.potential_and_gradient(values, self.sites)
        return {**values, GRADIENT: gradient}

    @compiled
    def step(self, state: State) -> tuple[State, Info]:
        """Move every chain; one whose gradient would not be finite stays, as ``diverging``."""
        step_size = self.tuning["step_size"]
        position = pack(state, self.sites)
        noise = self.tuning["temperature"].sqrt() * torch.randn_like(position)
        new = position + step_size * (noise - 0.5 * step_size * state[GRADIENT])
        moved = unpack(new, self.target.shapes(self.sites))
        _, gradient = self.target.potential_and_gradient(
            {**self.values(state), **moved}, self.sites
        )
        finite = new.isfinite().all(-1) & gradient.isfinite().all(-1)
        kept = torch.where(finite[:, None], new, position)
        state = {
            **state,
            **unpack(kept, self.target.shapes(self.sites)),
            GRADIENT: torch.where(finite[:, None], gradient, state[GRADIENT]),
        }
        return state, {"diverging": ~finite}
