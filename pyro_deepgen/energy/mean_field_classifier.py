# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A classifier that begins as the inference of a deep Boltzmann machine."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import cast

import torch
from torch import nn

from .deep_boltzmann_machine import DeepBoltzmannMachine


class MeanFieldClassifier(nn.Module):
    r"""A network for labels, whose layers start as one mean-field step of a machine.

    With the machine's means :math:`\mu` as further inputs, which stay as they are,

    .. math:: a_1 = \sigma(s(x)^T W_1 + \mu_2^T U_1 + b_1), \quad
        a_l = \sigma(a_{l-1}^T W_l + \mu_{l+1}^T U_l + b_l), \quad
        \text{logits} = a_L^T C + d

    where :math:`U_l = W_{l+1}^T` at first, and then weights of their own. At the start
    :math:`a = \mu`, so far as the mean field has converged. Train it as any network, by cross
    entropy.

    Args:
        machine: the machine, trained already, of which the network keeps a copy that is not
            trained, beside weights that are.
        num_classes: number of classes ``K``.

    Raises:
        ValueError: for fewer than 2 classes.

    References:
        Deep Boltzmann Machines, Ruslan Salakhutdinov and Geoffrey Hinton, 2009.

    Example:
        >>> import torch
        >>> machine = DeepBoltzmannMachine(4, (3, 2))
        >>> MeanFieldClassifier(machine, 10)(torch.ones(5, 4)).shape
        torch.Size([5, 10])
    """

    def __init__(self, machine: DeepBoltzmannMachine, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"expected 2 classes or more, got {num_classes}")
        self.machine = copy.deepcopy(machine).requires_grad_(False)
        sizes = machine.sizes
        self.upwards = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.downwards = nn.ModuleList(
            nn.Linear(above, own, bias=False) for own, above in pairwise(sizes[1:])
        )
        self.head = nn.Linear(sizes[-1], num_classes)
        self.to(machine.base_bias)
        with torch.no_grad():
            for level in range(1, len(sizes)):
                up = cast(nn.Linear, self.upwards[level - 1])
                weight = getattr(machine, f"weight{level}") / machine.temperature
                up.weight.copy_(weight.mT)
                up.bias.copy_(getattr(machine, f"bias{level}") / machine.temperature)
                if level > 1:
                    cast(nn.Linear, self.downwards[level - 2]).weight.copy_(weight)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The last layer's activations ``(..., H_L)``.

        Args:
            x: data ``(..., V)``.
        """
        with torch.no_grad():
            means = self.machine.infer(x)
            below: torch.Tensor = self.machine.visible.statistic(x)
        for level, layer in enumerate(self.upwards):
            field = layer(below)
            if level < len(self.downwards):
                field = field + self.downwards[level](means[level + 1])
            below = field.sigmoid()
        return below

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the classes.

        Args:
            x: data ``(..., V)``.

        Returns:
            ``(..., K)``.
        """
        logits: torch.Tensor = self.head(self.features(x))
        return logits
