# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Units that can be drawn at once."""

from __future__ import annotations

import torch


def colours(couplings: torch.Tensor) -> list[list[int]]:
    """Groups of units without couplings inside, greedily, the units of most couplings first.

    Args:
        couplings: which units are coupled, ``(N, N)`` and symmetric; the diagonal has no meaning.

    Example:
        >>> import torch
        >>> ring = torch.eye(6).roll(1, 0) + torch.eye(6).roll(-1, 0)
        >>> colours(ring > 0)
        [[0, 2, 4], [1, 3, 5]]
        >>> len(colours(torch.ones(6, 6) > 0))
        6
    """
    neighbours = [set(row.nonzero()[:, 0].tolist()) for row in couplings.cpu()]
    groups: list[list[int]] = []
    for unit in sorted(range(len(neighbours)), key=lambda unit: (-len(neighbours[unit]), unit)):
        rest = neighbours[unit] - {unit}
        group = next((group for group in groups if not rest.intersection(group)), None)
        if group is None:
            groups.append(group := [])
        group.append(unit)
    return sorted(sorted(group) for group in groups)
