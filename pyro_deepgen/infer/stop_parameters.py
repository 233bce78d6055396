# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Running a program with its parameters held constant, and its other inputs not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from .frozen_statistics import FrozenStatistics

_TENSOR: Any = torch.Tensor  # mypy takes its properties for plain booleans
_QUESTIONS = (_TENSOR.requires_grad.__get__, _TENSOR.is_leaf.__get__)
_DROPOUTS = {
    *("dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "native_dropout"),
    *("alpha_dropout", "alpha_dropout_", "feature_dropout", "feature_dropout_"),
    *("feature_alpha_dropout", "feature_alpha_dropout_"),
}
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}


class StopParameters(FrozenStatistics):
    """While active, no operation passes a gradient to a leaf tensor (a parameter).

    Values that were computed from parameters before keep their gradients. That is what the
    sticking-the-landing and doubly reparametrised estimators need: the guide's density is scored
    with its parameters stopped and its samples, and everything upstream of them, not.

    The guide runs a second time for this, and must compute the same densities again. Running
    statistics of normalisations stay as they are. Dropout would draw another mask and score
    another density than the one that was sampled, so it is refused.

    Raises:
        ValueError: when the program uses dropout in training mode.

    Example:
        >>> import torch
        >>> w, z = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True) * 3
        >>> with StopParameters():
        ...     y = (w * z).sum()
        >>> torch.autograd.grad(y, [w, z], allow_unused=True)
        (None, tensor([1., 1.]))
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func`` with the parameters among its arguments detached."""
        kwargs = dict(kwargs or {})
        if func in _QUESTIONS:
            return func(*args, **kwargs)
        if _drops(func, args, kwargs):
            raise ValueError(
                "this gradient estimator scores the guide a second time, and dropout in the guide "
                f'({func.__name__}) would then use another mask; use gradient="iwae" (or '
                "Trace_ELBO), or drop dropout from the guide's networks (p=0 or eval())"
            )
        stopped = map_tensors(args, _stop), map_tensors(kwargs, _stop)
        return super().__torch_function__(func, types, *stopped)


def check_stopped(value: torch.Tensor, draws: Iterable[torch.Tensor]) -> None:
    """Refuse a value that depends on a parameter other than through the draws.

    TorchScript, ``torch.autograd.Function`` and values computed before :class:`StopParameters`
    was active escape it; a gradient estimator would then be biased without a word.

    Args:
        value: the score of a site, of any shape.
        draws: the values through which gradients may flow.

    Raises:
        ValueError: naming the shape of the parameter.

    Example:
        >>> import torch
        >>> w = torch.ones(2, requires_grad=True)
        >>> z = w.clone()
        >>> check_stopped(z * 2, [z])
        >>> check_stopped(z * w, [z])
        Traceback (most recent call last):
            ...
        ValueError: the guide's density depends on a parameter of shape (2,) in a way that ...
    """
    seen = {draw.grad_fn for draw in draws}
    waiting = [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            raise ValueError(
                f"the guide's density depends on a parameter of shape {tuple(node.variable.shape)} "
                "in a way that this gradient estimator cannot stop: through TorchScript, a "
                "torch.autograd.Function, or a value computed before the guide runs. Compute it "
                'inside the guide with ordinary operations, or use gradient="iwae"'
            )
        waiting.extend(parent for parent, _ in node.next_functions)


def map_tensors(item: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Copy a structure of lists, tuples and dictionaries with its tensors changed.

    Args:
        item: the structure.
        change: what is done to each tensor.

    Example:
        >>> import torch
        >>> map_tensors((torch.ones(1), [2, {"a": torch.zeros(1)}]), lambda t: t + 1)
        (tensor([2.]), [2, {'a': tensor([1.])}])
    """
    if isinstance(item, torch.Tensor):
        return change(item)
    if isinstance(item, list | tuple):
        changed = [map_tensors(i, change) for i in item]
        return type(item)(*changed) if hasattr(item, "_fields") else type(item)(changed)
    if isinstance(item, dict):
        return {key: map_tensors(value, change) for key, value in item.items()}
    return item


def _stop(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach() if tensor.requires_grad and tensor.is_leaf else tensor


def _drops(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call draws a mask."""
    name = getattr(func, "__name__", "")
    if name in _DROPOUTS:
        probability = _argument(("p",), 1, args, kwargs, 0.5)
        return bool(probability) and _argument(("training", "train"), 2, args, kwargs, True)
    if name in _RECURRENT:
        # (..., dropout, train, ...), at a place that depends on whether sequences are packed.
        at = next((i for i, arg in enumerate(args) if isinstance(arg, float)), None)
        return at is not None and bool(args[at] and args[at + 1])
    if name == "multi_head_attention_forward":
        probability = _argument(("dropout_p",), 10, args, kwargs, 0.0)
        return bool(probability) and _argument(("training",), 13, args, kwargs, True)
    if name == "scaled_dot_product_attention":
        return bool(_argument(("dropout_p",), 4, args, kwargs, 0.0))
    if name == "rrelu":
        return bool(_argument(("training",), 3, args, kwargs, False))
    return False


def _argument(
    names: tuple[str, ...],
    position: int,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    default: Any,
) -> Any:
    for name in names:
        if name in kwargs:
            return kwargs[name]
    return args[position] if len(args) > position else default
