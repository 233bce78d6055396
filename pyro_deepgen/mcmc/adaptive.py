# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A warm-up that adapts a step size, and a scale of each coordinate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .compiled import compiled
from .dual_averaging import DualAveraging
from .kernel import Kernel
from .mass_matrix import collect, end_window, metric_tuning, start_window
from .state import Info, State, Values, pack
from .target import Target
from .warmup_windows import Window, warmup_windows


class Adaptive(Kernel):
    """A kernel with a step size in units of each coordinate's scale.

    The warm-up adapts ``tuning["step_size"]`` to an acceptance rate over all chains, and sets
    ``tuning["scale"]`` ``(D,)`` to the standard deviations of the pooled chains.

    Args:
        target: see :class:`Kernel`.
        step_size: the first one, in units of the scales, which start at 1; ``None`` lets the
            class choose for the number of dimensions.
        adapt_step_size: whether the warm-up adapts it.
        adapt_scale: whether the warm-up adapts the scales.
        full_mass: whether the scale is a triangle ``(D, D)``, the factor of a covariance matrix.
        target_accept: the acceptance rate to adapt to.
        sites: see :class:`Kernel`.
        compile: see :class:`Kernel`.
        potential_fn: see :class:`Kernel`.
    """

    def __init__(
        self,
        target: Any = None,
        *,
        step_size: float | None = None,
        adapt_step_size: bool = True,
        adapt_scale: bool = True,
        full_mass: bool = False,
        target_accept: float = 0.5,
        sites: Sequence[str] | None = None,
        compile: bool | str = True,
        potential_fn: Callable[[Values], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(target, sites=sites, compile=compile, potential_fn=potential_fn)
        if step_size is not None and not step_size > 0:
            raise ValueError(f"expected a positive step size, got {step_size}")
        if not 0 < target_accept < 1:
            raise ValueError(f"expected target_accept between 0 and 1, got {target_accept}")
        self.adapt_step_size, self.adapt_scale = adapt_step_size, adapt_scale
        self.full_mass, self._step_size = full_mass, step_size
        # The mean over chains has so little noise that steps twice as long, which suit one chain,
        # would go up and down about the right size without end.
        self.target_accept_prob = target_accept
        self.averaging = DualAveraging(self.tuning, "step_size", target_accept, gamma=0.1)
        self._windows: list[Window] = []
        self._steps_left = 0
        self._reach = 10.0

    def first_step_size(self, dim: int) -> float:
        """The step size to begin with in so many dimensions."""
        return 1.0

    def bind(self, target: Target, sites: Sequence[str] | None = None) -> None:
        """Let the kernel move some sites of a target, each coordinate by a scale of its own."""
        super().bind(target, sites)
        chosen = [self.target.sites[name] for name in self.sites]
        dtype = chosen[0].dtype
        for site in chosen:
            dtype = torch.promote_types(dtype, site.dtype)
        like = torch.empty(0, dtype=dtype, device=target.device)
        dim = sum(site.shape.numel() for site in chosen)
        step_size = self.first_step_size(dim) if self._step_size is None else self._step_size
        fresh = metric_tuning(dim, self.full_mass, like)
        self.load_tuning(fresh | {"step_size": like.new_tensor(step_size)})
        self.averaging.start(step_size)

    def start_warmup(self, state: State, num_steps: int) -> None:
        """Start the first window of the warm-up."""
        self._windows = warmup_windows(num_steps)
        self._reach = 10.0
        self.open_window(state)

    def open_window(self, state: State) -> None:
        """Start the next window of the warm-up, if there is one."""
        self._steps_left = self._windows[0].num_steps if self._windows else 0
        if self._windows and self.adapt_step_size:
            self.averaging.start(self.tuning["step_size"], reach=self._reach)
        if self.collects_scale:
            start_window(self.tuning, pack(state, self.sites))

    def close_window(self) -> None:
        """Take over what the window has found."""
        if self.adapt_step_size:
            self.averaging.finish()
        if self.collects_scale:
            change = end_window(self.tuning)
            if self.adapt_step_size:
                self.tuning["step_size"].mul_(change)
        self._windows.pop(0)
        self._reach = 1.0

    @property
    def collects_scale(self) -> bool:
        """Whether the scale is now estimated."""
        return self.adapt_scale and bool(self._windows) and self._windows[0].adapts_mass

    @torch.no_grad()
    def adapt(self, state: State, info: Info, num_steps: int) -> None:
        """Learn from one step of all chains, and at the end of a window from all of its steps."""
        if not self._windows:
            return
        self.learn(state, info)
        self._steps_left -= 1
        while self._windows and self._steps_left == 0:
            self.close_window()
            self.open_window(state)

    def learn(self, state: State, info: Info) -> None:
        """Take one step of all chains into account."""
        if self.adapt_step_size or self.collects_scale:
            moved = {name: state[name] for name in self.sites}
            first = moved[self.sites[0]]
            ones = first.new_ones(len(first))
            self._learn_from(moved, info["accept_prob"] if self.adapt_step_size else ones)

    @compiled
    def _learn_from(self, moved: Values, accept_prob: torch.Tensor) -> None:
        position = pack(moved, self.sites)
        if self.adapt_step_size:
            self.averaging.update(accept_prob.mean())
        collect(self.tuning, position, torch.ones_like(position[:, 0]))
