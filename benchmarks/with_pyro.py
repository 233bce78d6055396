# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The contestants that train a Pyro model and guide: `CompiledSVI`, and Pyro's `SVI`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import ELBO, SVI
from pyro.poutine.messenger import Messenger
from torch import nn

from pyro_deepgen.infer import CompiledSVI

from .harness import Array, Contestant
from .with_torch import LEARNING_RATE, arrays, fill

Program = Callable[..., Any]
Programs = Callable[[], tuple[Program, Program]]


class InjectedNoise(Messenger):
    """Makes the draws of normal sites from given noise, ``loc + scale * noise``, site by site."""

    def __init__(self, noise: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.noise = noise
        self._left: Iterator[torch.Tensor] = iter(())

    def __enter__(self) -> Any:
        self._left = iter(self.noise)
        return super().__enter__()

    def _pyro_sample(self, msg: Any) -> None:
        base = msg["fn"]
        while isinstance(base, dist.Independent):
            base = base.base_dist
        if msg["value"] is None and isinstance(base, dist.Normal):
            msg["value"] = base.loc + base.scale * next(self._left)


def _make(programs: Programs, device: torch.device) -> tuple[Program, Program]:
    """Model and guide on a device."""
    model, guide = (p.to(device) if isinstance(p, nn.Module) else p for p in programs())
    return model, guide


def _parameters(model: Program, guide: Program) -> list[torch.Tensor]:
    """The guide's parameters, then the model's: the order of a case's values."""
    modules = [m for m in (guide, model) if isinstance(m, nn.Module)]
    return [p for m in modules for p in m.parameters()]


def compiled_svi(
    programs: Programs,
    elbo: ELBO,
    data: Sequence[torch.Tensor],
    values: Sequence[Array],
    noise_shapes: Sequence[tuple[int, ...]],
) -> Contestant:
    """`CompiledSVI` with PyTorch's fused Adam, and parameters of its own."""
    device = data[0].device
    noise = [torch.zeros(shape, device=device) for shape in noise_shapes]
    local = {"module_local_params": True}
    with pyro.settings.context(**local):
        model, guide = _make(programs, device)
        elbo.differentiable_loss(model, guide, *data)  # an autoguide makes its parameters now
    parameters = _parameters(model, guide)
    fill(parameters, values)
    optim = torch.optim.Adam(parameters, LEARNING_RATE, fused=True)
    svi = CompiledSVI(model, guide, optim, elbo)
    recorded = CompiledSVI(model, InjectedNoise(noise)(guide), optim, elbo, backend=None)

    def run(steps: int) -> float:
        value: Any = float("nan")
        with pyro.settings.context(**local):
            for _ in range(steps):
                value = svi.step(*data)
        return float(value)

    def evaluate(given: Sequence[Array]) -> tuple[float, list[Array]]:
        fill(noise, given)
        with pyro.settings.context(**local):
            loss, gradients = recorded.compiled.gradients(parameters, *data)
        return float(loss), arrays(gradients)

    return Contestant(run, evaluate, lambda: arrays(parameters))


def pyro_svi(
    programs: Programs,
    elbo: ELBO,
    data: Sequence[torch.Tensor],
    values: Sequence[Array],
) -> Contestant:
    """Pyro's `SVI` with its Adam and its global parameter store, validation off."""
    pyro.enable_validation(False)
    pyro.clear_param_store()
    model, guide = _make(programs, data[0].device)
    optim = pyro.optim.Adam({"lr": LEARNING_RATE})
    svi = SVI(model, guide, optim, elbo)
    svi.evaluate_loss(*data)  # parameters enter the store at their first use
    parameters = [p for _, p in pyro.get_param_store().named_parameters()]
    fill(parameters, values)

    def run(steps: int) -> float:
        value = float("nan")
        for _ in range(steps):
            value = svi.step(*data)
        return value

    def evaluate(given: Sequence[Array]) -> tuple[float, list[Array]]:
        noise = [torch.from_numpy(n).to(data[0].device) for n in given]
        loss = elbo.loss_and_grads(model, InjectedNoise(noise)(guide), *data)
        gradients = arrays([p.grad for p in parameters])
        for parameter in parameters:
            parameter.grad = None
        return float(loss), gradients

    return Contestant(run, evaluate, lambda: arrays(parameters))
