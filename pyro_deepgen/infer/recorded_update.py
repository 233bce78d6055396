# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The step of an optimiser as operations of a graph."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from pyro.optim import PyroOptim
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks
from torch.overrides import TorchFunctionMode

# Their code is PyTorch's own, read operation by operation; these keep all that a step depends on
# in tensors. A subclass may do anything, and steps outside the graph.
RECORDED = (
    *(torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adamax),
    *(torch.optim.NAdam, torch.optim.RAdam, torch.optim.RMSprop, torch.optim.Rprop),
    *(torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.ASGD),
)
_ROUTES = ("foreach", "fused")  # other ways to the same numbers, which need no graph


class RecordedUpdate:
    """The step of optimisers for given parameters, where it can be part of a graph.

    Learning rates are inputs of the graph. All other settings are frozen: :meth:`holds` sees when
    one changes, or when an optimiser gets other parameters, another state or a hook.

    Args:
        optimizers: the optimisers, of PyTorch's own kinds, each with the state of its parameters.
        parameters: the parameters that get a gradient.
        zero_missing: step with a gradient of 0 where a call gives none, as ``pyro.optim`` does
            once a parameter has had one.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        >>> RecordedUpdate.suits([optimizer], [weight])  # no momentum before the first step
        False
        >>> weight.grad = torch.ones(2)
        >>> _ = optimizer.step()
        >>> RecordedUpdate.suits([optimizer], [weight])
        True
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        parameters: Sequence[torch.Tensor],
        *,
        zero_missing: bool = False,
    ) -> None:
        self.zero_missing = zero_missing
        trained = set(map(id, parameters))
        self._optimizers = [
            o
            for o in optimizers
            if any(id(p) in trained for g in o.param_groups for p in g["params"])
        ]
        self._groups = [group for o in self._optimizers for group in o.param_groups]
        device = parameters[0].device
        for parameter in parameters:
            for optimizer in self._optimizers:
                state = optimizer.state.get(parameter, {})
                if "step" in state:  # on the device, so that a step needs nothing else
                    state["step"] = state["step"].to(parameter.device)
        self._rates: list[Any] = [None for _ in self._groups]
        self.rates = [torch.zeros((), dtype=torch.float64, device=device) for _ in self._groups]
        self.refresh()
        self._then = self._look()

    @property
    def tensors(self) -> list[torch.Tensor]:
        """What the optimisers remember."""
        states = [state for o in self._optimizers for state in o.state.values()]
        return [v for state in states for v in state.values() if isinstance(v, torch.Tensor)]

    @staticmethod
    def may_suit(optim: PyroOptim | Optimizer) -> bool:
        """Whether an optimiser's steps can be recorded once it has stepped for all parameters."""
        if isinstance(optim, Optimizer):
            return type(optim) in RECORDED
        return optim.pt_optim_constructor in RECORDED and not optim.pt_clip_args

    @staticmethod
    def suits(optimizers: Sequence[Optimizer], parameters: Sequence[torch.Tensor]) -> bool:
        """Whether the optimisers step for all the parameters, and their steps can be recorded."""
        trained = set(map(id, parameters))
        stepped: set[int] = set()
        for optimizer in optimizers:
            if type(optimizer) not in RECORDED or any(_hooks(optimizer)):
                return False
            for group in optimizer.param_groups:
                if group.get("differentiable"):
                    return False
                for parameter in group["params"]:
                    if id(parameter) not in trained:
                        continue
                    stepped.add(id(parameter))
                    if not _is_ready(optimizer, group, parameter):
                        return False
        return stepped == trained

    def holds(self) -> bool:
        """Whether the optimisers are those of the recording, but for learning rates and values."""
        return self._look() == self._then

    @property
    def settings(self) -> list[Hashable]:
        """All that is frozen of the optimisers' settings."""
        return [_settings(group) for o in self._optimizers for group in o.param_groups]

    def _look(self) -> tuple[Any, ...]:
        optimizers = self._optimizers
        states = [state for o in optimizers for state in o.state.values()]
        groups = [group for o in optimizers for group in o.param_groups]
        return (
            list(map(_hooks, optimizers)),
            [id(value) for state in states for value in state.values()],
            [id(group) for group in groups],
            [id(parameter) for group in groups for parameter in group["params"]],
            list(map(_settings, groups)),
        )

    def refresh(self) -> None:
        """Take over the present learning rates."""
        for place, group in enumerate(self._groups):
            rate = group["lr"]
            if isinstance(rate, torch.Tensor):
                self.rates[place].copy_(rate)
                self._rates[place] = None
            elif rate != self._rates[place]:
                self.rates[place].fill_(rate)
                self._rates[place] = rate
        for optimizer in self._optimizers:
            # What schedulers look at, to warn of a step before the optimiser's first.
            optimizer._opt_called = True  # type: ignore[attr-defined]

    def apply(self, gradients: Mapping[int, torch.Tensor], rates: Sequence[torch.Tensor]) -> None:
        """Step, as operations on tensors.

        Args:
            gradients: the gradient of each parameter, by the parameter's ``id``.
            rates: the learning rate of each group.
        """
        left = iter(rates)
        for optimizer in self._optimizers:
            groups, states, counters = [], defaultdict[Any, dict[str, Any]](dict), []
            for group in optimizer.param_groups:
                twins = []
                for parameter in group["params"]:
                    if id(parameter) not in gradients:
                        continue
                    twin = _at_least_one_dim(parameter.detach())
                    twin.grad = _at_least_one_dim(gradients[id(parameter)])
                    twins.append(twin)
                    for name, value in optimizer.state[parameter].items():
                        if not isinstance(value, torch.Tensor):
                            states[twin][name] = value
                        elif name != "step":
                            states[twin][name] = value if parameter.dim() else value.unsqueeze(0)
                        else:
                            # Powers of a single-precision number of steps would lose digits.
                            wide = value.to(parameter.device, torch.float64)
                            counters.append((value, wide))
                            states[twin][name] = wide
                changed: dict[str, Any] = {"params": twins, "lr": next(left)}
                changed |= {name: False for name in _ROUTES if name in group}
                changed |= {"capturable": True} if "capturable" in group else {}
                groups.append({**group, **changed})
            twin_optimizer = copy.copy(optimizer)
            twin_optimizer.param_groups, twin_optimizer.state = groups, states
            # PyTorch's optimisers keep to tensors when they are told that a compiler reads them.
            compiling = mock.patch.object(torch.compiler, "is_compiling", lambda: True)
            with torch.no_grad(), compiling, _TensorFactors():
                type(optimizer).step(twin_optimizer)
            for value, wide in counters:
                value.copy_(wide)


class _TensorFactors(TorchFunctionMode):
    """Lets the factors of fused operations be tensors: for all others they must be numbers."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.Tensor.add_, torch.Tensor.add) and _is_tensor(kwargs.get("alpha")):
            return func(args[0], args[1] * kwargs["alpha"])
        if func is torch.Tensor.addcdiv_ and _is_tensor(kwargs.get("value")):
            return args[0].add_(args[1] / args[2] * kwargs["value"])
        return func(*args, **kwargs)


def optimizers_of(
    optim: PyroOptim | Optimizer, parameters: Sequence[torch.Tensor]
) -> list[Optimizer] | None:
    """The optimisers of PyTorch that step for the parameters; None if more is done than that."""
    if isinstance(optim, Optimizer):
        return [optim]
    found = []
    for parameter in parameters:
        stepping = optim.optim_objs.get(parameter)
        if stepping is None or optim.grad_clip.get(parameter) is not None:
            return None
        # A scheduler of Pyro's holds its optimiser.
        found.append(getattr(stepping, "optimizer", stepping))
    return found


def _hooks(optimizer: Optimizer) -> tuple[int, ...]:
    own = len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)
    return own, len(_global_optimizer_pre_hooks) + len(_global_optimizer_post_hooks)


def _settings(group: Mapping[str, Any]) -> Hashable:
    return tuple(value for name, value in group.items() if name not in ("params", "lr"))


def _is_ready(optimizer: Optimizer, group: Mapping[str, Any], parameter: torch.Tensor) -> bool:
    """Whether all that the parameter's steps need is there."""
    if parameter.is_complex():
        return False
    if isinstance(optimizer, torch.optim.SGD) and not group["momentum"]:
        return True
    state = optimizer.state.get(parameter, {})
    return bool(state) and all(isinstance(value, torch.Tensor) for value in state.values())


def _at_least_one_dim(tensor: torch.Tensor) -> torch.Tensor:
    # A double-precision factor makes a tensor without dimensions double, and no other.
    return tensor if tensor.dim() else tensor.unsqueeze(0)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)
