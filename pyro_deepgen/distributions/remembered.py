# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A draw that can be scored again without inverting anything, while nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

import torch
from torch import nn
from torch._C import _functorch  # torch.func has no question "is a transform active?"
from torch._utils import _flatten_dense_tensors
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack


class RememberedDraw:
    """How to score one draw, until the draw or anything that it was made with changes.

    A stale score is worse than a slow one. So the memory counts only for the same tensor object,
    with the same version and values; with the same parameters and buffers of the module (the same
    objects, versions, values, ``requires_grad``); in the same mode of the module, of autograd and
    of autocast; and not at all under ``torch.func``, ``torch.compile``, ``torch.jit`` or inference
    mode. Versions alone do not tell: fused optimisers and compiled graphs change values without
    counting. While a program is recorded, draws are remembered within that recording only, and
    there versions do tell, since all that happens is seen by the recording.

    It refers weakly to the draw, and what it holds goes with the draw.

    Args:
        module: what made the draw.
        draw: the draw.
        score: gives the log-probability of the draw; with ``None``, all that is known is which
            tensor the draw is.

    Example:
        >>> import torch
        >>> module, draw = torch.nn.Linear(2, 2), torch.zeros(2)
        >>> memory = RememberedDraw(module, draw, lambda: torch.tensor(-1.0))
        >>> memory.holds(module, draw), memory.holds(module, draw.clone())
        (True, False)
        >>> _ = module.weight.data.mul_(2)
        >>> memory.holds(module, draw)
        False
    """

    score: Callable[[], torch.Tensor] | None

    def __init__(
        self, module: nn.Module, draw: torch.Tensor, score: Callable[[], torch.Tensor] | None
    ) -> None:
        myself = ref(self)

        def forget(_: object) -> None:
            memory = myself()
            if memory is not None:
                memory.score, memory._values, memory._tensors = None, [], []

        self._draw = ref(draw, forget)
        self.score = score
        if score is None:
            return
        self._tensors, self._training = _inside(module)
        self._marks = _marks(draw, self._tensors)
        self._modes = _modes()
        self._values = [] if get_proxy_mode() else _values([draw, *self._tensors])

    def is_of(self, value: torch.Tensor) -> bool:
        """Whether the value is the draw, changed or not."""
        return self._draw() is value

    def holds(self, module: nn.Module, value: torch.Tensor) -> bool:
        """Whether the score of the value is still the one remembered."""
        if self.score is None or not self.is_of(value) or not may_remember(value):
            return False
        tensors, training = _inside(module)
        return (
            _same(_modes(), self._modes)
            and _same(tensors, self._tensors)
            and training == self._training
            and _marks(value, tensors) == self._marks
            and (get_proxy_mode() is not None or self._values_are([value, *tensors]))
            # What hangs on the draw itself would miss its share of the gradient.
            and not (value.requires_grad and (value._backward_hooks or value.retains_grad))
        )

    def _values_are(self, tensors: list[torch.Tensor]) -> bool:
        values = _values(tensors)
        return len(values) == len(self._values) and all(map(torch.equal, values, self._values))


def may_remember(draw: torch.Tensor) -> bool:
    """Whether the surroundings let a draw be remembered, or a remembered one be used.

    Args:
        draw: the draw.

    Example:
        >>> import torch
        >>> may_remember(torch.zeros(2))
        True
        >>> with torch.inference_mode():
        ...     may_remember(torch.zeros(2))
        False
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() or draw.is_inference():
        return False
    if torch.is_inference_mode_enabled() or _functorch.maybe_current_level() is not None:
        return False
    if _get_current_dispatch_mode_stack() and get_proxy_mode() is None:
        return False  # something watches the operations, and values may be no real ones
    return not (draw.is_cuda and torch.cuda.is_current_stream_capturing())


def _inside(module: nn.Module) -> tuple[list[torch.Tensor], list[bool]]:
    """List the parameters and buffers of a module, and which of its parts are in training mode.

    Each draw asks, and ``Module.modules`` takes several times as long.
    """
    tensors: list[torch.Tensor | None] = []
    training: list[bool] = []
    parts = [module]
    seen = {id(module)}
    for part in parts:  # which grows
        training.append(part.training)
        tensors += part._parameters.values()
        tensors += part._buffers.values()
        for child in part._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                parts.append(child)
    return [tensor for tensor in tensors if tensor is not None], training


def _marks(draw: torch.Tensor, tensors: list[torch.Tensor]) -> list[Any]:
    """List what is cheap to compare."""
    kind = draw.device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    marks: list[Any] = [draw._version, torch.is_grad_enabled(), autocast]
    marks += [t._version for t in tensors]
    return marks + [t.requires_grad for t in tensors]


def _modes() -> list[Any]:
    """List the modes through which operations go: one may hold parameters constant, say."""
    return [get_proxy_mode(), *_get_current_function_mode_stack()]


def _values(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Copy the bits of tensors, as one tensor for each data type and device."""
    groups: dict[Any, list[torch.Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    with torch.no_grad():
        return [_bits(group) for group in groups.values()]


def _bits(group: list[torch.Tensor]) -> torch.Tensor:
    """Copy tensors into one, of whole numbers where it can be: they are quickest to compare."""
    alone = len(group) == 1  # then flattening would not copy
    flat = group[0].clone().reshape(-1) if alone else _flatten_dense_tensors(group)
    return flat if flat.numel() * flat.element_size() % 8 else flat.view(torch.int64)


def _same(ours: list[Any], others: list[Any]) -> bool:
    """Whether two lists hold the same objects."""
    return len(ours) == len(others) and all(a is b for a, b in zip(ours, others, strict=True))
