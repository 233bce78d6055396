# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's and Pyro's own transforms as parts of a flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Any

import torch
from torch import distributions as torchdist
from torch import nn
from torch.distributions.constraints import Constraint, dependent_property
from torch.distributions.transforms import _InverseTransform
from typing_extensions import Self

from .inverse import Inverse
from .shapes import check_context, check_event
from .transform import Transform


class Foreign(Transform):
    r"""A transform of PyTorch's or Pyro's that keeps no tensor between calls.

    Its tensors become buffers, or stay parameters, which move and are saved; a module stays the
    module that it is, and what it remembers of a call is dropped before and after the next.

    Args:
        transform: a bijective transform that is not the ``.inv`` of another.

    Example:
        >>> import torch
        >>> from torch.distributions.transforms import AffineTransform
        >>> scale = Foreign(AffineTransform(torch.zeros(2), torch.tensor([2.0, 3.0]), event_dim=1))
        >>> y, log_det = scale.forward_and_log_det(torch.ones(2))
        >>> y.tolist(), torch.allclose(log_det.exp(), torch.tensor(6.0))
        ([2.0, 3.0], True)
        >>> scale.double()(torch.ones(2, dtype=torch.float64)).dtype
        torch.float64
    """

    plain: torchdist.Transform

    def __init__(self, transform: torchdist.Transform) -> None:
        super().__init__()
        self.inside = nn.ModuleList()
        if isinstance(transform, nn.Module):
            self.plain = transform
        else:
            self.plain = _copy(transform)
            self.inside.extend(_modules(self.plain))
            for owner, name, path in _tensors(self.plain):
                tensor = getattr(owner, name)
                if isinstance(tensor, nn.Parameter):
                    self.register_parameter(path, tensor)
                else:
                    self.register_buffer(path, tensor)
        self._memories = [_memories(module) for module in self._modules_held()]
        self._event_dims = (transform.domain.event_dim, transform.codomain.event_dim)

    @dependent_property(is_discrete=False)
    def domain(self) -> Constraint:
        """The domain of the transform."""
        return self.plain.domain

    @dependent_property(is_discrete=False)
    def codomain(self) -> Constraint:
        """The codomain of the transform."""
        return self.plain.codomain

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Call the transform and ask it for its log-determinant."""
        check_event(self, "domain", x.shape, self._event_dims[0], None)
        check_context(self, context)
        self._forget()
        y = self.plain(x)
        log_det = self.plain.log_abs_det_jacobian(x, y)
        self._forget()
        return y, log_det

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Call the inverse and ask the transform for its log-determinant."""
        check_event(self, "codomain", y.shape, self._event_dims[1], None)
        check_context(self, context)
        self._forget()
        x = self.plain.inv(y)
        log_det = -self.plain.log_abs_det_jacobian(x, y)
        self._forget()
        return x, log_det

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape of the image of a tensor of a given shape."""
        return torch.Size(self.plain.forward_shape(torch.Size(shape)))

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape of the preimage of a tensor of a given shape."""
        return torch.Size(self.plain.inverse_shape(torch.Size(shape)))

    def _modules_held(self) -> list[nn.Module]:
        return [self.plain] if isinstance(self.plain, nn.Module) else list(self.inside)

    def _forget(self) -> None:
        """Drop what Pyro's modules remember of a call, which is stale after an optimiser's step."""
        for module, names in zip(self._modules_held(), self._memories, strict=True):
            for name in names:
                object.__setattr__(module, name, (None, None) if name == "_cached_x_y" else None)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        nn.Module._apply(self, fn, recurse)
        self._refresh()
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        nn.Module._load_from_state_dict(self, *args)
        self._refresh()

    def _refresh(self) -> None:
        """Let the transform use the tensors of now, and drop what it computed from those before."""
        if isinstance(self.plain, nn.Module):
            return
        held = {**self._buffers, **self._parameters}
        for owner, name, path in list(_tensors(self.plain)):
            if path in held:
                setattr(owner, name, held[path])
            else:
                delattr(owner, name)


def adapt(transform: torchdist.Transform) -> Transform:
    """Make any bijective transform one of this library's, if it is none yet.

    Args:
        transform: a transform of PyTorch's, Pyro's or this library's.

    Raises:
        ValueError: if it is not a bijective transform.

    Example:
        >>> import torch
        >>> from torch.distributions.transforms import SigmoidTransform
        >>> logit, x = adapt(SigmoidTransform().inv), torch.rand(5)
        >>> torch.allclose(logit(x), torch.logit(x))
        True
    """
    if isinstance(transform, Transform):
        return transform
    if not isinstance(transform, torchdist.Transform) or not transform.bijective:
        raise ValueError(
            f"expected a bijective transform, got {type(transform).__name__}; condition one of "
            "Pyro's conditional transforms first"
        )
    if isinstance(transform, _InverseTransform):  # it holds no parameters and cannot be copied
        return Inverse(adapt(transform.inv))
    return Foreign(transform)


def _memories(module: nn.Module) -> list[str]:
    """Name what one of Pyro's transforms remembers of its last call."""
    return [name for name in vars(module) if name.startswith("_cache") and name != "_cache_size"]


def _inner(transform: torchdist.Transform) -> Iterator[tuple[str, torchdist.Transform]]:
    """Yield the transforms inside one of PyTorch's, with a path to each."""
    for name in ("base_transform", "parts", "transforms"):
        inside = vars(transform).get(name, [])
        for i, inner in enumerate(inside if isinstance(inside, Sequence) else [inside]):
            yield f"{name}_{i}", inner


def _modules(transform: torchdist.Transform) -> Iterator[nn.Module]:
    """Yield the modules inside a transform that is none."""
    for _, inner in _inner(transform):
        if isinstance(inner, nn.Module):
            yield inner
        else:
            yield from _modules(inner)


def _copy(transform: torchdist.Transform) -> torchdist.Transform:
    """Copy a transform, and those inside it, without cache and inverse; modules stay themselves."""
    if isinstance(transform, nn.Module):
        return transform
    new = copy(transform)
    new._cache_size, new._inv = 0, None
    for name in [name for name in vars(new) if name.startswith("_cached")]:
        delattr(new, name)
    for name in ("base_transform", "parts", "transforms"):
        inside = vars(new).get(name)
        if isinstance(inside, Sequence):
            setattr(new, name, [_copy(inner) for inner in inside])
        elif inside is not None:
            setattr(new, name, _copy(inside))
    return new


def _tensors(
    transform: torchdist.Transform, path: str = ""
) -> Iterator[tuple[torchdist.Transform, str, str]]:
    """Yield the place of every tensor in a transform: its owner, its name there, and a path."""
    for name, value in vars(transform).items():
        if isinstance(value, torch.Tensor):
            yield transform, name, path + name
    for step, inner in _inner(transform):
        yield from _tensors(inner, f"{path}{step}_")
