# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The contestants of the cases with flows: a flow of any library, evaluated or trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from torch import nn

from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.infer import CompiledSVI

from .harness import Array, Contestant
from .with_torch import LEARNING_RATE, arrays

Operation = Literal["density", "sampling", "drawing", "training", "fitting"]
TRAINS = ("training", "fitting")


@dataclass(frozen=True)
class Sizes:
    """What flows of vectors have in common."""

    dims: int = 64
    layers: int = 5
    hidden: tuple[int, ...] = (128, 128)
    batch: int = 256
    bins: int = 8
    bound: float = 5.0


@dataclass(frozen=True)
class Parameter:
    """A parameter, and what it is of ours: ``sign * ours[rows] + shift``."""

    tensor: torch.Tensor
    rows: torch.Tensor | None = None
    sign: float = 1.0
    shift: torch.Tensor | float = 0.0

    def take(self, ours: torch.Tensor) -> None:
        """Take the value of ours."""
        with torch.no_grad():
            given = ours if self.rows is None else ours[self.rows]
            self.tensor.copy_((self.sign * given + self.shift).view_as(self.tensor))

    def as_ours(self) -> Array:
        """Return the value that ours would have."""
        return self._sorted(self.sign * (self.tensor.detach() - self.shift))

    def gradient_as_ours(self, gradient: torch.Tensor) -> Array:
        """Return the gradient that ours would have."""
        return self._sorted(self.sign * gradient)

    def _sorted(self, values: torch.Tensor) -> Array:
        if self.rows is not None:
            values = torch.empty_like(values).index_copy_(0, self.rows, values)
        return arrays([values])[0]


@dataclass(frozen=True)
class Flow:
    """A flow of some library, through what its users call.

    Args:
        parameters: in the order of ours where they are the same, else in any.
        log_prob: scores points.
        sample: draws so many points.
        draw: draws so many points, with gradients, and scores them.
        compared: see :class:`~benchmarks.harness.Contestant`.
    """

    parameters: Sequence[Parameter]
    log_prob: Callable[[torch.Tensor], torch.Tensor]
    sample: Callable[[int], torch.Tensor]
    draw: Callable[[int], tuple[torch.Tensor, torch.Tensor]]
    compared: Literal["all", "loss", "size"] = "all"


def ours(flow: FlowDistribution) -> Flow:
    """Our flow, as it is."""

    def draw(size: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = flow.rsample((size,))
        return y, flow.log_prob(y)

    parameters = [Parameter(p) for p in flow.parameters()]
    return Flow(parameters, flow.log_prob, lambda size: flow.sample((size,)), draw)


def ours_compiled(flow: FlowDistribution) -> Flow:
    """Our flow, with its passes as graphs of ``torch.compile``."""
    from_base = torch.compile(flow.transform.forward_and_log_det, fullgraph=True)
    shape = flow.base.event_shape

    @torch.compile(fullgraph=True)
    def score(eps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, log_det = flow.transform.forward_and_log_det(eps)
        return y, flow.base.log_prob(eps) - log_det

    return Flow(
        [Parameter(p) for p in flow.parameters()],
        torch.compile(flow.log_prob, fullgraph=True),
        lambda size: from_base(torch.randn(size, *shape))[0],
        lambda size: score(torch.randn(size, *shape)),
    )


def fitting_loss(y: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """Summed log-ratio of a flow to a normal distribution of mean 1, at its draws."""
    log_p = -0.5 * (y - 1).square().sum(-1) - y.shape[-1] * math.log(2 * math.pi) / 2
    return (log_q - log_p).sum()


def contestant(flow: Flow, operation: Operation, x: torch.Tensor) -> Contestant:
    """A flow that does one thing: score data, draw, draw and score, train on data, or fit."""
    if operation in TRAINS:
        return _trained(flow, operation, x)
    work: dict[str, Callable[[], torch.Tensor]] = {
        "density": lambda: flow.log_prob(x),
        "sampling": lambda: flow.sample(len(x)),
        "drawing": lambda: flow.draw(len(x))[1],
    }
    evaluate_once = work[operation]

    @torch.no_grad()
    def run(steps: int) -> float:
        for _ in range(steps):
            result = evaluate_once()
        return float(result.flatten()[0])

    @torch.no_grad()
    def evaluate(noise: Sequence[Array]) -> tuple[float, list[Array]]:
        _seed(noise)
        result = evaluate_once()
        return float(result.mean()), arrays([result])

    return Contestant(run, evaluate, _parameters(flow), flow.compared)


def _trained(flow: Flow, operation: Operation, x: torch.Tensor) -> Contestant:
    tensors = [p.tensor for p in flow.parameters]
    optim = torch.optim.Adam(tensors, LEARNING_RATE, fused=True)

    def loss() -> torch.Tensor:
        if operation == "training":
            return -flow.log_prob(x).sum()
        return fitting_loss(*flow.draw(len(x)))

    def run(steps: int) -> float:
        value = float("nan")
        for _ in range(steps):
            optim.zero_grad()
            now = loss()
            now.backward()
            optim.step()
            value = now.item()
        return value

    def evaluate(noise: Sequence[Array]) -> tuple[float, list[Array]]:
        _seed(noise)
        value = loss()
        gradients = torch.autograd.grad(value, tensors)
        pairs = zip(flow.parameters, gradients, strict=True)
        return value.item(), [p.gradient_as_ours(g) for p, g in pairs]

    return Contestant(run, evaluate, _parameters(flow), flow.compared)


class _Density(PyroModule):
    """A model of data that are draws of a flow, or a guide that is a flow."""

    def __init__(self, flow: FlowDistribution) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: torch.Tensor, observed: bool = True) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", self.flow, obs=x if observed else None)


def ours_in_svi(flow: FlowDistribution, operation: Operation, x: torch.Tensor) -> Contestant:
    """Our flow, as the model or as the guide of `CompiledSVI`."""
    local = {"module_local_params": True}
    with pyro.settings.context(**local):
        density = _Density(flow)

    def target(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(torch.ones_like(x), 1.0).to_event(1))

    def nothing(x: torch.Tensor) -> None:
        """Say nothing: the model has no latents."""

    def guide(x: torch.Tensor) -> None:
        density(x, observed=False)

    programs: tuple[Any, Any] = (density, nothing) if operation == "training" else (target, guide)
    parameters = list(flow.parameters())
    optim = torch.optim.Adam(parameters, LEARNING_RATE, fused=True)
    svi = CompiledSVI(*programs, optim, Trace_ELBO())
    recorded = CompiledSVI(*programs, optim, Trace_ELBO(), backend=None)

    def run(steps: int) -> float:
        value: Any = float("nan")
        with pyro.settings.context(**local):
            for _ in range(steps):
                value = svi.step(x)
        return float(value)

    def evaluate(noise: Sequence[Array]) -> tuple[float, list[Array]]:
        with pyro.settings.context(**local):
            recorded.compiled.gradients(parameters, x)  # recording draws, too
            _seed(noise)
            loss, gradients = recorded.compiled.gradients(parameters, x)
        return float(loss), arrays(gradients)

    return Contestant(run, evaluate, lambda: arrays(parameters))


def _parameters(flow: Flow) -> Callable[[], list[Array]]:
    return lambda: [p.as_ours() for p in flow.parameters]


def _seed(noise: Sequence[Array]) -> None:
    """Let all libraries make the same draws: they ask PyTorch for them in the same way."""
    torch.manual_seed(int(1e6 * abs(float(noise[0][0]))))


def linears(module: object) -> list[Any]:
    """Return the dense layers of a network, from the first to the last, of whatever class."""
    assert isinstance(module, nn.Module)
    return [m for m in module.modules() if getattr(m, "weight", None) is not None]
