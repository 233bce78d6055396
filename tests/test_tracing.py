# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Programs as graphs: no trace is left, nothing is frozen that varies, and refusals say why."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import trace_elbo
from pyro.infer.util import Dice
from torch import nn
from torch.distributions import Distribution

from pyro_deepgen.infer import CompiledLoss
from pyro_deepgen.tracing import TracingError, device_only, trace, without_trace


def patched() -> tuple[Any, ...]:
    """What `device_only` changes."""
    return (
        pyro.infer.util.is_validation_enabled(),
        pyro.distributions.is_validation_enabled(),
        Distribution._validate_args,
        trace_elbo.torch_item,
        trace_elbo.warn_if_nan,
        Dice.compute_expectation,
        Distribution._validate_sample,
    )


@pytest.mark.parametrize("validate", [True, False])
def test_pyro_is_as_before_after_an_error(validate: bool) -> None:
    pyro.enable_validation(validate)
    before = patched()
    with device_only():
        assert patched()[3:] != before[3:]
        assert not any(patched()[:3])
    assert patched() == before
    with pytest.raises(KeyError), device_only():
        raise KeyError
    assert patched() == before

    def branches(x: torch.Tensor) -> list[torch.Tensor]:
        return [x if x.sum() > 0 else -x]

    with pytest.raises(TracingError):
        trace(branches, [torch.ones(2)])
    assert patched() == before


def test_random_streams_and_tensors_are_put_back() -> None:
    buffer, view = torch.zeros(4), torch.zeros(4)
    norm = nn.BatchNorm1d(3)
    state = {n: b.clone() for n, b in norm.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.randn(2)
    torch.manual_seed(1)

    def change() -> None:
        torch.randn(5)
        buffer.add_(1).mul_(3)
        view[1:3].fill_(2.0)
        view[2] = 5.0
        torch.add(torch.ones(4), 1, out=buffer)
        norm(torch.randn(6, 3))
        own = torch.zeros(2)
        own += 1
        assert own.tolist() == [1.0, 1.0]

    with without_trace():
        change()
    with pytest.raises(KeyError), without_trace():
        change()
        raise KeyError
    assert torch.equal(torch.randn(2), expected)
    assert buffer.tolist() == view.tolist() == [0.0] * 4
    for name, value in norm.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.BatchNorm1d(3),
        lambda: nn.BatchNorm1d(3, affine=False),
        lambda: nn.InstanceNorm1d(3, track_running_stats=True),
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)),
    ],
    ids=["batch_norm", "batch_norm_plain", "instance_norm", "spectral_norm"],
)
def test_a_graph_changes_buffers_as_the_module_does(make: Callable[[], nn.Module]) -> None:
    module = make()
    state = {n: b.clone() for n, b in module.state_dict().items()}
    inputs = [torch.randn(4, 3) for _ in range(3)]
    if isinstance(module, nn.InstanceNorm1d):
        inputs = [x.reshape(2, 3, 2) for x in torch.randn(3, 12)]
    graph = trace(lambda x: [module(x)], inputs[:1])
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name
    ours = [graph(x)[0] for x in inputs]
    after = {n: b.clone() for n, b in module.state_dict().items()}
    module.load_state_dict(state)
    theirs = [module(x) for x in inputs]
    assert all(map(torch.allclose, ours, theirs))
    for name, value in module.state_dict().items():
        assert torch.allclose(value, after[name]), name


def test_nothing_is_recorded_but_the_program() -> None:
    """Putting buffers back is no part of the graph."""
    norm = nn.BatchNorm1d(3)
    graph = trace(lambda x: [norm(x)], [torch.randn(4, 3)])
    assert "clone" not in graph.module.code


def test_numbers_are_constants_and_tensors_are_inputs() -> None:
    shift = torch.ones(2)
    graph = trace(lambda x: [x * torch.tensor(2.5) + shift], [torch.zeros(2)])
    assert len(graph.captured) == 1
    assert graph.captured[0] is shift
    shift.fill_(3.0)
    assert graph(torch.ones(2))[0].tolist() == [5.5, 5.5]
    assert graph.interpret(torch.zeros(2))[0].tolist() == [3.0, 3.0]


def test_a_constant_mask_chooses_a_constant_shape() -> None:
    mask = torch.tensor([True, False, True])
    graph = trace(lambda x: [x[mask] * 2], [torch.zeros(3)])
    assert graph(torch.arange(3.0))[0].tolist() == [0.0, 4.0]


def branch(z: torch.Tensor) -> torch.Tensor:
    return z if z.sum() > 0 else -z


READINGS: dict[str, Callable[[torch.Tensor], Any]] = {
    "if": branch,
    "float": lambda z: z * float(z[0]),
    "item": lambda z: z * z[0].item(),
    "tolist": lambda z: torch.tensor(z.tolist()),
    "numpy": lambda z: torch.as_tensor(z.numpy() * 2),
    "asarray": lambda z: torch.as_tensor(np.asarray(z) * 2),
    "mask": lambda z: z[z > 0].mean(),
    "nonzero": lambda z: z.nonzero().sum(),
    "masked_select": lambda z: z.masked_select(z > 0).sum(),
    "repeat": lambda z: z.repeat_interleave((z > 0).long()).sum(),
    "range": lambda z: torch.arange(int(z.abs().sum()) + 1).sum(),
}


@pytest.mark.parametrize("name", list(READINGS))
def test_what_needs_a_value_is_refused_with_line_and_site(name: str) -> None:
    def program(x: torch.Tensor) -> list[torch.Tensor]:
        z = pyro.sample("height", dist.Normal(x, 1.0))
        return [READINGS[name](z)]

    line = READINGS[name].__code__.co_firstlineno + (name == "if")
    with pytest.raises(TracingError) as error:
        trace(program, [torch.zeros(3)])
    assert f"test_tracing.py, line {line}, " in str(error.value)
    assert "after sampling 'height'" in str(error.value)
    assert "pyro.infer.SVI" in str(error.value)


def test_errors_of_the_program_are_its_own() -> None:
    def program(x: torch.Tensor) -> list[torch.Tensor]:
        return [x @ torch.ones(7)]

    with pytest.raises(RuntimeError, match=r"size mismatch|inconsistent|shape") as error:
        trace(program, [torch.zeros(3)])
    assert not isinstance(error.value, TracingError)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: dist.OneHotCategorical(p),
        lambda p: dist.OneHotCategoricalStraightThrough(p),
        lambda p: dist.Categorical(p),
        lambda p: dist.Multinomial(5, p),
        lambda p: dist.Binomial(5, p),
        lambda p: dist.Poisson(p),
        lambda p: dist.Geometric(p),
        lambda p: dist.Gamma(p, 1.0),
        lambda p: dist.Beta(p, p),
        lambda p: dist.Dirichlet(p),
        lambda p: dist.StudentT(3.0, p),
        lambda p: dist.RelaxedBernoulli(torch.tensor(0.5), p),
        lambda p: dist.NegativeBinomial(3, p),
        lambda p: dist.LowRankMultivariateNormal(p, p.unsqueeze(-1), p),
        lambda p: dist.MultivariateNormal(p, torch.eye(3)),
        lambda p: dist.MixtureSameFamily(dist.Categorical(p), dist.Normal(p, 1.0)),
        lambda p: dist.Laplace(p, 1.0),
        lambda p: dist.Cauchy(p, 1.0),
        lambda p: dist.ZeroInflatedPoisson(p, gate=p),
        lambda p: dist.LKJCholesky(3, p[0] + 1),
    ],
    ids=lambda make: make.__code__.co_names[1],
)
def test_distributions_draw_and_score_as_they_do(make: Callable[[torch.Tensor], Any]) -> None:
    def program(p: torch.Tensor) -> list[torch.Tensor]:
        value = make(p)()
        return [value, make(p).log_prob(value)]

    probs = torch.tensor([0.2, 0.3, 0.5])
    graph = trace(program, [probs])
    other = torch.tensor([0.6, 0.3, 0.1])
    torch.manual_seed(2)
    ours = graph(other)
    torch.manual_seed(2)
    for a, b in zip(ours, program(other), strict=True):
        assert a.dtype == b.dtype
        assert torch.allclose(a, b)


def test_a_distribution_that_was_made_with_validation() -> None:
    prior = dist.Normal(torch.zeros(3), 1.0).expand([2, 3]).to_event(2)
    graph = trace(lambda x: [prior.log_prob(x)], [torch.zeros(2, 3)])
    x = torch.randn(2, 3)
    assert torch.allclose(graph(x)[0], prior.log_prob(x))


def test_a_buffer_that_is_replaced_is_refused() -> None:
    class Average(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.mean = 0.9 * self.mean + 0.1 * x.mean()
            return (x - self.mean).sum()

    module = Average()
    loss = CompiledLoss(module, [module], backend=None)
    with pytest.raises(ValueError, match=r"Average new tensors for its buffers \['mean'\]"):
        loss.value(torch.ones(3))


def test_a_loss_that_is_no_scalar() -> None:
    loss = CompiledLoss(lambda x: x, [], backend=None)
    with pytest.raises(ValueError, match=r"scalar tensor, got \(3,\)"):
        loss.value(torch.zeros(3))
    with pytest.raises(ValueError, match="scalar tensor, got float"):
        CompiledLoss(lambda: 0.0, [], backend=None).value()


def test_numpy_arguments_are_refused() -> None:
    loss = CompiledLoss(lambda x: x.sum(), [], backend=None)
    with pytest.raises(ValueError, match=r"pass torch\.as_tensor\(array\)"):
        loss.value(np.zeros(3))
