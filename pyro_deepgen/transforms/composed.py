# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Transforms one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import distributions as torchdist
from torch import nn
from torch.distributions.constraints import Constraint, dependent_property

from .foreign import adapt
from .shapes import check_context, check_event
from .transform import Transform


class Composed(Transform):
    r"""The composition :math:`f = f_K \circ \dots \circ f_1`, in one pass each way.

    .. math:: \log |\det \partial y / \partial x|
        = \sum_k \log |\det \partial f_k / \partial x_{k-1}|

    A context goes to the parts that depend on one. Parts may have different numbers of event
    dimensions; those of the whole are the most that any part needs.

    Args:
        parts: the transforms, from the base to the data; those of PyTorch and Pyro may be among
            them, and compositions are taken apart.

    Raises:
        ValueError: if there are no parts, one is not a bijective transform, or their contexts have
            different numbers of dimensions.

    Example:
        >>> import torch
        >>> import pyro.distributions.transforms as T
        >>> from pyro_deepgen.transforms import planar
        >>> flow = Composed([planar(2), T.Permute(torch.tensor([1, 0])), T.ExpTransform()])
        >>> flow.domain.event_dim, len(flow.parts)
        (1, 3)
        >>> x = torch.randn(5, 2)
        >>> y, log_det = flow.forward_and_log_det(x)
        >>> torch.allclose(log_det, -flow.inverse_and_log_det(y)[1], atol=1e-4)
        True
    """

    def __init__(self, parts: Iterable[torchdist.Transform]) -> None:
        flat = list(_flatten(parts))
        if not flat:
            raise ValueError("expected at least one transform to compose, got none")
        context_dims = {part.context_dim for part in flat if part.context_dim}
        if len(context_dims) > 1:
            raise ValueError(
                "expected transforms whose contexts have the same number of dimensions, got "
                f"context_dim {sorted(context_dims)}; condition() some of them first"
            )
        super().__init__()
        self.parts = nn.ModuleList(flat)
        self.context_dim = context_dims.pop() if context_dims else 0
        self.inverse_is_fast = any(part.inverse_is_fast for part in flat)
        # Event dimensions of the whole that a part sees as batch dimensions.
        self._outer_dims: list[int] = []
        event_dim = self.domain.event_dim
        self._event_dims = (event_dim, self.codomain.event_dim)
        for part in flat:
            self._outer_dims.append(event_dim - part.domain.event_dim)
            event_dim += part.codomain.event_dim - part.domain.event_dim

    @dependent_property(is_discrete=False)
    def domain(self) -> Constraint:
        """The first part's domain, with the event dimensions of the whole."""
        domain: Constraint = torchdist.ComposeTransform(list(self)).domain
        return domain

    @dependent_property(is_discrete=False)
    def codomain(self) -> Constraint:
        """The last part's codomain, with the event dimensions of the whole."""
        codomain: Constraint = torchdist.ComposeTransform(list(self)).codomain
        return codomain

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the parts from the first to the last."""
        check_event(self, "domain", x.shape, self._event_dims[0], None)
        check_context(self, context)
        log_det: torch.Tensor | None = None
        for part, outer in self._steps():
            x, of_part = part.forward_and_log_det(x, context if part.context_dim else None)
            log_det = _add(log_det, of_part, outer)
        assert log_det is not None
        return x, log_det

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the inverses of the parts from the last to the first."""
        check_event(self, "codomain", y.shape, self._event_dims[1], None)
        check_context(self, context)
        log_det: torch.Tensor | None = None
        for part, outer in reversed(self._steps()):
            y, of_part = part.inverse_and_log_det(y, context if part.context_dim else None)
            log_det = _add(log_det, of_part, outer)
        assert log_det is not None
        return y, log_det

    def _steps(self) -> list[tuple[Transform, int]]:
        """List the parts with the numbers of their outer dimensions."""
        parts: Iterable[Any] = self.parts
        return list(zip(parts, self._outer_dims, strict=True))

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape of the image of a tensor of a given shape."""
        for part in self:
            shape = part.forward_shape(shape)
        return torch.Size(shape)

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape of the preimage of a tensor of a given shape."""
        for part in reversed(list(self)):
            shape = part.inverse_shape(shape)
        return torch.Size(shape)

    def __iter__(self) -> Iterator[Transform]:
        for part in self.parts:
            assert isinstance(part, Transform)
            yield part

    def __len__(self) -> int:
        return len(self.parts)


def _flatten(parts: Iterable[torchdist.Transform]) -> Iterator[Transform]:
    for part in parts:
        if isinstance(part, Composed):
            yield from part
        elif isinstance(part, torchdist.ComposeTransform):
            yield from _flatten(part.parts)
        else:
            yield adapt(part)


def _add(total: torch.Tensor | None, term: torch.Tensor, outer_dims: int) -> torch.Tensor:
    if outer_dims:
        term = term.sum(tuple(range(-outer_dims, 0)))
    return term if total is None else total + term
