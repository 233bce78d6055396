# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A ladder of temperatures, and the step size at each of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch


def inverse_temperatures(temperatures: Sequence[float], flat: bool) -> list[float]:
    """Check a ladder of temperatures, and give the inverse ones.

    Args:
        temperatures: 1 and one or more higher ones, rising; may end in infinity.
        flat: whether nothing holds the chains at an infinite temperature.

    Raises:
        ValueError: if they are not such.

    Example:
        >>> inverse_temperatures([1.0, 2.0, float("inf")], flat=False)
        [1.0, 0.5, 0.0]
    """
    ladder = [float(t) for t in temperatures]
    rises = all(a < b for a, b in pairwise(ladder))
    if len(ladder) < 2 or ladder[0] != 1 or not rises:
        raise ValueError(
            "expected temperatures that begin with 1 (the target itself) and rise, at least two, "
            f"such as [1, 2, 4, 8], got {ladder}"
        )
    if flat and ladder[-1] == float("inf"):
        raise ValueError(
            "at an infinite temperature there is no density left without a base: end the "
            "temperatures with a finite one, or give a base"
        )
    return [1 / t for t in ladder]


def adapt_step_scales(
    step_scales: torch.Tensor, accept_probs: torch.Tensor, num_steps: int
) -> None:
    r"""Bring the factors of the step size nearer to where all temperatures accept equally often.

    .. math:: \log s_t \leftarrow \log s_t + (a_t - a_0) / n^{0.6}

    The first factor stays 1, for the kernel itself adapts its step size.

    Args:
        step_scales: :math:`s`, ``(T,)``, changed in place.
        accept_probs: the mean acceptance :math:`a` at each temperature ``(T,)``.
        num_steps: :math:`n`, from 1.

    Example:
        >>> import torch
        >>> step_scales = torch.ones(2)
        >>> adapt_step_scales(step_scales, torch.tensor([0.5, 0.9]), 1)
        >>> bool(step_scales[0] == 1), bool(step_scales[1] > 1)
        (True, True)
    """
    move = (accept_probs - accept_probs[0]) / num_steps**0.6
    step_scales.mul_(move.nan_to_num(0.0).exp())
