# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A loss and its gradients as compiled graphs, one for each kind of argument."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import nn

from ..tracing import Graph, device_only, trace, without_trace
from .recorded_update import RecordedUpdate
from .recording import Call, Recording, Uses

Loss = Callable[..., torch.Tensor]
Named = dict[str, torch.Tensor]


class CompiledLoss:
    """Evaluates a loss of Pyro programs, and its gradients, through compiled graphs.

    For a new kind of arguments the loss is run once as it is, to make parameters that appear on
    first use, and once more to be recorded; then its graph is compiled (about 20 seconds for a
    small VAE). The kind of the arguments is the shape, layout, dtype and device of tensors, and the
    value of all else but floating-point numbers, which are inputs of the graph as tensors are (an
    object without a value of its own, which compares by identity, is known by that alone). A
    new graph is made, too, when a module that the loss uses changes between training and
    evaluation or gets another parameter or buffer, when a tensor that the loss uses changes its
    shape, dtype or ``requires_grad``, and when Pyro's store gets another tensor for a parameter.

    Args:
        loss: function whose value is a scalar tensor; may contain anything that
            :func:`pyro_deepgen.tracing.trace` can record.
        modules: modules that the loss uses; others are found when they are called.
        max_graphs: how many graphs are kept; the one that was not used for longest goes first.
        backend: backend of ``torch.compile``, or ``None`` to run the recorded operations as they
            are.
        mode: mode of ``torch.compile``. On CUDA, kernels are captured and replayed in any mode.

    Raises:
        ValueError: if ``max_graphs < 1``; at a call, if the loss is no scalar tensor, if an
            argument is a NumPy array, or if the loss replaces a buffer of a module.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> compiled = CompiledLoss(lambda x: (weight * x).sum(), [], backend=None)
        >>> loss, gradients = compiled.gradients([weight], torch.tensor([3.0, 4.0]))
        >>> float(loss), gradients[0].tolist()
        (11.0, [3.0, 4.0])
    """

    def __init__(
        self,
        loss: Loss,
        modules: Sequence[nn.Module],
        *,
        max_graphs: int = 8,
        backend: str | None = "inductor",
        mode: str | None = None,
    ) -> None:
        if max_graphs < 1:
            raise ValueError(f"expected max_graphs of 1 or more, got {max_graphs}")
        self.loss = loss
        self.modules = modules
        self.max_graphs = max_graphs
        self.backend, self.mode = backend, mode
        self.num_recordings = 0
        self._recordings: list[Recording] = []  # the one that was used last comes first

    @property
    def num_graphs(self) -> int:
        """How many graphs are kept now."""
        return len(self._recordings)

    def __getstate__(self) -> dict[str, Any]:
        """Copies record anew: a graph is for the tensors that it was recorded with."""
        return {**self.__dict__, "_recordings": []}

    def gradients(
        self, parameters: Sequence[torch.Tensor], *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """The loss and its gradient for each parameter (``None`` where there is none)."""
        call = Call(args, kwargs)
        purpose = ("gradients", *map(id, parameters))
        recording = self.find(purpose, call)
        if recording is None:
            leaves = {str(i): p for i, p in enumerate(parameters) if p.requires_grad}
            recording = self.record(purpose, call, self.prepare(call), leaves)
        loss, *gradients = recording.graph(*call.tensors)
        given = dict(zip(recording.parameters, gradients, strict=True))
        return loss, [given.get(str(i)) for i in range(len(parameters))]

    def value(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The loss alone."""
        call = Call(args, kwargs)
        recording = self.find("value", call)
        if recording is None:
            recording = self.record("value", call, self.prepare(call), {})
        return recording.graph(*call.tensors)[0]

    def find(self, purpose: Hashable, call: Call) -> Recording | None:
        """The recording that is good for a call, if there is one."""
        key = (purpose, call.key)
        for place, recording in enumerate(self._recordings):
            if recording.key == key and recording.holds():
                if place:
                    self._recordings.insert(0, self._recordings.pop(place))
                return recording
        return None

    def prepare(self, call: Call) -> Uses:
        """Run the loss as it is, which makes parameters, and note what it uses.

        It runs twice: in its first run an autoguide reads parameters that it replaces before the
        second.
        """
        uses = Uses(self.modules)
        args, kwargs = call.with_tensors(call.tensors)
        with without_trace(), torch.enable_grad():
            self.loss(*args, **kwargs)
        with without_trace(), uses, torch.enable_grad():
            value = self.loss(*args, **kwargs)
        if not isinstance(value, torch.Tensor) or value.dim():
            got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(f"expected a loss that is a scalar tensor, got {got}")
        return uses

    def record(
        self,
        purpose: Hashable,
        call: Call,
        uses: Uses,
        parameters: Named,
        update: RecordedUpdate | None = None,
        *,
        keep: bool = True,
    ) -> Recording:
        """Record the loss and its gradients.

        Args:
            purpose: tells recordings for the same call but other parameters apart.
            call: the call.
            uses: what :meth:`prepare` gave.
            parameters: what to differentiate by; the graph's outputs are the loss and these
                gradients.
            update: steps within the graph, whose inputs are then learning rates and arguments, and
                whose output the loss alone.
            keep: compile the recording and keep it; otherwise it is for one use.
        """
        modules = uses.modules()
        buffers = [dict(module._buffers) for module in modules]
        graph = self._trace(call, list(parameters.values()), update)
        for module, before in zip(modules, buffers, strict=True):
            changed = [n for n, b in module._buffers.items() if b is not before.get(n)]
            if changed:
                module._buffers.update(before)
                raise ValueError(
                    f"the loss gives {type(module).__name__} new tensors for its buffers "
                    f"{changed}, which a graph cannot: change them in place, as with copy_"
                )
        recording = Recording((purpose, call.key), graph, parameters, modules, update)
        if keep:
            self._keep(recording, call)
        return recording

    def compare(self, recording: Recording, call: Call) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of the recorded operations, and of the program, for the same random draws."""
        with without_trace():
            ours = recording.graph.interpret(*recording.inputs(call))[0]
        args, kwargs = call.with_tensors(call.tensors)
        with without_trace(), device_only(), torch.enable_grad():
            eager = self.loss(*args, **kwargs).detach()
        return ours, eager

    def _trace(
        self, call: Call, leaves: list[torch.Tensor], update: RecordedUpdate | None
    ) -> Graph:
        rates = [] if update is None else update.rates

        def function(*tensors: torch.Tensor) -> list[Any]:
            with torch.enable_grad():
                args, kwargs = call.with_tensors(tensors[len(rates) :])
                loss = self.loss(*args, **kwargs)
            if not (leaves and loss.requires_grad):
                return [loss.detach(), *(None for _ in leaves)]
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
            if update is None:
                return [loss.detach(), *gradients]
            found = zip(leaves, gradients, strict=True)
            if update.zero_missing:
                found = ((p, torch.zeros_like(p) if g is None else g) for p, g in found)  # type: ignore[assignment]
            given = {id(leaf): g for leaf, g in found if g is not None}
            update.apply(given, tensors[: len(rates)])
            return [loss.detach()]

        return trace(function, [*rates, *call.tensors])

    def _keep(self, recording: Recording, call: Call) -> None:
        if self.backend is not None:
            recording.graph.compile(recording.inputs(call), self.backend, self.mode)
        self._recordings = [recording, *self._recordings][: self.max_graphs]
        self.num_recordings += 1
        if self.num_recordings == 4 * self.max_graphs:
            warnings.warn(
                f"the loss has been recorded {self.num_recordings} times: an argument that is "
                "neither a tensor nor a float, or the shape of a tensor, changes again and again; "
                "pass it as a tensor or a float, or train without compiling (or the program reads "
                "the value of a tensor that changes, with .item() or if)",
                stacklevel=2,
            )
