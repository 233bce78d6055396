# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Slice sampling along lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import normalize, one_hot

from .adaptive import Adaptive
from .compiled import compiled
from .state import Info, State, Values, pack, unpack
from .target import Target

POTENTIAL = "~potential"
Line = dict[str, torch.Tensor]


class SliceSampler(Adaptive):
    r"""Slice sampling by stepping out and shrinkage, which has nothing to tune but a width.

    In each chain a level :math:`y = U(q) + e` with :math:`e \sim \mathrm{Exponential}(1)` is drawn,
    and then a point of the slice :math:`\{t : U(q + t v) \le y\}` of a line through :math:`q`: an
    interval about :math:`q` is widened until its ends are outside, and shrunk to each point drawn
    in it that is outside, until one is inside. All chains widen and shrink together, those that are
    done idly; each round costs one evaluation of all chains and one look at whether any goes on.

    The warm-up sets the width of each coordinate's interval to some pooled standard deviations.

    Args:
        target: a Pyro model, a distribution, or a :class:`Target`.
        along: ``"coordinates"``: a step draws along each coordinate in turn; or ``"directions"``: a
            step draws along one random direction.
        width: the first width of the interval, in scales of a coordinate, which start at 1.
        max_widenings: by how many widths an interval may grow.
        max_shrinkages: points that are tried; a chain that has found none inside by then stays,
            which keeps the target invariant.
        adapt_scale: whether the warm-up adapts the scales.
        sites: the sites that this kernel moves; all by default.
        compile: see :class:`Kernel`; rounds are compiled each, steps are not.
        potential_fn: see :class:`Kernel`.

    Raises:
        ValueError: for an unknown kind of lines, or numbers out of range.

    References:
        Slice sampling, Radford M. Neal, 2003, arXiv physics/0009028.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("x", dist.Normal(3.0, 2.0))
        >>> kernel = SliceSampler(model, compile=False)
        >>> kernel.setup(0)
        >>> _, draws, _ = kernel.advance(kernel.init({"x": torch.full((4000,), 9.0)}), 20)
        >>> bool((draws["x"][-1].mean() - 3).abs() < 4 * 2 / 4000**0.5)  # from 3 s.d. away
        True
    """

    def __init__(
        self,
        target: Any = None,
        *,
        along: str = "coordinates",
        width: float = 2.0,
        max_widenings: int = 10,
        max_shrinkages: int = 100,
        adapt_scale: bool = True,
        sites: Sequence[str] | None = None,
        compile: bool | str = True,
        potential_fn: Callable[[Values], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(
            target,
            step_size=width,
            adapt_step_size=False,
            adapt_scale=adapt_scale,
            sites=sites,
            compile=compile,
            potential_fn=potential_fn,
        )
        if along not in ("coordinates", "directions"):
            raise ValueError(f"expected along='coordinates' or 'directions', got {along!r}")
        if max_widenings < 0 or max_shrinkages < 1:
            raise ValueError(
                "expected max_widenings of 0 or more and max_shrinkages of 1 or more, got "
                f"{max_widenings} and {max_shrinkages}"
            )
        self.along = along
        self.max_widenings, self.max_shrinkages = max_widenings, max_shrinkages
        self._axes: list[torch.Tensor] = []

    def bind(self, target: Target, sites: Sequence[str] | None = None) -> None:
        """Let the kernel move some sites of a target."""
        super().bind(target, sites)
        count = len(self.tuning["scale"]) if self.along == "coordinates" else 1
        self._axes = list(torch.arange(count, device=target.device).unbind())

    def init(self, state: State) -> State:
        """Add the potential."""
        return self._complete(self.values(state))

    @compiled
    def _complete(self, values: Values) -> State:
        return {**values, POTENTIAL: self.target.potential(values)}

    def step(self, state: State) -> tuple[State, Info]:
        """Draw from a slice along every coordinate, or along one direction, in every chain."""
        num_steps = torch.zeros_like(state[POTENTIAL], dtype=torch.int64)
        for axis in self._axes:
            line = self._set_out(state, axis)
            for _ in range(self.max_widenings):
                line = self._widen(state, line)
                if not line["widening"].any():
                    break
            for _ in range(self.max_shrinkages):
                line = self._shrink(state, line)
                if not line["shrinking"].any():
                    break
            moved = unpack(line["new"], self.target.shapes(self.sites))
            state = {**state, **moved, POTENTIAL: line["potential"]}
            num_steps = num_steps + line["num_steps"]
        return state, {"num_steps": num_steps, "potential": state[POTENTIAL]}

    @compiled
    def _set_out(self, state: State, axis: torch.Tensor) -> Line:
        q, potential = pack(state, self.sites), state[POTENTIAL]
        if self.along == "coordinates":
            v = one_hot(axis, q.shape[-1]).to(q.dtype).expand_as(q)
        else:
            v = normalize(torch.randn_like(q), dim=-1)
        left = -torch.rand_like(potential)
        # The widenings are shared out at random beforehand, else the way back would differ.
        to_left = torch.floor((self.max_widenings + 1) * torch.rand_like(potential))
        return {
            "q": q,
            "v": self.tuning["step_size"] * self.tuning["scale"] * v,
            "level": potential - torch.rand_like(potential).log(),
            "ends": torch.stack([left, left + 1]),
            "left": torch.stack([to_left, self.max_widenings - to_left]),
            "widening": torch.ones_like(potential, dtype=torch.bool).expand(2, -1).clone(),
            "shrinking": torch.ones_like(potential, dtype=torch.bool),
            "new": q.clone(),
            "potential": potential.clone(),
            "num_steps": torch.zeros_like(potential, dtype=torch.int64),
        }

    def _along(
        self, state: State, line: Line, t: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points and potentials at ``t`` ``(n, C)`` of the lines, ``(n, C, D)`` and ``(n, C)``."""
        points = line["q"] + t[..., None] * line["v"]
        flat = points.reshape(-1, points.shape[-1])
        values = {
            name: value.expand(len(t), *value.shape).reshape(-1, *value.shape[1:])
            for name, value in self.values(state).items()
        }
        moved = unpack(flat, self.target.shapes(self.sites))
        return points, self.target.potential({**values, **moved}).reshape(t.shape)

    @compiled
    def _widen(self, state: State, line: Line) -> Line:
        _, potential = self._along(state, line, line["ends"])
        going = line["widening"] & (line["left"] > 0)
        widening = going & (potential <= line["level"])
        sign = torch.tensor([[-1.0], [1.0]], dtype=potential.dtype, device=potential.device)
        return {
            **line,
            "ends": line["ends"] + torch.where(widening, sign, 0.0),
            "left": line["left"] - widening.to(potential.dtype),
            "widening": widening,
            "num_steps": line["num_steps"] + going.sum(0),
        }

    @compiled
    def _shrink(self, state: State, line: Line) -> Line:
        low, high = line["ends"]
        t = low + (high - low) * torch.rand_like(low)
        points, potential = self._along(state, line, t[None])
        going = line["shrinking"]
        found = going & (potential[0] <= line["level"])
        return {
            **line,
            "ends": torch.stack([torch.where(t < 0, t, low), torch.where(t < 0, high, t)]),
            "new": torch.where(found[:, None], points[0], line["new"]),
            "potential": torch.where(found, potential[0], line["potential"]),
            "shrinking": going & ~found,
            "num_steps": line["num_steps"] + going,
        }
