# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Masked networks: who sees whom, and the pass in slices against the pass at once."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pyro_deepgen.nn import MaskedLinear, MaskedMLP, as_order, spread_degrees
from pyro_deepgen.nn.slices import Blocks, starts_of

pytestmark = pytest.mark.usefixtures("float64")

NETS: dict[str, Callable[[], MaskedMLP]] = {
    "one_layer": lambda: MaskedMLP(4, (9,), 1, activation=nn.Tanh),
    "linear": lambda: MaskedMLP(4, (), 3, order=[1, 3, 0, 2]),
    "deep_in_another_order": lambda: MaskedMLP(
        5, (8, 11, 9), 2, order=[3, 0, 4, 1, 2], activation=nn.Tanh
    ),
    "in_context": lambda: MaskedMLP(
        3, (6, 6), 2, order=[2, 0, 1], context_dim=2, skip=True, activation=nn.Tanh
    ),
    "of_given_degrees": lambda: MaskedMLP(
        4, (5, 4), 2, degrees=[[3, 0, 1, 2, 1], [2, 3, 1, 0]], skip=True, activation=nn.Tanh
    ),
    "narrow_with_skip": lambda: MaskedMLP(6, (2, 3), 1, skip=True, activation=nn.Tanh),
    "one_variable": lambda: MaskedMLP(1, (3,), 2, context_dim=2, activation=nn.Tanh),
    "one_variable_alone": lambda: MaskedMLP(1, (3, 3), 2),
}
every = pytest.mark.parametrize("make", NETS.values(), ids=NETS)


def changed(make: Callable[[], MaskedMLP]) -> MaskedMLP:
    net = make()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_()
    return net


def context_for(net: MaskedMLP, *batch: int) -> torch.Tensor | None:
    return torch.randn(*batch, net.context_dim) if net.context_dim else None


def allowed(order: Sequence[int]) -> torch.Tensor:
    """Return whether the parameters of a variable (row) may see a variable (column)."""
    place = torch.empty(len(order), dtype=torch.long)
    place[list(order)] = torch.arange(len(order))
    return place[:, None] > place


# ---------------------------------------------------------------- who sees whom


def influence(net: MaskedMLP, **kwargs: Any) -> torch.Tensor:
    """Return which variables each parameter depends on at some of 20 points, `(D, P, D)`."""
    x, context = torch.randn(20, net.num_variables), context_for(net, 20)

    def total(x: torch.Tensor) -> torch.Tensor:
        return net(x, context).sum(0)

    return (torch.autograd.functional.jacobian(total, x).abs() > 1e-12).any(2)


@every
def test_a_parameter_sees_the_variables_before_and_no_others(make: Callable[[], MaskedMLP]) -> None:
    net = changed(make)
    seen = influence(net)
    expected = allowed(net.order.tolist())
    assert torch.equal(seen, expected[:, None].expand_as(seen))


def test_a_planted_wrong_mask_is_found() -> None:
    net = changed(NETS["one_layer"])
    last = net.layers[-1]
    assert isinstance(last, MaskedLinear)
    last.mask[0, -1] = 1.0  # the first variable sees a unit of the last degree
    seen = influence(net)
    assert bool((seen & ~allowed(range(4))[:, None]).any())


def test_the_context_reaches_every_parameter() -> None:
    for name in ("in_context", "one_variable"):
        net = changed(NETS[name])
        x, context = torch.randn(net.num_variables), torch.randn(net.context_dim)
        jacobian = torch.autograd.functional.jacobian(lambda c, x=x, n=net: n(x, c), context)
        assert bool((jacobian != 0).all())


@every
def test_hidden_weights_are_no_part_of_the_map(make: Callable[[], MaskedMLP]) -> None:
    net = changed(make)
    x, context = torch.randn(7, net.num_variables), context_for(net, 7)
    before = net(x, context)
    for layer in net.modules():
        if isinstance(layer, MaskedLinear):
            with torch.no_grad():
                layer.weight.add_(1e3 * (1 - layer.mask))
    assert torch.equal(net(x, context), before)
    generated = net.generate(lambda k, theta: theta.sum(-1).tanh(), (7,), context)
    assert bool((generated.abs() <= 1).all())
    torch.testing.assert_close(net(generated, context).sum(-1).tanh(), generated)


@pytest.mark.parametrize("num_units", [1, 2, 3, 7, 8, 20])
@pytest.mark.parametrize("from_none", [False, True])
def test_degrees_are_spread_evenly(num_units: int, from_none: bool) -> None:
    degrees = spread_degrees(num_units, 8, from_none=from_none)
    least = 0 if from_none else 1
    assert degrees == sorted(degrees)
    assert degrees[0] == least
    assert degrees[-1] == 7 or num_units == 1
    if num_units >= 8 - least:
        counts = [degrees.count(degree) for degree in range(least, 8)]
        assert max(counts) - min(counts) <= 1
    else:
        assert len(set(degrees)) == num_units


# ---------------------------------------------------------------- the pass in slices


def naive(
    net: MaskedMLP,
    step: Callable[[int, torch.Tensor], torch.Tensor],
    batch: Sequence[int],
    context: torch.Tensor | None,
) -> torch.Tensor:
    """Make the variables with a whole pass for each."""
    x = torch.zeros((*batch, net.num_variables))
    for place, variable in enumerate(net.order.tolist()):
        theta = net(x, context)[..., variable, :].reshape(-1, net.num_parameters)
        x = x.clone()
        x[..., variable] = step(place, theta).reshape(tuple(batch))
    return x


@every
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)], ids=str)
def test_slices_give_what_whole_passes_give(
    make: Callable[[], MaskedMLP], batch: tuple[int, ...], device: torch.device
) -> None:
    net = changed(make).to(device)
    context = context_for(net, *batch[-1:])  # broadcasts
    context = None if context is None else context.to(device)
    num = int(torch.tensor(batch).prod())
    noise = torch.randn(net.num_variables, num).to(device)

    def step(place: int, theta: torch.Tensor) -> torch.Tensor:
        return noise[place] + theta.tanh().sum(-1)

    with torch.device(device):
        expected = naive(net, step, batch, context)
    found = net.generate(step, batch, context)
    assert found.shape == (*batch, net.num_variables)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    with torch.no_grad():
        assert torch.equal(net.generate(step, batch, context), found)


@every
def test_gradients_flow_through_the_slices(make: Callable[[], MaskedMLP]) -> None:
    net = changed(make)
    context = context_for(net, 3)
    noise = torch.randn(net.num_variables, 3, requires_grad=True)

    def step(place: int, theta: torch.Tensor) -> torch.Tensor:
        return noise[place] + theta.tanh().sum(-1)

    leaves = [noise, *net.parameters()]
    if context is not None:
        leaves.append(context.requires_grad_())
    weights = torch.randn(3, net.num_variables)
    found = torch.autograd.grad((net.generate(step, (3,), context) * weights).sum(), leaves)
    expected = torch.autograd.grad(
        (naive(net, step, (3,), context) * weights).sum(), leaves, allow_unused=True
    )
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, torch.zeros_like(f) if e is None else e)


class Counting(nn.Module):
    """Counts the numbers that an activation is computed of."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += x.numel()
        return x.tanh()


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_every_hidden_unit_is_computed_once(size: int) -> None:
    net = MaskedMLP(size, (40, 33), 2, activation=Counting, skip=True)
    net.generate(lambda place, theta: theta.sum(-1), (5,))
    assert [activation.count for activation in net.activations] == [5 * 40, 5 * 33]


@pytest.mark.parametrize("size", [2, 7, 16])
def test_the_products_are_those_of_what_the_masks_show(size: int) -> None:
    net = MaskedMLP(size, (40, 33), 2, skip=True)

    def step(place: int, theta: torch.Tensor) -> torch.Tensor:
        return theta.sum(-1)

    counts = []
    for run in (
        lambda: net.generate(step, (5,)),
        lambda: net(torch.zeros(5, size)),
        lambda: naive(net, step, (5,), None),
    ):
        with FlopCounterMode(display=False) as counter:
            run()
        counts.append(counter.get_total_flops())
    in_slices, at_once, of_whole_passes = counts
    shown = sum(int(m.mask.sum()) for m in net.modules() if isinstance(m, MaskedLinear))
    assert in_slices == 2 * 5 * shown < at_once
    assert of_whole_passes == size * at_once  # the count sees a pass for each variable


@every
def test_rectangles_cover_what_the_masks_show_once(make: Callable[[], MaskedMLP]) -> None:
    net = make()
    pairs = list(zip(net.blocks, net.layers, strict=True))
    if net.skip is not None:
        pairs.append((net.skip_blocks, net.skip))
    for blocks, layer in pairs:
        assert isinstance(blocks, Blocks)
        assert isinstance(layer, MaskedLinear)
        shown = layer.mask.reshape(-1).nonzero()[:, 0]
        assert torch.equal(blocks.index.sort().values, shown)


def test_starts_count_the_units_below_a_degree() -> None:
    degrees = [0, 0, 2, 2, 2, 3]
    assert starts_of(degrees, 4) == [sum(d < k for d in degrees) for k in range(5)]


def test_draws_of_a_binary_law_are_those_of_its_conditionals() -> None:
    # All 8 configurations, by the conditionals that `generate` shows its step.
    net = changed(lambda: MaskedMLP(3, (12,), 1, order=[1, 2, 0], activation=nn.Tanh))
    uniforms = torch.rand(3, 100_000)
    draws = net.generate(
        lambda k, theta: (uniforms[k] < theta[:, 0].sigmoid()).to(theta.dtype), (100_000,)
    )
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    logits = net(states).squeeze(-1)
    probs = torch.where(states == 1, logits.sigmoid(), (-logits).sigmoid()).prod(-1)
    torch.testing.assert_close(probs.sum(), torch.tensor(1.0))
    places = (draws * torch.tensor([4.0, 2.0, 1.0])).sum(-1).long()
    freqs = torch.bincount(places, minlength=8) / 100_000
    assert bool(((freqs - probs).abs() <= 4 * (probs * (1 - probs) / 100_000).sqrt()).all())


# ---------------------------------------------------------------- as a module


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("hidden", [(), (9, 7)])
def test_a_state_dict_brings_its_order(hidden: tuple[int, ...], assign: bool) -> None:
    net, other = (
        nn.Sequential(MaskedMLP(4, hidden, 2, order=o, skip=True, context_dim=3))
        for o in ([3, 1, 0, 2], [0, 1, 2, 3])
    )
    x, context = torch.randn(5, 4), torch.randn(5, 3)
    assert not torch.allclose(net[0](x, context), other[0](x, context))
    saved = {name: value.clone() for name, value in net.state_dict().items()}
    other.load_state_dict(saved, assign=assign)
    assert torch.equal(net[0](x, context), other[0](x, context))

    def step(place: int, theta: torch.Tensor) -> torch.Tensor:
        return theta.sum(-1) + 1.0

    expected = net[0].generate(step, (5,), context)
    for each in (other, copy.deepcopy(net), copy.deepcopy(other)):
        assert torch.equal(each[0].generate(step, (5,), context), expected)
        assert not each[0].layers[0].mask.requires_grad


def test_a_state_dict_without_a_right_order_is_refused() -> None:
    net = MaskedMLP(3, (4,), 1)
    with pytest.raises(ValueError, match="from 0 to 2 once"):
        net.load_state_dict(net.state_dict() | {"order": torch.tensor([0, 0, 1])})


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_no_pass_moves_data(order: list[int]) -> None:
    net, x = MaskedMLP(3, (4,), 2, order=order), torch.randn(5, 3, requires_grad=True)
    with torch.profiler.profile() as profile:
        shift, scale = net(x).mT.unbind(-2)
        torch.autograd.grad((shift * scale).sum(), x)
    moving = {"aten::index_select", "aten::flip", "aten::gather", "aten::clone"}
    names = {event.key for event in profile.key_averages()}
    assert "aten::addmm" in names
    assert not names & moving


def test_contexts_and_inputs_broadcast() -> None:
    net = changed(NETS["in_context"])
    x, context = torch.randn(3, 3), torch.randn(5, 1, 2)
    found = net(x, context)
    assert found.shape == (5, 3, 3, 2)
    torch.testing.assert_close(found[4, 1], net(x[1], context[4, 0]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskedMLP(0, (4,), 1), "num_variables a positive"),
        (lambda: MaskedMLP(3, (4,), 0), "num_parameters a positive"),
        (lambda: MaskedMLP(3, (0,), 1), "hidden_dims a sequence"),
        (lambda: MaskedMLP(3, (4,), 1, context_dim=-1), "context_dim a positive"),
        (lambda: MaskedMLP(3, (4,), 1, order=[0, 0, 2]), "from 0 to 2 once"),
        (lambda: MaskedMLP(3, (2,), 1, degrees=[[1, 3]]), "whole numbers from 0 to 2"),
        (lambda: MaskedMLP(3, (2,), 1, degrees=[[]]), "whole numbers from 0 to 2"),
        (lambda: MaskedMLP(3, (2,), 1, degrees=[[1, 2, 1]]), r"hidden layers of \(2,\) units"),
        (lambda: as_order(["a"], 1), "from 0 to 0 once"),  # type: ignore[list-item]
        (lambda: MaskedMLP(3, (4,), 1)(torch.zeros(2)), "expected 3 variables"),
        (lambda: MaskedMLP(3, (4,), 1)(torch.zeros(3), torch.zeros(2)), "with 0 dimensions"),
        (lambda: MaskedMLP(3, (4,), 1, context_dim=2)(torch.zeros(3)), "with 2 dimensions"),
    ],
)
def test_errors_say_what_was_expected(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
