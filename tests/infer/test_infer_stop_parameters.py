# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Operations under StopParameters and FrozenStatistics."""

import warnings
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from torch import nn
from torch.nn import functional

from pyro_deepgen.infer.frozen_statistics import FrozenStatistics
from pyro_deepgen.infer.stop_parameters import StopParameters, check_stopped, map_tensors

Operation = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def in_place(z: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    result = z.clone()
    result += w
    return result.mul_(w)


def assigned(z: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    result = torch.zeros(4, 3)
    result[:3] = w * z
    return result + result.new_ones(3)


OPERATIONS: dict[str, Operation] = {
    "product": lambda z, w: z * w,
    "reflected": lambda z, w: 2.0 - w / z,
    "linear": lambda z, w: functional.linear(z, w, w[0]),
    "linear keywords": lambda z, w: functional.linear(input=z, weight=w, bias=w[0]),
    "cat": lambda z, w: torch.cat([w, z]),
    "stack keywords": lambda z, w: torch.stack(tensors=(w, z), dim=0),
    "where": lambda z, w: torch.where(z > 0, z, w),
    "einsum": lambda z, w: torch.einsum("ij,jk->ik", z, w),
    "einsum list": lambda z, w: torch.einsum("ij,jk->ik", [z, w]),
    "linalg": lambda z, w: torch.linalg.solve(w @ w.T + 3 * torch.eye(3), z),
    "property": lambda z, w: z @ w.T + w.mT,
    "index": lambda z, w: z + w[[0, 2, 1]],
    "broadcast": lambda z, w: torch.broadcast_tensors(z, w)[1] + z,
    "in place": in_place,
    "assigned": assigned,
    "convolution": lambda z, w: functional.conv1d(z[None], w[:, :, None]),
    "layer norm": lambda z, w: functional.layer_norm(z, (3,), w[0], w[1]),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_flow_to_inputs_and_not_to_parameters(name: str) -> None:
    operation = OPERATIONS[name]
    leaf, w = torch.randn(3, 3, requires_grad=True), torch.rand(3, 3, requires_grad=True)
    z = leaf * 1.0
    expected = operation(z, w)
    (with_w,) = torch.autograd.grad(expected.square().sum(), [w], retain_graph=True)
    (plain,) = torch.autograd.grad(expected.square().sum(), [leaf], retain_graph=True)
    with StopParameters():
        found = operation(z, w)
    assert torch.equal(found, expected)
    of_z, of_w = torch.autograd.grad(found.square().sum(), [leaf, w], allow_unused=True)
    assert with_w.abs().max() > 0  # without stopping there is one
    assert of_w is None
    assert torch.allclose(of_z, plain)


MODULES: dict[str, Callable[[], Any]] = {
    "lstm": lambda: (lambda m: (m, lambda z: m(z)[0]))(nn.LSTM(3, 3)),
    "attention": lambda: (lambda m: (m, lambda z: m(z, z, z)[0]))(nn.MultiheadAttention(3, 1)),
    "batch norm": lambda: (lambda m: (m, m))(nn.BatchNorm1d(3)),
    "weight norm": lambda: (lambda m: (m, m))(
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str) -> None:
    module, call = MODULES[name]()
    z = torch.randn(5, 3, requires_grad=True) * 1.0
    expected = call(z)
    with StopParameters():
        found = call(z)
    assert torch.allclose(found, expected)
    grads = torch.autograd.grad(found.square().sum(), [z, *module.parameters()], allow_unused=True)
    assert grads[0] is not None and all(g is None for g in grads[1:])
    check_stopped(found, [z])
    with pytest.raises(ValueError, match="depends on a parameter"):
        check_stopped(expected, [z])


def test_parameters_are_still_seen_as_such() -> None:
    w = torch.ones(2, requires_grad=True)
    with StopParameters():
        assert w.requires_grad and w.is_leaf
        assert not (w * 2).requires_grad


DROPOUTS: dict[str, Callable[[float, bool], Callable[[torch.Tensor], Any]]] = {
    "dropout": lambda p, train: lambda z: functional.dropout(z, p, train),
    "dropout keywords": lambda p, train: lambda z: functional.dropout(z, p=p, training=train),
    "dropout1d": lambda p, train: lambda z: functional.dropout1d(z, p, train),
    "alpha": lambda p, train: lambda z: functional.alpha_dropout(z, p, train),
    "feature alpha": lambda p, train: lambda z: functional.feature_alpha_dropout(z, p, train),
    "torch": lambda p, train: lambda z: torch.dropout(z, p, train),
    "module": lambda p, train: nn.Dropout(p).train(train),
    "lstm": lambda p, train: nn.LSTM(4, 4, 2, dropout=p).train(train),
    "attention": lambda p, train: (lambda m: lambda z: m(z, z, z))(
        nn.MultiheadAttention(4, 1, p).train(train)
    ),
    "scaled": lambda p, train: (
        lambda z: functional.scaled_dot_product_attention(z, z, z, dropout_p=p if train else 0.0)
    ),
}


@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout_is_refused_where_it_drops(name: str) -> None:
    z = torch.randn(3, 5, 4)
    harmless = [DROPOUTS[name](0.5, False), DROPOUTS[name](0.0, True)]
    dropping = DROPOUTS[name](0.5, True)
    with StopParameters():
        for call in harmless:
            call(z)
        with pytest.raises(ValueError, match="dropout"):
            dropping(z)


def test_initial_values_may_be_drawn() -> None:
    with StopParameters():
        assert pyro.param("w", torch.randn(3)).shape == (3,)


@pytest.mark.parametrize("mode", [StopParameters, FrozenStatistics])
@pytest.mark.parametrize("positional", [True, False])
def test_statistics_stay_as_they_are(mode: Any, positional: bool) -> None:
    z, mean, var = torch.randn(8, 3), torch.zeros(3), torch.ones(3)
    with mode():
        if positional:
            found = functional.batch_norm(z, mean, var, None, None, True, 0.5)
        else:
            found = functional.batch_norm(
                z, running_mean=mean, running_var=var, training=True, momentum=0.5
            )
        of_instances = functional.instance_norm(z.T[None], mean, var)
        assert torch.equal(mean, torch.zeros(3)) and torch.equal(var, torch.ones(3))
        evaluated = functional.batch_norm(z, mean + 1, var, training=False)
    assert torch.allclose(found, functional.batch_norm(z, mean, var, None, None, True, 0.5))
    assert not torch.equal(mean, torch.zeros(3))
    assert torch.allclose(of_instances, functional.instance_norm(z.T[None]))
    assert torch.allclose(evaluated, (z - 1) / (1 + 1e-5) ** 0.5)


def test_only_counters_are_counted_back() -> None:
    counter = torch.tensor(4)
    with FrozenStatistics():
        numbers = torch.zeros(2, dtype=torch.long).add_(1)
        real = torch.zeros(()).add_(1)
        assert int(counter.add_(1)) == 5
    assert numbers.tolist() == [1, 1] and float(real) == 1.0 and int(counter) == 4


def test_structures() -> None:
    point = namedtuple("point", "x y")
    one = torch.ones(1)
    found = map_tensors([point(one, 2), {"a": (one, "b")}, torch.Size([3]), None], lambda t: t + 1)
    assert found == [point(one + 1, 2), {"a": (one + 1, "b")}, torch.Size([3]), None]
    assert isinstance(found[0], point)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(z, w)
        return z * w

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z, w = ctx.saved_tensors
        return grad * w, grad * z


@pytest.mark.parametrize("way", ["function", "script"])
def test_what_escapes_is_found(way: str) -> None:
    net = nn.Linear(3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.trace(net, torch.ones(3, 3))
    z = torch.randn(3, 3, requires_grad=True) * 1.0
    with StopParameters():
        found = script(z) if way == "script" else Doubled.apply(z, net.weight)
    with pytest.raises(ValueError, match=r"shape \(3, 3\)|shape \(3,\)"):
        check_stopped(found, [z])
