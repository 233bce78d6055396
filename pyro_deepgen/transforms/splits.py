# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Taking the variables that a coupling layer keeps apart from those that it changes."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn


class Split(nn.Module, ABC):
    """A way to take an event apart by a mask, and to put it together again.

    Args:
        mask: truth values of the event's shape, true where a variable is kept.
    """

    kept_shape: tuple[int, ...]
    changed_shape: tuple[int, ...]

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.event_dim = mask.dim()
        self.event_dims = tuple(range(-mask.dim(), 0))

    @abstractmethod
    def apart(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what a network may see, and what is to be changed."""

    @abstractmethod
    def together(
        self, kept: torch.Tensor, changed: torch.Tensor, log_slope: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the event, with the batch shape of what was changed, and the log-determinant."""


class SliceSplit(Split):
    """The first or the last part along the first dimension is kept: nothing is copied."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__(mask)
        along = mask.flatten(1)[:, 0] if mask.dim() > 1 else mask
        num_kept = int(along.sum())
        self.kept_first = bool(along[0])
        self.dim = -mask.dim()
        self.kept_shape = (num_kept, *mask.shape[1:])
        self.changed_shape = (len(mask) - num_kept, *mask.shape[1:])
        num_changed = len(mask) - num_kept
        self.kept_range = (0 if self.kept_first else num_changed, num_kept)
        self.changed_range = (num_kept if self.kept_first else 0, num_changed)

    @staticmethod
    def fits(mask: torch.Tensor) -> bool:
        """Whether a mask is constant but for one change along the first dimension."""
        rows = mask.reshape(len(mask), -1)
        along = rows[:, 0]
        return bool((rows == along[:, None]).all()) and int((along[1:] != along[:-1]).sum()) == 1

    def apart(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return two views."""
        return x.narrow(self.dim, *self.kept_range), x.narrow(self.dim, *self.changed_range)

    def together(
        self, kept: torch.Tensor, changed: torch.Tensor, log_slope: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Concatenate."""
        if kept.dim() != changed.dim() or kept.shape[: self.dim] != changed.shape[: self.dim]:
            kept = kept.expand((*changed.shape[: self.dim], *self.kept_shape))
        parts = [kept, changed] if self.kept_first else [changed, kept]
        return torch.cat(parts, self.dim), log_slope.sum(self.event_dims)


class IndexSplit(Split):
    """Any variables of a vector are kept, and are gathered."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__(mask)
        kept, changed = mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]
        self.kept_shape, self.changed_shape = (len(kept),), (len(changed),)
        self.kept: torch.Tensor
        self.changed: torch.Tensor
        self.back: torch.Tensor
        self.register_buffer("kept", kept, persistent=False)
        self.register_buffer("changed", changed, persistent=False)
        self.register_buffer("back", torch.cat([kept, changed]).argsort(), persistent=False)

    def apart(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gather both parts."""
        return x.index_select(-1, self.kept), x.index_select(-1, self.changed)

    def together(
        self, kept: torch.Tensor, changed: torch.Tensor, log_slope: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put every variable into its place."""
        kept = kept.expand((*changed.shape[:-1], *self.kept_shape))
        return torch.cat([kept, changed], -1).index_select(-1, self.back), log_slope.sum(-1)


class MaskedSplit(Split):
    """The event stays whole: the network sees zeros for what is to be changed."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__(mask)
        self.kept_shape = self.changed_shape = tuple(mask.shape)
        self.mask: torch.Tensor
        self.register_buffer("mask", mask.clone(), persistent=False)

    def apart(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the event with and without holes."""
        return torch.where(self.mask, x, 0.0), x

    def together(
        self, kept: torch.Tensor, changed: torch.Tensor, log_slope: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Fill the holes."""
        filled = torch.where(self.mask, kept, changed)
        return filled, torch.where(self.mask, 0.0, log_slope).sum(self.event_dims)


def make_split(mask: torch.Tensor) -> Split:
    """Choose the cheapest way to take an event apart.

    Args:
        mask: truth values of the event's shape, true where a variable is kept.

    Raises:
        ValueError: if it is no tensor of truth values, or keeps all variables or none.
    """
    if mask.dtype != torch.bool or mask.dim() == 0 or bool(mask.all()) or not bool(mask.any()):
        raise ValueError(
            "expected as mask a tensor of truth values of the event's shape, some true (kept) and "
            f"some false (changed), got {mask}"
        )
    if SliceSplit.fits(mask):
        return SliceSplit(mask)
    return IndexSplit(mask) if mask.dim() == 1 else MaskedSplit(mask)
