# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The mean loss of a batch and its gradient: by the program, or by a graph recorded from it."""

import time

import torch
from torch import Tensor, nn

from ..infer import CompiledLoss
from ..tracing import TracingError
from .evaluation import require_scalar
from .history import History
from .progress import Progress

RECORDED = "recorded"
"""What stands for a graph that runs as it was recorded, without a compiler."""


def chosen(compile: object) -> str | None:
    """Return the backend that `compile` stands for, ``"recorded"``, or None for the program.

    Raises:
        ValueError: if it stands for none.
    """
    if isinstance(compile, bool):
        return "inductor" if compile else None
    if not isinstance(compile, str):
        raise ValueError(
            "expected compile to be True, False or the name of a backend of torch.compile, got "
            f"{compile!r}"
        )
    if compile not in (RECORDED, "inductor"):
        known = torch.compiler.list_backends(exclude_tags=())
        if compile not in known:
            raise ValueError(
                f"expected compile to be True, False, {RECORDED!r} or a backend of torch.compile "
                f"({', '.join(known)}), got {compile!r}"
            )
    return compile


class ProgramGradient:
    """Runs the loss as it is.

    Args:
        loss: the loss.
    """

    def __init__(self, loss: nn.Module) -> None:
        self.loss = loss

    def __call__(self, tensors: tuple[Tensor, ...], count: int | Tensor) -> Tensor:
        """Set the gradients of ``loss(*tensors) / count`` and return its value."""
        mean = require_scalar(self.loss(*tensors)) / count
        if mean.requires_grad:
            mean.backward()
        return mean.detach()


class GraphGradient:
    """Runs graphs of the loss, one for each shape of a batch.

    Args:
        loss: the loss.
        parameters: what to differentiate by.
        backend: backend of ``torch.compile``, or ``"recorded"``.
        bar: says when a graph is being made.
        history: keeps the time that graphs take, their first runs included.
    """

    def __init__(
        self,
        loss: nn.Module,
        parameters: list[nn.Parameter],
        backend: str,
        bar: Progress,
        history: History,
    ) -> None:
        self.loss = loss
        self.parameters = parameters
        self.bar, self.history = bar, history
        self.doing = "recording" if backend == RECORDED else "compiling"
        self.busy = False
        self.compiled = CompiledLoss(
            self._program, [loss], backend=None if backend == RECORDED else backend
        )

    def _program(self, *tensors: Tensor) -> Tensor:
        # This Python runs only while a graph is made of it.
        if not self.busy:
            self.busy = True
            self.bar.pause(self.doing)
        return require_scalar(self.loss(*tensors))

    def __call__(self, tensors: tuple[Tensor, ...], count: int | Tensor) -> Tensor:
        """Set the gradients of ``loss(*tensors) / count`` and return its value.

        Raises:
            TracingError: if the loss is no graph.
        """
        begun = time.monotonic()
        self.busy = False
        try:
            value, gradients = self.compiled.gradients(self.parameters, *tensors)
        except TracingError as error:
            raise TracingError(f"{error}; fit trains it as it is with compile=False") from error
        if self.busy:
            seconds = time.monotonic() - begun
            self.history.compile_seconds += seconds
            self.bar.unpause(seconds)
        reached = [(p, g) for p, g in zip(self.parameters, gradients, strict=True) if g is not None]
        # New tensors: two outputs of a graph may be one tensor, or overwritten by its next run.
        means = torch._foreach_div([g for _, g in reached], count) if reached else ()
        for (parameter, _), mean in zip(reached, means, strict=True):
            if mean.stride() != parameter.stride():
                # As backward() does: LBFGS, for one, asks for views of the gradients.
                mean = torch.empty_like(parameter).copy_(mean)
            parameter.grad = mean
        return value / count
