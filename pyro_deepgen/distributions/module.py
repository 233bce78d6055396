# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The base class of distributions that own parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import nn
from typing_extensions import Self


class DistributionModule(TorchDistribution, nn.Module):
    r"""A distribution that is also a module: it owns parameters, buffers and sub-modules.

    It is to :class:`~pyro.distributions.TorchDistribution` what Pyro's ``TransformModule`` is to
    ``Transform``. An instance can be an attribute of a ``PyroModule`` (or be registered with
    ``pyro.module``), appear in ``pyro.sample``, move with ``.to(device)``, be saved with
    ``state_dict`` and be copied with ``copy.deepcopy``.

    A subclass sets up its parameters after calling this initialiser and implements ``log_prob``
    and ``sample`` (or ``rsample`` with ``has_rsample = True``). Calling an instance draws from it,
    as for every Pyro distribution; there is no ``forward``.

    Args:
        event_shape: shape of one draw.
        batch_shape: shape of the batch of independent, identically distributed draws.
        validate_args: whether ``log_prob`` checks its argument; ``None`` follows Pyro's setting.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from torch.distributions import constraints
        >>> class Coins(DistributionModule):
        ...     support = constraints.independent(constraints.boolean, 1)
        ...     def __init__(self, size):
        ...         super().__init__((size,))
        ...         self.logits = nn.Parameter(torch.zeros(size))
        ...     def sample(self, sample_shape=torch.Size()):
        ...         with torch.no_grad():
        ...             p = self.logits.sigmoid().expand(self.shape(sample_shape))
        ...             return torch.bernoulli(p)
        ...     def log_prob(self, value):
        ...         value = self.broadcast(value)
        ...         return (value * self.logits - nn.functional.softplus(self.logits)).sum(-1)
        >>> coins = Coins(3)
        >>> x = coins.expand((5,))()
        >>> x.shape, coins.expand((5,)).log_prob(x).shape
        (torch.Size([5, 3]), torch.Size([5]))
        >>> coins.expand((5,)).logits is coins.logits
        True
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (the name and type are PyTorch's)

    def __init__(
        self,
        event_shape: Sequence[int],
        batch_shape: Sequence[int] = (),
        validate_args: bool | None = None,
    ) -> None:
        nn.Module.__init__(self)
        TorchDistribution.__init__(
            self, torch.Size(batch_shape), torch.Size(event_shape), validate_args=validate_args
        )

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """Return a view with another batch shape that shares parameters, buffers and modules.

        Args:
            batch_shape: the new batch shape; the present one must broadcast to it.

        Raises:
            ValueError: if the present batch shape does not broadcast to ``batch_shape``.
        """
        batch_shape = torch.Size(batch_shape)
        present = self.batch_shape
        aligned = batch_shape[len(batch_shape) - len(present) :]
        if len(batch_shape) < len(present) or any(
            old not in (1, new) for old, new in zip(present, aligned, strict=True)
        ):
            raise ValueError(
                f"expected a batch shape to which {tuple(present)} broadcasts, got "
                f"{tuple(batch_shape)}; sizes other than 1 cannot change"
            )
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.__dict__["_batch_shape"] = batch_shape
        return new

    def broadcast(self, value: torch.Tensor) -> torch.Tensor:
        """Expand a value to ``(..., *batch_shape, *event_shape)`` so that it can be scored.

        Args:
            value: a value whose shape ends in ``event_shape``.

        Raises:
            ValueError: if the last dimensions of ``value`` are not ``event_shape``.
        """
        event_dim = len(self.event_shape)
        batch, event = (
            value.shape[: value.dim() - event_dim],
            value.shape[value.dim() - event_dim :],
        )
        if event != self.event_shape:
            raise ValueError(
                f"{type(self).__name__} expected a value whose last dimensions are "
                f"{tuple(self.event_shape)}, got shape {tuple(value.shape)}"
            )
        return value.expand(torch.broadcast_shapes(batch, self.batch_shape) + event)

    def extra_repr(self) -> str:
        """Name the shapes in the printed form of the module."""
        return f"event_shape={tuple(self.event_shape)}, batch_shape={tuple(self.batch_shape)}"

    def __repr__(self) -> str:
        return nn.Module.__repr__(self)
