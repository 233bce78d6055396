# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Recording the operations of a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from .compiler import compiled
from .device_only import device_only
from .refusal import Readings, refusal
from .repeat import Turn, recorded_turns
from .replay import Replay
from .undo import without_trace

aten = torch.ops.aten


class Graph:
    """Tensor operations that were recorded once, with everything they read as an input.

    Args:
        module: the operations, a function of ``(*captured, *inputs)``.
        captured: the tensors that the program reached without being given them (parameters,
            buffers, constants), by reference: the graph sees what an optimiser changes in place.
        readings: those of them whose values Python has read, with copies.
        turns: steps that the graph takes many times.

    Example:
        >>> import torch
        >>> scale = torch.nn.Parameter(torch.tensor(2.0))
        >>> graph = trace(lambda x: [scale * x], [torch.ones(3)])
        >>> with torch.no_grad():
        ...     _ = scale.fill_(5.0)
        >>> graph(torch.ones(3))[0].tolist()
        [5.0, 5.0, 5.0]
    """

    def __init__(
        self,
        module: GraphModule,
        captured: list[torch.Tensor],
        readings: Readings,
        turns: Sequence[Turn] = (),
    ) -> None:
        self.module, self.captured, self._readings = module, captured, readings
        self._turns = turns
        self._run: Callable[..., Any] = module
        self._replay: Replay | None = None

    @property
    def readings(self) -> Readings:
        """Tensors whose values Python has read, with copies."""
        return self._readings

    def reads_hold(self) -> bool:
        """Whether the tensors whose values Python has read still have these values."""
        return all(torch.equal(tensor, copy) for tensor, copy in self._readings)

    @torch.no_grad()
    def compile(
        self,
        inputs: Sequence[torch.Tensor],
        backend: str = "inductor",
        mode: str | None = None,
        checks: bool = True,
    ) -> None:
        """Compile the operations, now.

        On CUDA the compiled kernels are captured and replayed as one launch.

        Args:
            inputs: inputs to compile for.
            backend: backend of ``torch.compile``.
            mode: mode of ``torch.compile``, for ``backend="inductor"`` only.
            checks: whether each call checks the shapes of all tensors, and tells autograd what it
                changes in place, which takes as long as a small graph. Without, nobody may change
                the shape of a captured tensor, and the versions of tensors do not move.

        Raises:
            RuntimeError: if the compiler needs a C++ compiler and finds none.
        """
        arguments = [*self.captured, *inputs]
        self._run = compiled(self.module, arguments, backend, mode, checks)
        if Replay.suits(arguments):
            self._replay = Replay(self._run, self.captured, inputs)

    def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Run the operations on new inputs of the same shapes."""
        if torch.is_grad_enabled():  # the look takes less time than the switch
            with torch.no_grad():
                return self(*inputs)
        if self._replay is not None:
            return self._replay(*inputs)
        outputs: list[torch.Tensor] = self._run(*self.captured, *inputs)
        return outputs

    def on(self, *inputs: torch.Tensor) -> Callable[[], list[torch.Tensor]]:
        """Run the operations on these inputs at each call, which must be where gradients are off.

        The tensors may change in place between calls.
        """
        if self._replay is not None:
            return partial(self._replay, *inputs)
        return partial(self._run, *self.captured, *inputs)

    @torch.no_grad()
    def interpret(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Run the operations one by one, as recorded, also where they are compiled."""
        outputs: list[torch.Tensor] = self.module(*self.captured, *inputs)
        return outputs


def trace(function: Callable[..., list[torch.Tensor]], inputs: Sequence[torch.Tensor]) -> Graph:
    """Record the operations of a function of tensors that contains Pyro statements.

    Pyro's handlers, and all other Python, run now and never again: what the program reads that is
    not a tensor is frozen. The recording leaves no trace: random streams and tensors that the
    program changes in place (running statistics) are put back.

    Args:
        function: takes tensors like ``inputs``, gives a list of tensors; may call
            ``torch.autograd.grad``.
        inputs: example inputs; their shapes and dtypes are those of the graph.

    Returns:
        The graph.

    Raises:
        TracingError: if Python needs the value of a tensor, naming the line and the last site.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def draw(x):
        ...     return [pyro.sample("z", dist.Normal(x, 1.0))]
        >>> graph = trace(draw, [torch.zeros(3)])
        >>> bool((graph(torch.zeros(3))[0] == graph(torch.zeros(3))[0]).any())
        False
    """
    # Aliases, so that a tensor that is given twice, or that the program also reaches by itself, is
    # told apart from the input.
    examples = [t.detach().requires_grad_(t.requires_grad) for t in inputs]
    with without_trace() as undo, device_only(), refusal(undo.has) as readings:
        undo.add(examples)
        with recorded_turns() as turns:
            module = make_fx(function)(*examples)
    for turn in turns:
        readings += turn.readings
    return Graph(module, _lift_captured(module), readings, turns)


def _lift_captured(module: GraphModule) -> list[torch.Tensor]:
    """Turn the attributes that a graph reads into its first inputs, and its numbers into numbers.

    A number that the program made into a tensor stays a constant: as an input it would keep the
    compiler from folding it, and a graph of another device from being replayed.
    """
    graph = module.graph
    last = None  # the first node may itself be one that goes
    captured: dict[int, torch.Tensor] = {}
    inputs: dict[int, Any] = {}
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        tensor = getattr(module, str(node.target))
        literal = all(user.target is aten.lift_fresh_copy.default for user in node.users)
        if literal and tensor.dim() == 0 and not tensor.is_complex():
            options = {"dtype": tensor.dtype, "device": tensor.device}
            for user in list(node.users):
                with graph.inserting_before(user):
                    number = graph.call_function(aten.full.default, ([], tensor.item()), options)
                user.replace_all_uses_with(number)
                graph.erase_node(user)
        elif id(tensor) not in captured:
            captured[id(tensor)] = tensor
            first = next(iter(graph.nodes))
            with graph.inserting_after(last) if last else graph.inserting_before(first):
                last = graph.placeholder(f"captured_{len(captured)}")
            inputs[id(tensor)] = last
            inputs[id(tensor)].meta["val"] = tensor
        if node.users:
            node.replace_all_uses_with(inputs[id(tensor)])
        graph.erase_node(node)
    graph.lint()
    module.recompile()
    return list(captured.values())
