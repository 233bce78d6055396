# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A transform at a context."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.distributions.constraints import Constraint, dependent_property

from .shapes import check_context
from .transform import Transform


class Conditioned(Transform):
    r"""The transform :math:`x \mapsto f(x; c)` at a context; parameters are those of :math:`f`.

    The context is a buffer that ``state_dict`` leaves out, and gradients reach it.

    Args:
        transform: a transform with ``context_dim`` above 0.
        context: contexts of shape ``(*batch, context_dim)``.

    Raises:
        ValueError: if ``context_dim`` is 0, or the context has another number of dimensions.

    Example:
        >>> import torch
        >>> from pyro_deepgen.transforms import planar
        >>> flow, context = planar(2, context_dim=3), torch.randn(5, 3)
        >>> x = torch.randn(2)
        >>> torch.equal(flow.condition(context)(x), flow.forward_and_log_det(x, context)[0])
        True
    """

    def __init__(self, transform: Transform, context: torch.Tensor) -> None:
        if transform.context_dim == 0:
            raise ValueError(
                f"{type(transform).__name__} takes no context: make it with context_dim, or use it "
                "without condition()"
            )
        check_context(transform, context)
        super().__init__()
        self.transform = transform
        self.context: torch.Tensor
        self.register_buffer("context", context, persistent=False)
        self.domain_shape = transform.domain_shape
        self.codomain_shape = transform.codomain_shape
        self.inverse_is_fast = transform.inverse_is_fast
        self.training = transform.training

    @dependent_property(is_discrete=False)
    def domain(self) -> Constraint:
        """The domain of the transform."""
        return self.transform.domain

    @dependent_property(is_discrete=False)
    def codomain(self) -> Constraint:
        """The codomain of the transform."""
        return self.transform.codomain

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the transform's pass from the base to the data at the context held."""
        check_context(self, context)
        return self.transform.forward_and_log_det(x, self.context)

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the transform's pass from the data to the base at the context held."""
        check_context(self, context)
        return self.transform.inverse_and_log_det(y, self.context)

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape of the image, with the batch shape that the context brings."""
        return self._with_batch(self.transform.forward_shape(shape), self.codomain.event_dim)

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape of the preimage, with the batch shape that the context brings."""
        return self._with_batch(self.transform.inverse_shape(shape), self.domain.event_dim)

    def _with_batch(self, shape: torch.Size, event_dim: int) -> torch.Size:
        cut = len(shape) - event_dim
        batch = torch.broadcast_shapes(shape[:cut], self.context.shape[:-1])
        return torch.Size((*batch, *shape[cut:]))
