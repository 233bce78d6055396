# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Levels of transforms at which half of the variables enter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import distributions as torchdist
from torch import nn
from torch.distributions import constraints

from ..nn import as_sizes
from .foreign import adapt
from .transform import Transform


class MultiScale(Transform):
    r"""Levels of transforms from a flat vector to an image; half of the variables enter at each.

    .. math:: h_1 = f_1(x_1), \qquad h_k = f_k(h_{k-1}, x_k), \qquad y = h_L, \qquad
        \log |\det \partial y / \partial x| = \sum_k \log |\det \partial f_k|

    The vector :math:`x = (x_1, \dots, x_L)` has as many variables as the image :math:`y`. The first
    piece is the input of the coarsest level; at each further level, the next piece comes in as the
    second half of the channels, below the output of the level before. Seen from the data, each
    level factors out half of what it has made, which then costs no further computation.

    Args:
        levels: the transforms :math:`f_1, \dots, f_L`, from the base to the data, each of images,
            or of any events of as many dimensions, whose first are channels.
        event_shape: shape of the data, such as ``(C, H, W)``.

    Raises:
        ValueError: if there are no levels, one is not a bijective transform, their contexts have
            different numbers of dimensions, or the channels of one cannot be halved.

    References:
        Dinh, Sohl-Dickstein and Bengio, Density estimation using Real NVP, 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> from pyro_deepgen.transforms import Squeeze
        >>> flow = MultiScale([Squeeze().inv, Squeeze().inv], (1, 4, 4))
        >>> flow.piece_shapes
        [(8, 1, 1), (2, 2, 2)]
        >>> x = torch.randn(5, 16)
        >>> y = flow(x)
        >>> y.shape, torch.equal(flow.inv(y), x)
        (torch.Size([5, 1, 4, 4]), True)
    """

    def __init__(self, levels: Iterable[torchdist.Transform], event_shape: Sequence[int]) -> None:
        adapted = [adapt(level) for level in levels]
        shape = as_sizes(event_shape, "event_shape")
        if not adapted or not shape:
            raise ValueError(
                f"expected at least one level and an event of at least one dimension, got "
                f"{len(adapted)} and event_shape {shape}"
            )
        context_dims = {level.context_dim for level in adapted if level.context_dim}
        if len(context_dims) > 1:
            raise ValueError(
                "expected levels whose contexts have the same number of dimensions, got "
                f"context_dim {sorted(context_dims)}; condition() some of them first"
            )
        super().__init__()
        self.levels = nn.ModuleList(adapted)
        self.context_dim = context_dims.pop() if context_dims else 0
        self.codomain_shape = shape
        self.domain_shape = (prod(shape),)
        self.domain = constraints.real_vector
        self.inverse_is_fast = any(level.inverse_is_fast for level in adapted)
        # Event dimensions that a level sees as batch dimensions.
        self._outer_dims = [len(shape) - level.codomain.event_dim for level in adapted]
        if min(self._outer_dims) < 0:
            raise ValueError(
                f"expected levels whose events have no more dimensions than event_shape {shape}, "
                f"got {[level.codomain.event_dim for level in adapted]}"
            )
        last, outer = adapted[-1].codomain, self._outer_dims[-1]
        self.codomain = constraints.independent(last, outer) if outer else last
        self.piece_shapes = _piece_shapes(adapted, shape)
        self._sizes = [prod(piece) for piece in self.piece_shapes]

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the levels from the coarsest to the data."""
        self.check_domain(x, context)
        pieces = [
            piece.unflatten(-1, shape)
            for piece, shape in zip(x.split(self._sizes, -1), self.piece_shapes, strict=True)
        ]
        piece_dims = len(self.piece_shapes[0])
        h: torch.Tensor | None = None
        total: torch.Tensor | None = None
        for piece, (level, outer) in zip(pieces, self._steps(), strict=True):
            h = piece if h is None else torch.cat([h, piece.expand_as(h)], -piece_dims)
            h, log_det = level.forward_and_log_det(h, context if level.context_dim else None)
            log_det = log_det.sum(tuple(range(-outer, 0))) if outer else log_det
            total = log_det if total is None else total + log_det
        assert h is not None and total is not None
        return h, total

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the inverses of the levels from the data to the coarsest."""
        self.check_codomain(y, context)
        piece_dims = len(self.piece_shapes[0])
        pieces: list[torch.Tensor] = []
        total: torch.Tensor | None = None
        h = y
        for k, (level, outer) in reversed(list(enumerate(self._steps()))):
            h, log_det = level.inverse_and_log_det(h, context if level.context_dim else None)
            log_det = log_det.sum(tuple(range(-outer, 0))) if outer else log_det
            total = log_det if total is None else total + log_det
            if k:
                h, piece = h.chunk(2, -piece_dims)
                pieces.insert(0, piece)
        assert total is not None
        batch = h.shape[:-piece_dims]  # a context of the coarsest level may have expanded it
        flat = [
            piece.flatten(-piece_dims).expand((*batch, size))
            for piece, size in zip((h, *pieces), self._sizes, strict=True)
        ]
        return torch.cat(flat, -1), total

    def _steps(self) -> list[tuple[Transform, int]]:
        """List the levels with the numbers of their outer dimensions."""
        levels: Iterable[Any] = self.levels
        return list(zip(levels, self._outer_dims, strict=True))

    def __iter__(self) -> Iterator[Transform]:
        for level in self.levels:
            assert isinstance(level, Transform)
            yield level

    def __len__(self) -> int:
        return len(self.levels)


def _piece_shapes(levels: Sequence[Transform], shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the shape of what enters at each level, from the coarsest to the data."""
    pieces: list[tuple[int, ...]] = []
    for level in reversed(levels[1:]):
        channels, *others = inner = tuple(level.inverse_shape(shape))
        if channels % 2:
            raise ValueError(
                "expected levels that make an even number of channels from the data, half of which "
                f"leave, got {inner} from {shape}; squeeze within each level"
            )
        shape = (channels // 2, *others)
        pieces.insert(0, shape)
    return [tuple(levels[0].inverse_shape(shape)), *pieces]
