# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A function as one graph for its value and one for its gradients, to be called in a loop."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeAlias

import pyro
import torch
from torch import nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._pytree import tree_flatten, tree_unflatten

from .compiler import compiled
from .graph import Graph, trace
from .halves import halves
from .modules import modules_behind
from .undo import without_trace

Run: TypeAlias = Callable[..., Sequence[Any]]
# They keep their results where the next call writes, and a loop needs those of all its calls.
_REPLAYED = ("reduce-overhead", "max-autotune")


class CompiledFunction:
    """A function of tensors whose operations, and those of its gradient, are compiled graphs.

    The function, which may contain Pyro statements, runs in Python while its graphs are recorded,
    at the first call, and never again. A call gives tensors that autograd differentiates: by the
    arguments, and by every parameter that the function reaches. So a long program can be a short
    function in a loop, of which one turn is recorded and compiled, not all of them: a chunk of a
    time series, for instance, which takes the state and gives the state.

    The gradient is recorded from the function's own, so ``detach``, ``torch.no_grad`` and custom
    gradients mean what they say. Random draws are fresh at every call, and the gradient is that of
    the draws made. What the function reads that is not a tensor is frozen at the recording; what
    varies must be an argument, a parameter, or a tensor that is changed in place. Arguments must
    not be changed in place.

    Graphs are kept for each kind of arguments (shape, dtype, device, ``requires_grad``), with and
    without gradients, and for each state of ``modules`` (training or evaluation, which tensors
    they hold). There are no second derivatives.

    Args:
        function: takes tensors, or tuples, lists and dicts of them, and gives the same.
        modules: modules that the function uses, whose state is watched, beyond those that it holds
            (:func:`modules_behind`).
        backend: backend of ``torch.compile``; ``None`` runs the recorded operations as they are.
        mode: mode of ``torch.compile``, none that replays CUDA graphs.
        max_graphs: how many recordings are kept; the one that was not used for longest goes first.

    Raises:
        ValueError: if ``max_graphs < 1``, or for a mode that replays CUDA graphs; at a call, if an
            argument or a result is no tensor, or if the function reaches the result of
            differentiable operations that is not one of its arguments.
        RuntimeError: at ``create_graph=True``.
        TracingError: at a call, if Python needs the value of a tensor.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> decay = torch.nn.Parameter(torch.tensor(0.5))
        >>> def walk(z):
        ...     for t in range(3):
        ...         z = pyro.sample(f"z_{t}", dist.Normal(decay * z, 0.1))
        ...     return z
        >>> chunk = CompiledFunction(walk, backend=None)
        >>> start = torch.ones(4, requires_grad=True)
        >>> chunk(chunk(start)).sum().backward()
        >>> torch.allclose(start.grad, decay.detach() ** 6)
        True
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        modules: Sequence[nn.Module] = (),
        backend: str | None = "inductor",
        mode: str | None = None,
        max_graphs: int = 8,
    ) -> None:
        if max_graphs < 1:
            raise ValueError(f"expected max_graphs of 1 or more, got {max_graphs}")
        if mode in _REPLAYED:
            raise ValueError(
                f"expected a mode that keeps the results of each call, got {mode!r}, which replays "
                "CUDA graphs; leave it out, or use 'max-autotune-no-cudagraphs'"
            )
        self.function, self.backend, self.mode = function, backend, mode
        self.modules = [*modules, *modules_behind(function)]
        self.max_graphs = max_graphs
        self._recordings: list[_Recording] = []  # the one that was used last comes first

    @property
    def num_graphs(self) -> int:
        """How many recordings are kept now."""
        return len(self._recordings)

    def __call__(self, *args: Any) -> Any:
        """Run the operations on new arguments."""
        tensors, spec = tree_flatten(args)
        for tensor in tensors:
            if not isinstance(tensor, torch.Tensor):
                raise ValueError(
                    f"expected tensors, got {tensor!r}, which would be frozen at the recording: "
                    "pass torch.as_tensor of it, or keep it inside the function"
                )
        # A layout of its own, such as that of an expanded first state, would cost its own graph.
        tensors = [tensor.contiguous() for tensor in tensors]
        key = (spec, torch.is_grad_enabled(), torch.get_default_dtype(), *map(_kind, tensors))
        key = (*key, *self._look())
        recording = self._find(key)
        if recording is None:
            recording = self._record(key, tensors, spec)
            self._recordings = [recording, *self._recordings][: self.max_graphs]
        given = [*recording.captured, *tensors]
        if recording.backward is None:
            with torch.no_grad():
                results = recording.run(given)
        else:
            differentiable: Any = _Differentiable  # PyTorch's apply carries no annotations
            results = differentiable.apply(recording, *given)
        return tree_unflatten(list(results), recording.spec)

    def _look(self) -> Iterator[Hashable]:
        for top in self.modules:
            for module in top.modules():
                yield module.training
                yield tuple(map(id, module._parameters.values()))
                yield tuple(map(id, module._buffers.values()))
                yield tuple(map(id, module._modules.values()))

    def _find(self, key: Hashable) -> _Recording | None:
        for place, recording in enumerate(self._recordings):
            if recording.key == key and recording.holds():
                if place:
                    self._recordings.insert(0, self._recordings.pop(place))
                return recording
        return None

    def _record(self, key: Hashable, tensors: list[torch.Tensor], arguments: Any) -> _Recording:
        with without_trace():  # parameters that appear at their first use do so now
            values, spec = tree_flatten(self.function(*tree_unflatten(tensors, arguments)))
        if wrong := [
            type(value).__name__ for value in values if not isinstance(value, torch.Tensor)
        ]:
            raise ValueError(f"expected a function that gives tensors, got {wrong} among them")

        def outputs(*given: torch.Tensor) -> list[torch.Tensor]:
            found: list[torch.Tensor]
            found, _ = tree_flatten(self.function(*tree_unflatten(list(given), arguments)))
            return found

        graph = trace(outputs, tensors)
        varied = [i for i, value in enumerate(values) if value.requires_grad]
        if not varied:
            run = self._compile(graph.module)
            return _Recording(key, graph, spec, run, None, [], [])
        if any(t.requires_grad and not t.is_leaf for t in graph.captured):
            shapes = [tuple(t.shape) for t in graph.captured if not t.is_leaf and t.requires_grad]
            raise ValueError(
                "expected a function of its arguments and of parameters, but it also reaches "
                f"results of differentiable operations, of shapes {shapes}: they are new at every "
                "call and must be arguments"
            )
        leaves = [t for t in graph.captured if t.requires_grad]
        before: set[str] = set()

        def joint(*given: torch.Tensor) -> list[Any]:
            inputs, tangents = given[: len(tensors)], given[len(tensors) :]
            found = outputs(*inputs)
            recorder: Any = get_proxy_mode()
            before.update(node.name for node in recorder.tracer.graph.nodes)
            by = [*leaves, *(t for t in inputs if t.requires_grad)]
            gradients = torch.autograd.grad(
                [found[i] for i in varied], by, tangents, allow_unused=True
            )
            return [*found, *gradients]

        tangents = [
            torch.zeros(values[i].shape, dtype=values[i].dtype, device=values[i].device)
            for i in varied
        ]
        graph = trace(joint, [*tensors, *tangents])
        forward, backward, kept = halves(
            graph.module, before, len(graph.captured) + len(tensors), len(values)
        )
        given = [*graph.captured, *tensors]
        places = {id(t): i for i, t in enumerate(graph.captured)}
        inputs = [i for i, t in enumerate(given) if i >= len(places) and t.requires_grad]
        return _Recording(
            key,
            graph,
            spec,
            self._compile(forward),
            self._compile(backward),
            kept,
            [*(places[id(t)] for t in leaves), *inputs],
            frozenset(varied),
        )

    def _compile(self, module: GraphModule) -> Run:
        return module if self.backend is None else _Compiled(module, self.backend, self.mode)


class _Compiled:
    """Operations that are compiled when they are first called.

    Not earlier: the compiler chooses the layout in which the first half keeps what the second
    half needs.
    """

    def __init__(self, module: GraphModule, backend: str, mode: str | None) -> None:
        self._module, self._backend, self._mode = module, backend, mode
        self._run: Run | None = None

    @torch.no_grad()
    def __call__(self, *given: torch.Tensor) -> Sequence[Any]:
        if self._run is None:
            self._run = compiled(self._module, given, self._backend, self._mode)
        return self._run(*given)


class _Recording:
    """Two graphs, and the state that they were made for.

    Args:
        key: what must be the same for the graphs to be used again.
        graph: what was recorded, with the tensors that the function reaches without being given
            them.
        spec: the structure of the results.
        forward: gives, from ``(*captured, *arguments)``, the results, and what else the gradient
            needs.
        backward: gives the gradients, from what it needs and the gradients of the results; or
            ``None`` where there are none.
        kept: what the gradient needs, counted in ``(*captured, *arguments)`` and then in what
            ``forward`` gives.
        places: of which of ``(*captured, *arguments)`` these are the gradients.
        varied: which results have a gradient.
    """

    def __init__(
        self,
        key: Hashable,
        graph: Graph,
        spec: Any,
        forward: Run,
        backward: Run | None,
        kept: Sequence[int],
        places: Sequence[int],
        varied: frozenset[int] = frozenset(),
    ) -> None:
        self.key, self.graph, self.captured, self.spec = key, graph, graph.captured, spec
        self.forward, self.backward = forward, backward
        self.kept, self.places, self.varied = kept, places, varied
        self._kinds = list(map(_kind, graph.captured))
        held = set(map(id, graph.captured))
        stored = pyro.get_param_store().named_parameters()
        self._stored = [(name, tensor) for name, tensor in stored if id(tensor) in held]

    def holds(self) -> bool:
        """Whether all that the function reaches is still what it was, but for the values."""
        stored = dict(pyro.get_param_store().named_parameters()) if self._stored else {}
        return (
            self._kinds == list(map(_kind, self.captured))
            and self.graph.reads_hold()
            and all(stored.get(name) is tensor for name, tensor in self._stored)
        )

    def run(self, given: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """The first graph's results."""
        # Aliases: an argument that is given twice is no other kind of argument.
        size = len(self.captured)
        results: Sequence[torch.Tensor] = self.forward(
            *given[:size], *(tensor.detach() for tensor in given[size:])
        )
        return results


class _Differentiable(torch.autograd.Function):
    """One call of a recording, as one operation of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, recording: _Recording, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the operations, and keep what the gradient needs."""
        results = recording.run(given)
        size = recording.spec.num_leaves
        ctx.recording, ctx.size = recording, 1 + len(given)
        pool = [*given, *results]
        ctx.save_for_backward(*(pool[i] for i in recording.kept))
        outputs = tuple(results[:size])
        ctx.mark_non_differentiable(
            *(t for i, t in enumerate(outputs) if i not in recording.varied)
        )
        return outputs

    @staticmethod
    def backward(ctx: Any, *tangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Run the operations of the gradient."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the gradient of a CompiledFunction has no recorded gradient: leave out "
                "create_graph=True, or call the function itself"
            )
        recording: _Recording = ctx.recording
        # A gradient that was expanded from a scalar would be another kind of input.
        given = [t.contiguous() for i, t in enumerate(tangents) if i in recording.varied]
        kept = [t.detach() for t in ctx.saved_tensors]  # the same may be kept twice
        assert recording.backward is not None
        gradients = recording.backward(*kept, *(t.detach() for t in given))
        placed: list[torch.Tensor | None] = [None] * ctx.size
        for place, gradient in zip(recording.places, gradients, strict=True):
            placed[1 + place] = gradient
        return tuple(placed)


def _kind(tensor: torch.Tensor) -> Hashable:
    return tuple(tensor.shape), tensor.dtype, tensor.device, tensor.requires_grad
