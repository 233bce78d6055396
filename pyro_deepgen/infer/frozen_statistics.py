# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Running a network without a trace in its running statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_NORMALISATIONS: dict[Callable[..., Any], tuple[str, bool]] = {
    functional.batch_norm: ("training", False),
    functional.instance_norm: ("use_input_stats", True),
}
_ARGUMENTS = ("input", "running_mean", "running_var", "weight", "bias")


class FrozenStatistics(TorchFunctionMode):
    """While active, batch and instance normalisation leave their running statistics as they are.

    They normalise by the batch as always in training mode. For programs that must run once more
    than the user asked for: each loss then updates the statistics once.

    Example:
        >>> import torch
        >>> norm, x = torch.nn.BatchNorm1d(2), torch.randn(8, 2) + 3
        >>> with FrozenStatistics():
        ...     y = norm(x)
        >>> norm.running_mean, norm.num_batches_tracked
        (tensor([0., 0.]), tensor(0))
        >>> torch.equal(norm(x), y)
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self._counted: list[tuple[torch.Tensor, Any]] = []

    def __exit__(self, *error: Any) -> None:
        """Count the batches back."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for counter, amount in self._counted:
            counter.sub_(amount)
        self._counted.clear()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func`` without the running statistics among its arguments."""
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.add_ and args[0].dtype is torch.long and args[0].dim() == 0:
            # Such a counter is how normalisations number the batches they have seen.
            self._counted.append((args[0], args[1]))
        if func in _NORMALISATIONS:
            flag, default = _NORMALISATIONS[func]
            kwargs.update(zip((*_ARGUMENTS, flag, "momentum", "eps"), args, strict=False))
            args = ()
            if kwargs.get(flag, default):
                kwargs["running_mean"] = kwargs["running_var"] = None
        return func(*args, **kwargs)
