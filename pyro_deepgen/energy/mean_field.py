# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Mean-field inference in machines of several layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from .deep_layers import AllLayers


class MeanField(nn.Module):
    r"""The hidden units of a deep Boltzmann machine as independent ones, given visible ones.

    .. math:: \mu_l \leftarrow d\, \mu_l + (1 - d)\, \sigma(\mu_{l-1}^T W_l + \mu_{l+1}^T W_{l+1}^T
        + b_l)

    starting from one pass upwards that takes twice the fields of the layers below, as there are
    none yet from above. All odd layers move at once, then all even ones: without damping each half
    step maximises the bound over those layers, so that it never falls.

    Args:
        num_steps: how often each layer moves. It is fixed, as a test of convergence would wait for
            the device.
        damping: ``d``, from 0 to below 1.

    Raises:
        ValueError: for numbers out of range.

    References:
        Deep Boltzmann Machines, Ruslan Salakhutdinov and Geoffrey Hinton, 2009.

    Example:
        >>> import torch
        >>> from pyro_deepgen.energy import DeepBoltzmannMachine
        >>> machine, x = DeepBoltzmannMachine(4, (3, 2), weight_scale=1.0), torch.ones(4)
        >>> means = [MeanField(n)(machine.all_units, x) for n in (1, 5, 25)]
        >>> energies = [machine.variational_energy(x, mean).item() for mean in means]
        >>> energies[0] + 1e-5 >= energies[1] and energies[1] + 1e-5 >= energies[2]
        True
    """

    def __init__(self, num_steps: int = 10, damping: float = 0.0) -> None:
        super().__init__()
        if num_steps < 1:
            raise ValueError(f"expected 1 mean-field step or more, got {num_steps}")
        if not 0 <= damping < 1:
            raise ValueError(f"expected damping from 0 to below 1, got {damping}")
        self.num_steps, self.damping = num_steps, damping

    def forward(
        self, machine: AllLayers, x: torch.Tensor, known: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Means of all hidden layers, with the gradients of the iteration.

        Args:
            machine: the machine over all layers.
            x: visible units ``(..., V)``.
            known: a mask that broadcasts to ``x``; what is not known is inferred too, and its
                values in ``x`` do not count. All is known by default.

        Returns:
            ``[(..., H1), ..., (..., HL)]``.
        """
        batch = x.shape[:-1]
        nothing = [None] * machine.num_layers
        alone = machine.mean_of(0, nothing).expand(*batch, -1)
        means = [x if known is None else torch.where(known, x, alone)]
        for level in range(1, machine.num_layers):
            upwards = machine.from_below(level, means[-1])
            factor = 2 if level < machine.num_layers - 1 else 1
            means.append((machine.bias(level) + factor * upwards).sigmoid())
        for _ in range(self.num_steps):
            for first in (1, 0):
                self._move(machine, means, first, x, known)
        return means[1:]

    def _move(
        self,
        machine: AllLayers,
        means: list[torch.Tensor],
        first: int,
        x: torch.Tensor,
        known: torch.Tensor | None,
    ) -> None:
        for level in range(first, machine.num_layers, 2):
            if level == 0 and known is None:
                continue
            new = machine.mean_of(level, means)
            new = torch.lerp(new, means[level], self.damping) if self.damping else new
            means[level] = torch.where(known, x, new) if level == 0 and known is not None else new
