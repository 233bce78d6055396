# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Supports of units that PyTorch has no constraints for."""

from __future__ import annotations

import torch
from torch.distributions import constraints


class OneHotGroups(constraints.Constraint):
    """Vectors of groups side by side, in each of which one entry is 1 and the others are 0.

    Args:
        num_classes: entries of a group.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
        >>> OneHotGroups(2).check(x).tolist()
        [True, False]
    """

    is_discrete, event_dim = True, 1

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        super().__init__()

    def check(self, value: torch.Tensor) -> torch.Tensor:
        """Whether each vector ``(..., N)`` is one of these."""
        groups: torch.Tensor = value.unflatten(-1, (-1, self.num_classes))
        inside: torch.Tensor = constraints.one_hot.check(groups).all(-1)
        return inside


class SideBySide(constraints.Constraint):
    """Vectors whose first entries have one support and whose others are one-hot.

    Args:
        first: the support of the first entries.
        size: how many these are.

    Example:
        >>> import torch
        >>> from torch.distributions import constraints
        >>> x = torch.tensor([[0.3, 1.0, 0.0], [0.3, 1.0, 1.0]])
        >>> SideBySide(constraints.real_vector, 1).check(x).tolist()
        [True, False]
    """

    event_dim = 1

    def __init__(self, first: constraints.Constraint, size: int) -> None:
        self.first, self.size = first, size
        self.is_discrete = first.is_discrete
        super().__init__()

    def check(self, value: torch.Tensor) -> torch.Tensor:
        """Whether each vector ``(..., N)`` is one of these."""
        label = constraints.one_hot.check(value[..., self.size :])
        inside: torch.Tensor = self.first.check(value[..., : self.size]) & label
        return inside


class CopiedSupport(constraints.Constraint):
    """Vectors that lie in a support several times, side by side.

    Args:
        each: the support of one copy.
        num_copies: how many there are.

    Example:
        >>> import torch
        >>> from torch.distributions import constraints
        >>> x = torch.tensor([[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
        >>> CopiedSupport(constraints.one_hot, 2).check(x).tolist()
        [True, False]
    """

    event_dim = 1

    def __init__(self, each: constraints.Constraint, num_copies: int) -> None:
        self.each, self.num_copies = each, num_copies
        self.is_discrete = each.is_discrete
        super().__init__()

    def check(self, value: torch.Tensor) -> torch.Tensor:
        """Whether each vector ``(..., N)`` is one of these."""
        inside: torch.Tensor = self.each.check(value.unflatten(-1, (self.num_copies, -1))).all(-1)
        return inside
