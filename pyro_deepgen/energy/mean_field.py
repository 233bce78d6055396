# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Mean-field inference in machines of several layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from .layered_machine import LayeredMachine, Layers


class MeanField(nn.Module):
    r"""The hidden units of a machine of several layers as independent ones, given visible ones.

    .. math:: \mu_l \leftarrow d\, \mu_l + (1 - d)\, \sigma(\mu_{l-1}^T W_l + \mu_{l+1}^T W_{l+1}^T
        + b_l)

    (or, for blocks of units of which at most one is on, as independent blocks with their softmax),
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
        >>> means = [MeanField(n)(machine, x) for n in (1, 5, 25)]
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
        self, machine: LayeredMachine, x: torch.Tensor, known: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Means of all hidden layers, with the gradients of the iteration.

        Args:
            machine: the machine.
            x: visible units ``(..., *event_shape)``.
            known: a mask that broadcasts to ``x``; what is not known is inferred too, and its
                values in ``x`` do not count. All is known by default.

        Returns:
            ``[(..., *shapes[1]), ..., (..., *shapes[L])]``.
        """
        nothing: Layers = [None] * machine.num_layers
        means = nothing.copy()
        means[0] = x
        if known is not None:
            means[0] = torch.where(known, x, machine.mean_of(0, machine.field_in(0, nothing)))
        for level in range(1, machine.num_layers):
            field = machine.field_in(level, means)
            if level < machine.num_layers - 1:
                field = 2 * field - machine.field_in(level, nothing)
            means[level] = machine.mean_of(level, field)
        # One hidden layer alone is inferred exactly by now.
        for _ in range(self.num_steps if known is not None or machine.num_layers > 2 else 0):
            for first in (1, 0):
                self._move(machine, means, first, x, known)
        return [mean for mean in means[1:] if mean is not None]

    def _move(
        self,
        machine: LayeredMachine,
        means: Layers,
        first: int,
        x: torch.Tensor,
        known: torch.Tensor | None,
    ) -> None:
        for level in range(first, machine.num_layers, 2):
            if level == 0 and known is None:
                continue
            new = machine.mean_of(level, machine.field_in(level, means))
            before = means[level]
            if self.damping and before is not None:
                new = torch.lerp(new, before, self.damping)
            means[level] = torch.where(known, x, new) if level == 0 and known is not None else new
