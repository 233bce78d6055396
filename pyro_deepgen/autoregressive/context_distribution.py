# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Distributions that may depend on a context."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from typing_extensions import Self

from ..distributions import DistributionModule
from ..nn import as_size


class ContextDistribution(DistributionModule):
    """A distribution with an optional context.

    Args:
        event_shape: shape of one draw.
        context_dim: number of dimensions of the context, 0 for none.
        validate_args: whether ``log_prob`` checks its argument.

    Raises:
        ValueError: if ``context_dim`` is not a whole number from 0.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        context_dim: int = 0,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(event_shape, validate_args=validate_args)
        self.context_dim = as_size(context_dim, "context_dim") if context_dim else 0
        self.__dict__["_context"] = None

    def condition(self, context: torch.Tensor) -> Self:
        r"""Return the distribution :math:`p(x \mid c)`, which shares the parameters.

        Args:
            context: contexts of shape ``(*batch, context_dim)``.

        Returns:
            A distribution of the batch shape of the contexts, broadcast with the present one.

        Raises:
            ValueError: if ``context_dim`` is 0, or the context has another number of dimensions.
        """
        if not self.context_dim or context.shape[-1:] != (self.context_dim,):
            raise ValueError(
                f"expected a context with {self.context_dim} dimensions, got shape "
                f"{tuple(context.shape)}; this {type(self).__name__} was made with "
                f"context_dim={self.context_dim}"
            )
        given = self.expand(torch.broadcast_shapes(self.batch_shape, context.shape[:-1]))
        given.__dict__["_context"] = context
        return given

    def params_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the context, as a likelihood tells it to who makes its network.

        Raises:
            ValueError: if events have another shape, or there is no context.
        """
        if tuple(event_shape) != tuple(self.event_shape) or not self.context_dim:
            raise ValueError(
                f"expected data of shape {tuple(self.event_shape)} and a context, got data of "
                f"shape {tuple(event_shape)} and context_dim={self.context_dim}"
            )
        return (self.context_dim,)

    def _given_context(self) -> torch.Tensor | None:
        context: torch.Tensor | None = self.__dict__["_context"]
        if context is None and self.context_dim:
            raise ValueError(
                f"expected a context with {self.context_dim} dimensions, got none: use "
                "condition(context)"
            )
        return context
