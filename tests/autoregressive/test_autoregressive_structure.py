# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Who sees whom: parameters of a variable depend on those before it and on no others."""

from typing import Any

import pytest
import torch

from pyro_deepgen.autoregressive import MADE, OrderlessNADE
from tests.autoregressive.models import ALL, BINARY, REAL, TERNARY, changed, shuffled

pytestmark = pytest.mark.usefixtures("float64")

SIZE = 6
ORDERS = [list(range(SIZE)), shuffled(SIZE), [5, 1, 4, 0, 3, 2]]


def allowed(order: torch.Tensor) -> torch.Tensor:
    """Return whether a variable (row) may depend on a variable (column)."""
    place = order.argsort()
    return place[:, None] > place


def gradient_pattern(model: Any, component: int = 0) -> torch.Tensor:
    """Return which inputs have a gradient in the parameters of which variable, `(D, D)`."""
    x = torch.randn(30, SIZE)

    def summed(x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(model.conditionals(x, None, component).sum(0))

    return (torch.autograd.functional.jacobian(summed, x) != 0).any(1).any(1)


def change_pattern(model: Any, component: int = 0) -> torch.Tensor:
    """Return which variables change the parameters of which, by changes of classes."""
    x = torch.randint(3, (60, SIZE))
    before = model.conditionals(x, None, component)
    columns = []
    for variable in range(SIZE):
        other = x.clone()
        other[:, variable] = (other[:, variable] + 1) % 3
        after = model.conditionals(other, None, component)
        columns.append((after != before).any(-1).any(0))
    return torch.stack(columns, -1)


def pattern(name: str, model: Any, component: int = 0) -> torch.Tensor:
    return (change_pattern if name in TERNARY else gradient_pattern)(model, component)


@pytest.mark.parametrize("order", ORDERS, ids=["indices", "shifted", "shuffled"])
@pytest.mark.parametrize("name", ALL)
def test_parameters_see_the_variables_before_and_no_others(name: str, order: Any) -> None:
    model = changed(ALL[name](SIZE, order=order))
    assert model.order.tolist() == list(order)
    assert torch.equal(pattern(name, model), allowed(model.order))


@pytest.mark.parametrize(
    "make",
    [lambda: MADE(SIZE, (30, 25), num_masks=4), lambda: OrderlessNADE(SIZE, (9,)).ensemble(4)],
    ids=["made", "eonade"],
)
def test_under_every_mask(make: Any) -> None:
    model = make()
    weights = changed(model)
    assert len({tuple(order) for order in weights.orders.tolist()}) > 1
    for component in range(4):
        seen = gradient_pattern(weights, component)
        assert torch.equal(seen, allowed(weights.orders[component]))


def test_masks_share_their_weights() -> None:
    one, many = MADE(SIZE, (30,)), MADE(SIZE, (30,), num_masks=5)
    assert sum(p.numel() for p in many.parameters()) == sum(p.numel() for p in one.parameters())


@pytest.mark.parametrize("name", ["made", "made_deep"])
def test_a_planted_mask_error_is_found(name: str) -> None:
    model = changed(BINARY[name](SIZE))
    network = model.networks[0]
    network.layers[0].mask[0, -1] = 1.0  # a unit that sees one variable too many
    assert not torch.equal(gradient_pattern(model), allowed(model.order))


def test_a_planted_shift_of_the_sums_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_deepgen.autoregressive import shared_weights

    right = shared_weights.running_sums

    def wrong(x: torch.Tensor, weight: torch.Tensor, *args: Any) -> Any:
        (sums,) = right(x, weight, *args)  # SIZE is less than a block
        yield sums + x.unsqueeze(-1) * weight.squeeze(-2)  # the variable itself is added

    model = changed(BINARY["nade"](SIZE))
    monkeypatch.setattr(shared_weights, "running_sums", wrong)
    assert not torch.equal(gradient_pattern(model), allowed(model.order))


@pytest.mark.parametrize("name", ["nade", "orderless"])
def test_running_sums_go_on_from_block_to_block(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_deepgen.autoregressive import running_sums

    model = changed(BINARY[name](SIZE, order=shuffled(SIZE), context_dim=2))
    x, context = torch.randint(2, (7, SIZE)).double(), torch.randn(7, 2)
    whole = model.conditionals(x, context)
    monkeypatch.setattr(running_sums, "BLOCK", 4)
    torch.testing.assert_close(model.conditionals(x, context), whole)


@pytest.mark.parametrize("name", [n for n in ALL if n.startswith("orderless")])
def test_running_sums_are_predictions_with_a_mask_each(name: str) -> None:
    """The quick conditionals are those that a pass with the mask of each place gives."""
    model = changed(ALL[name](SIZE, order=shuffled(SIZE), context_dim=2))
    draws = model.condition(torch.randn(5, 2)).sample()
    context = torch.randn(5, 2)
    slow = super(OrderlessNADE, model).conditionals(draws, context)
    torch.testing.assert_close(model.conditionals(draws, context), slow)


@pytest.mark.parametrize("name", ["nade_k", "orderless", "orderless_3", "orderless_real"])
def test_what_is_not_known_does_not_matter(name: str) -> None:
    model = changed(ALL[name](SIZE), 0.3)
    x = model.sample((5,))
    known = torch.rand(5, SIZE) < 0.5
    other = torch.where(known, x, 1 - x if name not in REAL else x + 3)
    if name == "orderless_3":
        other = torch.where(known, x, (x + 1) % 3)
    assert torch.equal(model.predict(x, known), model.predict(other, known))
