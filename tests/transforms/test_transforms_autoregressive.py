# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Autoregressive transforms: triangular, exact in the slow direction, at its cost."""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from pyro_deepgen.nn import MaskedMLP
from pyro_deepgen.transforms import (
    Additive,
    Affine,
    Autoregressive,
    Equation,
    LogisticMixture,
    RationalQuadratic,
    autoregressive_layers,
    iaf,
    maf,
    spline_autoregressive,
)

pytestmark = pytest.mark.usefixtures("float64")

EQUATIONS: dict[str, Callable[[], Equation]] = {
    "additive": Additive,
    "affine": Affine,
    "spline": lambda: RationalQuadratic(4),
    "mixture": lambda: LogisticMixture(3),
}
each_equation = pytest.mark.parametrize("equation", EQUATIONS.values(), ids=EQUATIONS)
each_source = pytest.mark.parametrize("source", ["data", "base"])
ORDER = [2, 0, 4, 1, 3]


def layer(equation: Callable[[], Equation], source: Any, **kwargs: Any) -> Autoregressive:
    """Make a layer of five variables with changed parameters."""
    g = equation()
    network = MaskedMLP(
        5, (12, 9), g.num_parameters, order=ORDER, activation=nn.Tanh, **{"context_dim": 2} | kwargs
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return Autoregressive(g, network, parameters_from=source)


def slow_way(flow: Autoregressive) -> Any:
    return flow.forward_and_log_det if flow.inverse_is_fast else flow.inverse_and_log_det


def fast_way(flow: Autoregressive) -> Any:
    return flow.inverse_and_log_det if flow.inverse_is_fast else flow.forward_and_log_det


def by_whole_passes(
    flow: Autoregressive, known: torch.Tensor, context: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Go the slow way with a pass of the whole network for each variable."""
    g = flow.equation
    apply = g.forward_and_log_slope if flow.inverse_is_fast else g.inverse_and_log_slope
    new = torch.zeros_like(known)
    for variable in flow.network.order.tolist():
        mapped, _ = apply(known, flow.network(new, context))
        keep = torch.arange(known.shape[-1]) == variable
        new = torch.where(keep.to(known.device), mapped, new)
    return new, apply(known, flow.network(new, context))[1].sum(-1)


@each_equation
@each_source
def test_the_slow_way_is_that_of_whole_passes(
    equation: Callable[[], Equation], source: str, device: torch.device
) -> None:
    flow = layer(equation, source, skip=True).to(device)
    known, context = torch.randn(3, 5).to(device), torch.randn(2, 1, 2).to(device)
    expected = by_whole_passes(flow, known.expand(2, 3, 5), context)
    for found, e in zip(slow_way(flow)(known, context), expected, strict=True):
        torch.testing.assert_close(found, e, atol=1e-12, rtol=1e-12)


@each_equation
@each_source
def test_both_ways_are_triangular_in_the_order(
    equation: Callable[[], Equation], source: str
) -> None:
    flow, context = layer(equation, source), torch.randn(2)
    for way in (flow.forward_and_log_det, flow.inverse_and_log_det):
        points = torch.randn(5)
        jacobian = torch.autograd.functional.jacobian(lambda p, w=way: w(p, context)[0], points)
        ordered = jacobian[ORDER][:, ORDER]
        assert torch.equal(ordered, ordered.tril())
        assert bool((ordered.diagonal() > 0).all())
        assert bool((ordered != 0).sum() == 15)  # and every variable does depend on those before
        torch.testing.assert_close(way(points, context)[1], ordered.diagonal().log().sum())


@each_equation
@each_source
def test_gradients_of_all_parameters_agree_with_finite_differences(
    equation: Callable[[], Equation], source: str
) -> None:
    g = equation()
    network = MaskedMLP(3, (4,), g.num_parameters, context_dim=1, activation=nn.Tanh)
    flow = Autoregressive(g, network, parameters_from=source)  # type: ignore[arg-type]
    names = [name for name, _ in flow.named_parameters()]
    values = [(p + 0.3 * torch.randn_like(p)).detach().requires_grad_() for p in flow.parameters()]
    points, context = (torch.randn(2, size, requires_grad=True) for size in (3, 1))

    for way in ("forward_and_log_det", "inverse_and_log_det"):

        def run(
            points: torch.Tensor, context: torch.Tensor, *values: torch.Tensor, way: str = way
        ) -> Any:
            state = dict(zip(names, values, strict=True))
            return functional_call(
                _Way(flow, way),
                {f"flow.{n}": v for n, v in state.items()},
                (
                    points,
                    context,
                ),
            )

        assert torch.autograd.gradcheck(run, (points, context, *values))


class _Way(nn.Module):
    """One of a transform's passes, as a module that is called."""

    def __init__(self, flow: nn.Module, way: str) -> None:
        super().__init__()
        self.flow, self.way = flow, way

    def forward(self, points: torch.Tensor, context: torch.Tensor) -> Any:
        return getattr(self.flow, self.way)(points, context)


@each_source
def test_the_slow_way_costs_no_more_products_than_the_fast_one(source: str) -> None:
    flow, points = layer(Affine, source, context_dim=0), torch.randn(7, 5)
    counts = []
    for way in (slow_way(flow), fast_way(flow)):
        with FlopCounterMode(display=False) as counter:
            way(points)
        counts.append(counter.get_total_flops())
    assert 0 < counts[0] <= counts[1]


@each_source
def test_values_do_not_depend_on_whether_gradients_are_kept(source: str) -> None:
    flow, points, context = layer(Affine, source), torch.randn(7, 5), torch.randn(7, 2)
    kept = slow_way(flow)(points, context)
    with torch.no_grad():
        for found, expected in zip(slow_way(flow)(points, context), kept, strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("make", [maf, iaf, spline_autoregressive])
def test_flows_start_near_the_identity(make: Callable[..., Any]) -> None:
    x = torch.randn(500, 6)
    y = make(6)(x).detach()
    assert float((y - x).std()) < 0.5 * float(x.std())
    assert not torch.equal(y, x)


def test_which_way_is_fast() -> None:
    assert maf(2).inverse_is_fast
    assert spline_autoregressive(2).inverse_is_fast
    assert not iaf(2).inverse_is_fast
    assert iaf(2).inv.inverse_is_fast


def test_random_orders_are_permutations_and_differ() -> None:
    layers = autoregressive_layers(20, Affine, num_layers=2, order="random", hidden_dims=(4,))
    orders = [each.network.order.tolist() for each in layers]
    assert [sorted(order) for order in orders] == [list(range(20))] * 2
    assert orders[0] != orders[1]


def test_a_flow_of_one_variable_in_context_is_a_law_of_the_context() -> None:
    flow = maf(1, context_dim=2, num_layers=1, hidden_dims=(8,))
    x, context = torch.randn(10, 1), torch.randn(10, 2)
    y = flow.forward_and_log_det(x, context)[0]
    slope, shift = (y[0] - flow.forward_and_log_det(-x, context)[0][0]) / (2 * x[0]), y[0]
    shift = shift - slope * x[0]
    law = dist.Normal(shift, slope)
    base = dist.Normal(torch.zeros(1), torch.ones(1)).to_event(1)
    found = dist.TransformedDistribution(base, [flow.condition(context[0])]).log_prob(y[1])
    torch.testing.assert_close(found, law.log_prob(y[1]).sum())


def test_learns_a_law_whose_density_is_known() -> None:
    # x_2 given x_1 is N(x_1^2, 1/4), which one affine layer in this order contains but for the
    # network's shape; the gap to the entropy is the divergence, and must get small.
    flow = maf(2, num_layers=1, hidden_dims=(32, 32), activation=nn.Tanh)
    base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    law = dist.TransformedDistribution(base, [flow])

    def draw(num: int) -> torch.Tensor:
        first = torch.randn(num)
        return torch.stack([first, first**2 + torch.randn(num) / 2], -1)

    def true_log_prob(y: torch.Tensor) -> torch.Tensor:
        second = dist.Normal(y[:, 0] ** 2, 0.5).log_prob(y[:, 1])
        return dist.Normal(0.0, 1.0).log_prob(y[:, 0]) + second

    held_out = draw(20_000)
    gaps = []
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for i in range(300):
        if i in (0, 299):
            with torch.no_grad():
                gap = true_log_prob(held_out) - law.log_prob(held_out)
            gaps.append((float(gap.mean()), float(gap.std()) / 20_000**0.5))
        loss = -law.log_prob(draw(256)).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert gaps[0][0] > 0.5
    assert -4 * gaps[1][1] < gaps[1][0] < 0.1 + 4 * gaps[1][1]


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="2 parameters for every variable, as Affine has, got"):
        Autoregressive(Affine(), MaskedMLP(3, (4,), 1))
    with pytest.raises(ValueError, match="expected as parameters_from 'data'"):
        Autoregressive(Affine(), MaskedMLP(3, (4,), 2), parameters_from="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected as order 'alternating' or 'random'"):
        maf(3, order="reverse")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_layers a positive"):
        iaf(3, num_layers=0)
