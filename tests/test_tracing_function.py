# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Functions as graphs that autograd differentiates: as it differentiates the functions."""

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from pyro_deepgen.tracing import CompiledFunction, TracingError

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def interpreted(function: Callable[..., Any], **options: Any) -> CompiledFunction:
    return CompiledFunction(function, backend=None, **options)


def same(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> bool:
    return all(torch.allclose(a, b, **EXACT) for a, b in zip(ours, theirs, strict=True))


def gradients(
    function: Callable[[torch.Tensor], torch.Tensor],
    parameters: Sequence[torch.Tensor],
    device: torch.device,
) -> list[torch.Tensor]:
    """Value and gradients of two turns of a loop, the random draws fixed."""
    x = torch.linspace(-1.0, 2.0, 12, device=device).reshape(4, 3).requires_grad_()
    pyro.set_rng_seed(3)
    value = function(function(x)).square().sum()
    return [value, *torch.autograd.grad(value, [x, *parameters])]


# ---------------------------------------------------------------- the same gradients


class Swap(torch.autograd.Function):
    """A custom gradient: that of ``3 x``, whatever the value."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.exp()

    @staticmethod
    def backward(ctx: Any, tangent: torch.Tensor) -> torch.Tensor:
        return 3 * tangent


def without_gradient(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        scale = x.exp()
    return x * scale


def masked_sites(x: torch.Tensor) -> torch.Tensor:
    def program() -> None:
        with pyro.plate("data", 4), poutine.mask(mask=x[:, 0] > 0), poutine.scale(scale=0.5):
            z = pyro.sample("z", dist.Normal(x, x.exp()).to_event(1))
            pyro.sample("y", dist.Laplace(z, 1.0).to_event(1), obs=x)

    return x * poutine.trace(program).get_trace().log_prob_sum()


def score_function(x: torch.Tensor) -> torch.Tensor:
    flip = pyro.sample("flip", dist.Bernoulli(logits=x))
    return x * flip + dist.Bernoulli(logits=x).log_prob(flip) * (flip + x).detach()


PROGRAMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "normal": lambda x: pyro.sample("z", dist.Normal(x, x.exp())),
    "gamma": lambda x: x + pyro.sample("z", dist.Gamma(x.exp(), 1.0)),
    "dirichlet": lambda x: x + pyro.sample("z", dist.Dirichlet(x.exp())),
    "straight through": lambda x: dist.OneHotCategoricalStraightThrough(logits=x).rsample() * x,
    "score function": score_function,
    "masked": masked_sites,
    "detach": lambda x: x * x.detach(),
    "no grad": without_gradient,
    "custom gradient": lambda x: Swap.apply(x) * x,
    "the input itself": lambda x: x,
    "a view": lambda x: x.t()[:, ::2].reshape(2, 3).repeat(2, 1) * x,
    "chunks": lambda x: torch.cat([part * part.exp() for part in x.chunk(2)]),
    "in place": lambda x: torch.zeros_like(x).add_(x).mul_(2.0).exp(),
    "numbers": lambda x: x * torch.tensor(1.5) + torch.where(x > 0, x, torch.zeros(())),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_are_those_of_the_program(
    name: str, float64: torch.dtype, device: torch.device
) -> None:
    program = PROGRAMS[name]
    assert same(gradients(interpreted(program), [], device), gradients(program, [], device))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)),
        lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)),
        lambda: nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.LayerNorm(3)),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
    ],
    ids=["mlp", "batch_norm", "dropout", "weight_norm"],
)
def test_parameters_get_gradients_and_buffers_move(
    make: Callable[[], nn.Module], float64: torch.dtype, device: torch.device
) -> None:
    net = make().to(device)
    state = {n: b.clone() for n, b in net.state_dict().items()}
    parameters = list(net.parameters())
    ours = gradients(interpreted(net), parameters, device)
    after = {n: b.clone() for n, b in net.state_dict().items()}
    net.load_state_dict(state)
    assert same(ours, gradients(net, parameters, device))
    assert same(list(after.values()), list(net.state_dict().values()))


def test_parameters_of_the_store_and_updates_are_seen(
    float64: torch.dtype, device: torch.device
) -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        initial = torch.ones(3, device=device)
        scale = pyro.param("scale", initial, constraint=dist.constraints.positive)
        return pyro.sample("z", dist.Normal(x, scale))

    compiled = interpreted(program)
    compiled(torch.zeros(4, 3, device=device))  # the parameter appears at its first use
    leaves = [p for _, p in pyro.get_param_store().named_parameters()]
    assert len(leaves) == 1
    for _ in range(2):
        assert same(gradients(compiled, leaves, device), gradients(program, leaves, device))
        with torch.no_grad():
            leaves[0].add_(0.7)


def test_trees_of_tensors_and_results_without_gradient(float64: torch.dtype) -> None:
    def function(state: dict[str, torch.Tensor], both: tuple[torch.Tensor, ...]) -> Any:
        product = state["a"] * both[0]
        return {"product": product, "same": product}, (product > 0, both[1], state["a"].detach())

    a = torch.tensor([1.0, -2.0], requires_grad=True)
    b = torch.tensor([3.0, 4.0], requires_grad=True)
    named, (sign, given, detached) = interpreted(function)({"a": a}, (b, torch.arange(2)))
    assert sign.tolist() == [True, False]
    assert given.tolist() == [0, 1]
    assert not any(t.requires_grad for t in (sign, given, detached))
    total = named["product"].sum() + 2 * named["same"].sum()
    found = torch.autograd.grad(total, [a, b])
    assert [g.tolist() for g in found] == [[9.0, 12.0], [3.0, -6.0]]
    # A result that the loss does not use, and an argument without gradient.
    named, _ = interpreted(function)({"a": a.detach()}, (b, torch.arange(2)))
    (found_b,) = torch.autograd.grad(named["product"].sum(), [b])
    assert found_b.tolist() == [1.0, -2.0]


def test_draws_are_fresh_and_the_gradient_is_that_of_the_draw(float64: torch.dtype) -> None:
    def draw(loc: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return pyro.sample("z", dist.Normal(loc, scale))

    compiled = interpreted(draw)
    loc, scale = torch.zeros(50, requires_grad=True), torch.full((50,), 2.0, requires_grad=True)
    calls = [compiled(loc, scale) for _ in range(2)]
    assert not (calls[0] == calls[1]).any()
    for z in calls:
        (gradient,) = torch.autograd.grad(z.sum(), [scale])
        assert torch.allclose(gradient, z / 2.0, **EXACT)
    torch.manual_seed(1)
    first = compiled(loc, scale)
    torch.manual_seed(1)
    assert torch.equal(first, compiled(loc, scale))


# ---------------------------------------------------------------- what is watched


def test_a_graph_for_each_kind_of_call() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    compiled = interpreted(net)
    seen = []

    def graphs(x: torch.Tensor) -> int:
        seen.append(compiled(x))
        return compiled.num_graphs

    x = torch.ones(3, 2)
    assert [graphs(x), graphs(2 * x)] == [1, 1]
    assert graphs(torch.ones(4, 2)) == 2
    assert graphs(torch.ones(3, 2, requires_grad=True)) == 3
    net.eval()
    assert graphs(x) == 4
    assert torch.equal(seen[-1], net(x))
    with torch.no_grad():
        assert graphs(x) == 5
    assert not seen[-1].requires_grad
    net[0].weight.requires_grad_(False)
    assert graphs(x) == 6
    assert torch.autograd.grad(seen[-1].sum(), [net[0].bias])[0].tolist() == [3.0, 3.0]
    net[0].bias = nn.Parameter(torch.tensor([10.0, 20.0]))
    assert graphs(x) == 7
    assert torch.equal(seen[-1], net(x))
    net.double()
    assert graphs(x.double()) == 8
    assert graphs(torch.ones(5, 2).double()) == 8  # the one that was used first is gone


def test_an_expanded_or_sliced_argument_costs_no_graph(float64: torch.dtype) -> None:
    compiled = interpreted(lambda x: x.exp())
    start = torch.ones(2, requires_grad=True)
    long = torch.ones(3, 6, requires_grad=True)
    value = sum(compiled(x).sum() for x in (start.expand(3, 2), long[:, :2], long[:, 2:4]))
    found = torch.autograd.grad(value, [start, long])
    assert compiled.num_graphs == 1
    e = torch.ones(()).exp()
    assert same(found, [3 * e.expand(2), torch.cat([e.expand(3, 4), torch.zeros(3, 2)], 1)])


def test_an_argument_may_be_given_twice_or_be_a_parameter() -> None:
    """Through a backend that looks for tensors that are the same."""
    weight = nn.Parameter(torch.ones(2))
    compiled = CompiledFunction(lambda a, b: weight * a * b, backend="aot_eager")
    x, y = torch.ones(2, requires_grad=True), torch.full((2,), 3.0, requires_grad=True)
    other = torch.arange(8.0).reshape(4, 2).requires_grad_()
    for a, b in ((x, y), (x, x), (weight, x), (other[1], other[2]), (y.expand(2), y * y)):
        (found,) = torch.autograd.grad(compiled(a, b).sum(), [weight])
        assert found.tolist() == (a * b * (1 + (a is weight))).tolist()
    assert compiled.num_graphs == 1


def test_only_so_many_graphs_and_the_last_used_stay() -> None:
    runs = []

    def function(x: torch.Tensor) -> torch.Tensor:
        runs.append(len(x))
        return 2 * x

    compiled = interpreted(function, max_graphs=2)
    for size in (1, 2, 1, 3, 1):
        compiled(torch.ones(size))
    assert compiled.num_graphs == 2
    assert 1 in runs
    recorded = len(runs)
    compiled(torch.ones(1))
    assert len(runs) == recorded
    compiled(torch.ones(2))
    assert len(runs) > recorded


def test_nothing_happens_at_the_recording() -> None:
    norm = nn.BatchNorm1d(2)
    compiled = interpreted(norm)
    x = torch.randn(5, 2)
    torch.manual_seed(4)
    expected = torch.randn(3)
    torch.manual_seed(4)
    compiled(x)
    assert torch.equal(torch.randn(3), expected)
    assert int(norm.num_batches_tracked) == 1


# ---------------------------------------------------------------- what is refused


def test_second_derivatives_are_refused() -> None:
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="leave out create_graph=True"):
        torch.autograd.grad(interpreted(torch.exp)(x).sum(), [x], create_graph=True)


def test_wrong_arguments_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="max_graphs of 1 or more"):
        interpreted(torch.exp, max_graphs=0)
    with pytest.raises(ValueError, match="max-autotune-no-cudagraphs"):
        CompiledFunction(torch.exp, mode="reduce-overhead")
    with pytest.raises(ValueError, match=r"got 2\.0, .* pass torch\.as_tensor"):
        interpreted(torch.mul)(torch.ones(2), 2.0)
    with pytest.raises(ValueError, match=r"gives tensors, got \['float'\]"):
        interpreted(lambda x: (x, 1.0))(torch.ones(2))
    outside = nn.Linear(2, 2)(torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"of shapes \[\(3, 2\)\]: .* must be arguments"):
        interpreted(lambda x: x * outside)(torch.ones(3, 2))
    with pytest.raises(TracingError, match="needs the value"):
        interpreted(lambda x: x if x.sum() > 0 else -x)(torch.ones(2))


def test_what_changes_between_value_and_gradient_is_an_error_as_in_pytorch() -> None:
    weight = nn.Parameter(torch.ones(2))
    x = torch.ones(2, requires_grad=True)
    value = interpreted(lambda x: weight * x)(x).sum()
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()
