# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The energies of binary states that differ from the data in one unit."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import constraints

from .energy_objective import EnergyObjective, require_support


class SingleFlips(EnergyObjective):
    """Base class of losses that compare binary data with all states one flip away.

    Args:
        model: see :class:`EnergyObjective`; its values are 0 or 1, free of each other (vectors with
            exactly one unit on are not).
        num_sites: flips for each datum, drawn anew at each call, in place of all; the loss is then
            an unbiased estimate.

    Raises:
        ValueError: for values that are not binary, and a number of sites out of range.
    """

    def __init__(self, model: Any, num_sites: int | None = None) -> None:
        super().__init__(model)
        require_support(
            model,
            constraints.boolean,
            "for real data use score matching, for other data noise-contrastive estimation",
        )
        if num_sites is not None and num_sites < 1:
            raise ValueError(f"expected 1 site or more, got num_sites={num_sites}")
        self.num_sites = num_sites

    def differences(self, x: torch.Tensor) -> tuple[torch.Tensor, float]:
        """How much energy a flip takes.

        Args:
            x: a batch ``(B, *event)``.

        Returns:
            Differences ``(S, B)``, and the number of units divided by ``S``.

        Raises:
            ValueError: if there are fewer units than ``num_sites``.
        """
        energy = self.energy(x)
        flat = x.reshape(*energy.shape, -1)
        size = flat.shape[-1]
        count = size if self.num_sites is None else self.num_sites
        if count > size:
            raise ValueError(f"expected num_sites of {size} units or fewer, got {count}")
        if count == size:
            axes = torch.eye(size, dtype=torch.bool, device=x.device)
            chosen = axes.reshape(size, *[1] * energy.dim(), size)
        else:
            # The largest of random numbers: sites without repetition, for each datum its own.
            sites = torch.rand_like(flat).topk(count, -1).indices.movedim(-1, 0)[..., None]
            chosen = torch.zeros((count, *flat.shape), dtype=torch.bool, device=x.device)
            chosen = chosen.scatter(-1, sites, True)
        flipped = torch.where(chosen, 1 - flat, flat).reshape(count, *x.shape)
        return self.energy(flipped) - energy, size / count
