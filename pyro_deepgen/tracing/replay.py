# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""All kernels of a graph as one launch on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

_WARM_UP = 3


class Replay:
    """Runs a function of CUDA tensors by replaying its kernels, captured once.

    The processor then launches one thing a call instead of one for each kernel. Random draws are
    fresh in every replay, and follow ``torch.manual_seed``.

    Args:
        run: takes tensors, gives tensors; waits for nothing, and makes no tensor on the CPU.
        captured: its first arguments, always the same tensors; may be changed in place by it.
        inputs: examples of its other arguments; a call copies what it is given to their place.

    Example:
        >>> import torch
        >>> Replay.suits([torch.zeros(3)])
        False
    """

    def __init__(
        self,
        run: Callable[..., Sequence[torch.Tensor]],
        captured: Sequence[torch.Tensor],
        inputs: Sequence[torch.Tensor],
    ) -> None:
        self._inputs = [t.detach().clone() for t in inputs]
        arguments = [*captured, *self._inputs]
        device = next(t.device for t in arguments if t.is_cuda)
        before = [t.detach().clone() for t in captured]
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream), torch.no_grad(), torch.random.fork_rng([device]):
            for _ in range(_WARM_UP):
                run(*arguments)
            for tensor, value in zip(captured, before, strict=True):
                tensor.detach().copy_(value)
        torch.cuda.current_stream(device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(self._graph):
            self._outputs = run(*arguments)

    @staticmethod
    def suits(tensors: Sequence[torch.Tensor]) -> bool:
        """Whether all tensors are on one CUDA device."""
        devices = {t.device for t in tensors}
        return len(devices) == 1 and next(iter(devices)).type == "cuda"

    def __call__(self, *inputs: torch.Tensor) -> list[Any]:
        """Run on new inputs; the outputs are new tensors."""
        for place, given in zip(self._inputs, inputs, strict=True):
            if given is not place:
                place.copy_(given)
        self._graph.replay()
        return [None if t is None else t.clone() for t in self._outputs]
