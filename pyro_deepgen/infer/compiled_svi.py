# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Stochastic variational inference at the speed of compiled code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.infer import ELBO
from pyro.optim import PyroOptim
from torch.optim import Optimizer

from ..tracing import modules_behind
from .compiled_loss import CompiledLoss, Named
from .recorded_update import RecordedUpdate, optimizers_of
from .recording import Call, Recording, own_memory, unique_names
from .traces import Program


class CompiledSVI:
    """``pyro.infer.SVI`` whose step is one compiled graph: loss, gradients and optimiser.

    Pyro's handlers run in Python while the graph is recorded, at the first steps, and never again.
    Random draws are fresh at every step, and ``torch.manual_seed`` reproduces a run.

    PyTorch's SGD, Adam, AdamW, Adamax, NAdam, RAdam, RMSprop, Rprop, Adagrad, Adadelta and ASGD,
    alone, in ``pyro.optim`` or under a scheduler, are part of the graph from the second step on:
    their first makes what they remember. Learning rates are inputs of the graph. Any other
    optimiser, LBFGS and Pyro's ``ClippedAdam`` included, and any with hooks, with ``pyro.optim``'s
    clipping or with a schedule of its momentum, steps outside, with the gradients of the graph.

    Pyro's validation and warnings, and hooks on tensors, run while a step is recorded only. What
    the model reads that is not a tensor is frozen at the recording: an attribute that is a number,
    ``random.random()``, the length of a list. (A tensor of the model whose value Python reads, as
    in ``if self.started:``, is watched: another value is recorded anew.) Pass such things as
    arguments (a change of an argument is seen, and a floating-point one costs no new graph), keep
    them as tensors and change these in place, or let ``check_every`` compare with Pyro's own loss.
    Python control flow on a sampled value cannot be recorded; the error names the line and the
    site, and ``pyro.infer.SVI`` is the way there.

    Args:
        model: a model.
        guide: its guide.
        optim: an optimiser of ``pyro.optim`` (over Pyro's parameter store, as for ``SVI``), or one
            of ``torch.optim`` over the parameters of model and guide (with
            ``pyro.settings.set(module_local_params=True)``).
        loss: an ELBO with ``differentiable_loss``: Pyro's ``Trace_ELBO``, ``TraceMeanField_ELBO``
            and ``TraceEnum_ELBO``, and all of ours.
        as_tensor: let :meth:`step` return the loss as a tensor, without waiting for the device.
        check_every: after every so many steps, compare the loss of the recorded operations with
            that of the program for the same random draws.
        max_graphs: how many graphs are kept, one for each kind of arguments.
        backend: backend of ``torch.compile``; ``None`` runs the recorded operations as they are,
            which needs no compilation.
        mode: mode of ``torch.compile``.

    Raises:
        ValueError: if the loss has no ``differentiable_loss``, or the optimiser is of another
            kind; at the first step, if a parameter gets no gradient or is missing from the
            optimiser.

    Example:
        >>> import pyro, torch
        >>> from pyro.infer import Trace_ELBO
        >>> from pyro_deepgen.latent import vae
        >>> pair = vae(6, 2, hidden_dims=(16,))
        >>> optim = pyro.optim.Adam({"lr": 1e-2})
        >>> svi = CompiledSVI(pair.model, pair.guide, optim, Trace_ELBO(), backend=None)
        >>> x = torch.bernoulli(torch.full((50, 6), 0.1))
        >>> losses = [svi.step(x) for _ in range(100)]
        >>> sum(losses[-10:]) < sum(losses[:10])
        True
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        optim: PyroOptim | Optimizer,
        loss: ELBO,
        *,
        as_tensor: bool = False,
        check_every: int | None = None,
        max_graphs: int = 8,
        backend: str | None = "inductor",
        mode: str | None = None,
    ) -> None:
        differentiable: Any = getattr(loss, "differentiable_loss", None)
        if not callable(differentiable):
            raise ValueError(
                "expected an ELBO with differentiable_loss, such as Trace_ELBO() or "
                f"TraceEnum_ELBO(), got {type(loss).__name__}; train with pyro.infer.SVI instead"
            )
        if not isinstance(optim, PyroOptim | Optimizer):
            raise ValueError(
                f"expected an optimiser of pyro.optim or torch.optim, got {type(optim).__name__}"
            )
        if check_every is not None and (not isinstance(check_every, int) or check_every < 1):
            raise ValueError(f"expected check_every of 1 or more, or None, got {check_every}")
        self._model, self._guide, self._optim, self._elbo = model, guide, optim, loss
        self.as_tensor, self.check_every = as_tensor, check_every
        self.num_steps = 0
        self.compiled = CompiledLoss(
            self._loss,
            [*modules_behind(model), *modules_behind(guide)],
            max_graphs=max_graphs,
            backend=backend,
            mode=mode,
        )
        self._found = False
        self._settings: list[Any] = []
        self._changes = 0
        self._may_suit = RecordedUpdate.may_suit(optim)

    @property
    def model(self) -> Program:
        """The model."""
        return self._model

    @property
    def guide(self) -> Program:
        """The guide."""
        return self._guide

    @property
    def optim(self) -> PyroOptim | Optimizer:
        """The optimiser."""
        return self._optim

    @property
    def elbo(self) -> ELBO:
        """The loss."""
        return self._elbo

    def _loss(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        elbo: Any = self._elbo
        loss: torch.Tensor = elbo.differentiable_loss(self._model, self._guide, *args, **kwargs)
        return loss

    def step(self, *args: Any, **kwargs: Any) -> float | torch.Tensor:
        """Take a gradient step and return the loss."""
        call = Call(args, kwargs)
        recording = self.compiled.find("step", call) or self._record(call)
        if recording.update is None:
            loss = self._step_outside(recording, call)
        else:
            recording.update.refresh()
            loss = recording.graph(*recording.inputs(call))[0]
        self.num_steps += 1
        if self.check_every and self.num_steps % self.check_every == 0:
            self._check(recording, call)
        return loss if self.as_tensor else float(loss)

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float | torch.Tensor:
        """The loss without a step."""
        loss = self.compiled.value(*args, **kwargs)
        return loss if self.as_tensor else float(loss)

    def _record(self, call: Call) -> Recording:
        """Record the whole step; loss and gradients alone where the optimiser cannot be recorded.

        An optimiser makes what it remembers in its first step: that one is for the gradients
        alone, and is not worth a compilation.
        """
        uses = self.compiled.prepare(call)
        parameters = self._choose(uses.parameters())
        update = self._make_update(parameters)
        soon = update is None and self._may_suit
        return self.compiled.record("step", call, uses, parameters, update, keep=not soon)

    def _make_update(self, parameters: Named) -> RecordedUpdate | None:
        leaves = list(parameters.values())
        optimizers = optimizers_of(self.optim, leaves) if self._may_suit else None
        if optimizers is None or not RecordedUpdate.suits(optimizers, leaves):
            return None
        update = RecordedUpdate(optimizers, leaves, zero_missing=isinstance(self.optim, PyroOptim))
        self._changes += bool(self._settings) and update.settings != self._settings
        self._settings = update.settings
        if self._changes == _MANY_CHANGES:
            # A schedule of momentum, say: each of its steps would be recorded anew.
            self._may_suit = False
            return None
        return update

    def _step_outside(self, recording: Recording, call: Call) -> torch.Tensor:
        """Step by the optimiser itself, with the graph's gradients."""
        parameters = list(recording.parameters.values())
        losses: list[torch.Tensor] = []
        streams = _Streams(recording.graph.captured, call.tensors)

        def closure() -> torch.Tensor:
            if losses:
                # A line search compares values of one function: the draws must not change.
                streams.restore()
            loss, *gradients = recording.graph(*call.tensors)
            if not self._found:
                _require_gradients(recording.parameters, gradients)
                self._found = True
            if isinstance(self.optim, PyroOptim):  # which leaves zeros behind every step
                known = self.optim.optim_objs
                gradients = [
                    torch.zeros_like(p) if g is None and p in known else g
                    for p, g in zip(parameters, gradients, strict=True)
                ]
            losses.append(loss)
            owned = own_memory(parameters, gradients)
            for parameter, gradient in zip(parameters, owned, strict=True):
                parameter.grad = gradient
            return loss

        if isinstance(self.optim, PyroOptim):
            closure()
            self.optim(parameters)
        else:
            self.optim.step(closure)  # type: ignore[arg-type]  # PyTorch takes tensors, too
        for parameter in parameters:
            parameter.grad = None
        if self._may_suit and self._make_update(recording.parameters) is None:
            self._may_suit = False
        return losses[0]

    def _choose(self, found: Named) -> Named:
        """The parameters to train, of those in the program's ``pyro.param`` statements."""
        if isinstance(self.optim, Optimizer):
            held = {id(p) for group in self.optim.param_groups for p in group["params"]}
            named = [
                (name, p)
                for module in self.compiled.modules
                for name, p in module.named_parameters()
                # A program's own parameters; of other modules that it can reach, those held.
                if module in (self.model, self.guide) or id(p) in held
            ]
            found = unique_names([*found.items(), *named])
            if missing := sorted(n for n, p in found.items() if id(p) not in held):
                raise ValueError(
                    f"expected an optimiser over all parameters, but it lacks {missing}: call the "
                    "loss once before making it, where parameters appear on first use; pass the "
                    "parameters of both model and guide; or freeze those with "
                    "requires_grad_(False)"
                )
        if not found:
            raise ValueError(
                "the model and guide have no parameters to train: register modules with "
                "pyro.module, or make them PyroModules"
            )
        return found

    def _check(self, recording: Recording, call: Call) -> None:
        ours, eager = self.compiled.compare(recording, call)
        if not torch.allclose(ours, eager, rtol=1e-4, atol=1e-6, equal_nan=True):
            raise RuntimeError(
                f"at step {self.num_steps} the recorded loss is {float(ours):.7g}, the program's "
                f"{float(eager):.7g} for the same random draws: the program reads something that "
                "changed since the recording and is neither a tensor nor an argument; pass it as "
                "an argument, or keep it in a tensor that is changed in place"
            )


_MANY_CHANGES = 3


class _Streams:
    """The random streams that a graph draws from."""

    def __init__(self, *tensors: Sequence[torch.Tensor]) -> None:
        self._devices = {t.device for given in tensors for t in given if t.is_cuda}
        self._cpu = torch.get_rng_state()
        self._cuda = {device: torch.cuda.get_rng_state(device) for device in self._devices}

    def restore(self) -> None:
        torch.set_rng_state(self._cpu)
        for device, state in self._cuda.items():
            torch.cuda.set_rng_state(state, device)


def _require_gradients(parameters: Named, gradients: Sequence[torch.Tensor | None]) -> None:
    names = [n for n, g in zip(parameters, gradients, strict=True) if g is None]
    if names:
        raise ValueError(
            f"the parameters {names} get no gradient, so they would never be trained: freeze "
            "them with requires_grad_(False), or look at where model and guide use them; if other "
            "arguments train them, begin with those"
        )
