# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The parts of a warm-up: a fast start, growing windows for the mass matrix, a fast end."""

from __future__ import annotations

from dataclasses import dataclass

START, FIRST_WINDOW, END = 75, 25, 50


@dataclass(frozen=True)
class Window:
    """Some steps of a warm-up.

    Args:
        num_steps: how many.
        adapts_mass: whether the mass matrix is estimated from them, and set at their end.
    """

    num_steps: int
    adapts_mass: bool


def warmup_windows(num_steps: int) -> list[Window]:
    """Divide a warm-up as Stan does.

    First 75 steps for the step size alone, then windows of 25, 50, 100, ... steps, at the end of
    each of which the mass matrix is set, then 50 steps for the step size. A window that would leave
    too little for the next, of twice its length, takes all that is left. Warm-ups of fewer than 150
    steps have 15 %, 75 % and 10 %, and those of fewer than 20 have no windows.

    Args:
        num_steps: steps of the whole warm-up, 0 or more.

    References:
        Stan Development Team: Stan Reference Manual, "Automatic parameter tuning".

    Example:
        >>> [(w.num_steps, w.adapts_mass) for w in warmup_windows(500)]
        [(75, False), (25, True), (50, True), (100, True), (200, True), (50, False)]
        >>> sum(w.num_steps for w in warmup_windows(37))
        37
    """
    if num_steps < 20:
        return [Window(num_steps, False)] if num_steps else []
    start, size, end = START, FIRST_WINDOW, END
    if num_steps < start + size + end:
        start, end = int(0.15 * num_steps), int(0.1 * num_steps)
        size = num_steps - start - end
    windows = [Window(start, False)]
    left = num_steps - start - end
    while left:
        taken = left if left - size < 2 * size else size
        windows.append(Window(taken, True))
        left, size = left - taken, 2 * size
    return [*windows, Window(end, False)]
