# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Any bijective transforms as one module, with one pass each way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import distributions as torchdist
from torch import nn
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from .parts import HoldsParts

Transforms = torchdist.Transform | Iterable[torchdist.Transform]


@runtime_checkable
class Bijection(Protocol):
    """A transform that gives its value and log-determinant together, as those of this library do.

    Example:
        >>> from pyro_deepgen.transforms import planar
        >>> isinstance(planar(2), Bijection)
        True
    """

    @property
    def domain(self) -> Constraint:
        """The set that it maps."""
        ...

    @property
    def codomain(self) -> Constraint:
        """The set that it maps to."""
        ...

    @property
    def context_dim(self) -> int:
        """Number of dimensions of the context, 0 for none."""
        ...

    def forward_and_log_det(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map ``(*batch, *event)`` points, with the log-determinants of shape ``batch``."""
        ...

    def inverse_and_log_det(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map back, with the log-determinants of the inverse."""
        ...

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape of the image of a tensor of a given shape."""
        ...

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape of the preimage of a tensor of a given shape."""
        ...


class _Foreign(HoldsParts):
    """A transform of PyTorch's or Pyro's: its tensors are buffers, and it remembers nothing."""

    context_dim = 0

    def __init__(self, transform: torchdist.Transform) -> None:
        super().__init__()
        self._hold(torchdist.ComposeTransform([transform]))

    @property
    def plain(self) -> torchdist.Transform:
        """The transform on the tensors that the module holds now."""
        plain: torchdist.Transform = self._put_together().parts[0]
        return plain

    @property
    def domain(self) -> Constraint:
        return self.plain.domain

    @property
    def codomain(self) -> Constraint:
        return self.plain.codomain

    def forward_and_log_det(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        plain = self.plain
        y = plain(x)
        log_det = plain.log_abs_det_jacobian(x, y)
        self._forget()
        return y, log_det

    def inverse_and_log_det(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        plain = self.plain
        x = plain.inv(y)
        log_det = -plain.log_abs_det_jacobian(x, y)
        self._forget()
        return x, log_det

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        return torch.Size(self.plain.forward_shape(torch.Size(shape)))

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        return torch.Size(self.plain.inverse_shape(torch.Size(shape)))


class _Steps(nn.Module):
    """Bijections one after another; a part may see event dimensions of the whole as batch."""

    def __init__(self, parts: Sequence[Any]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.context_dim = max(part.context_dim for part in parts)
        self.bijective = all(getattr(part, "bijective", True) for part in parts)
        # Backwards for the fewest event dimensions that serve all parts, then forwards.
        event_dim = parts[-1].codomain.event_dim
        for part in reversed(parts):
            event_dim = max(event_dim, part.codomain.event_dim)
            event_dim += part.domain.event_dim - part.codomain.event_dim
        self._outer_dims: list[int] = []
        self.domain = _with_dims(parts[0].domain, event_dim)
        for part in parts:
            self._outer_dims.append(event_dim - part.domain.event_dim)
            event_dim += part.codomain.event_dim - part.domain.event_dim
        self.codomain = _with_dims(parts[-1].codomain, event_dim)

    def condition(self, context: torch.Tensor) -> _Steps:
        parts: list[Any] = list(self.parts)
        return _Steps([part.condition(context) if part.context_dim else part for part in parts])

    def forward_and_log_det(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        total: Any = 0.0
        for part, outer in self._with_dims():
            x, log_det = part.forward_and_log_det(x)
            total = total + sum_last(log_det, outer)
        return x, total

    def inverse_and_log_det(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        total: Any = 0.0
        for part, outer in reversed(list(self._with_dims())):
            y, log_det = part.inverse_and_log_det(y)
            total = total + sum_last(log_det, outer)
        return y, total

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        for part, _ in self._with_dims():
            shape = part.forward_shape(shape)
        return torch.Size(shape)

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        for part, _ in reversed(list(self._with_dims())):
            shape = part.inverse_shape(shape)
        return torch.Size(shape)

    def _with_dims(self) -> Iterator[tuple[Any, int]]:
        return zip(self.parts, self._outer_dims, strict=True)


def as_bijection(transforms: Transforms | Bijection | Iterable[Bijection]) -> Bijection:
    """Make one module with one pass each way of a transform, or of several in turn.

    Args:
        transforms: a transform or several, from the base to the data; of this library, of PyTorch
            or of Pyro.

    Raises:
        ValueError: if there is none, or one is not a bijective transform.

    Example:
        >>> import torch
        >>> from torch.distributions.transforms import AffineTransform, ExpTransform
        >>> x, both = torch.randn(5), as_bijection([AffineTransform(1.0, 2.0), ExpTransform()])
        >>> y, log_det = both.forward_and_log_det(x)
        >>> torch.allclose(y, (1 + 2 * x).exp()), torch.allclose(log_det, (2 * y).log())
        (True, True)
    """
    if isinstance(transforms, torchdist.ComposeTransform):
        transforms = transforms.parts
    if isinstance(transforms, torchdist.Transform | nn.Module):
        return _as_part(transforms)
    parts = [_as_part(transform) for transform in _listed(transforms)]
    if not parts:
        raise ValueError(
            "expected at least one transform, got none; without one, use the base itself"
        )
    return parts[0] if len(parts) == 1 else _Steps(parts)


def sum_last(tensor: torch.Tensor, dims: int) -> torch.Tensor:
    """Sum over the last ``dims`` dimensions.

    Args:
        tensor: a tensor of any shape.
        dims: how many dimensions.

    Example:
        >>> import torch
        >>> sum_last(torch.ones(2, 3, 4), 2).tolist()
        [12.0, 12.0]
    """
    return tensor.sum(tuple(range(-dims, 0))) if dims else tensor


def _listed(transforms: Any) -> list[Any]:
    if not isinstance(transforms, Iterable):
        raise ValueError(
            f"expected a transform or a list of transforms, got {type(transforms).__name__}"
        )
    return list(transforms)


def _as_part(transform: Any) -> Bijection:
    if isinstance(transform, nn.Module) and isinstance(transform, Bijection):
        ours: Bijection = transform
        return ours
    if not isinstance(transform, torchdist.Transform) or not transform.bijective:
        raise ValueError(
            f"expected a bijective transform, got {type(transform).__name__}; condition one of "
            "Pyro's conditional transforms first"
        )
    return _Foreign(transform)


def _with_dims(constraint: Constraint, event_dim: int) -> Constraint:
    extra = event_dim - constraint.event_dim
    return constraints.independent(constraint, extra) if extra else constraint
