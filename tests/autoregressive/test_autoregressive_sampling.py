# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Quick draws: the same values as the slowest way gives, with a fraction of its work."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pyro_deepgen.autoregressive import (
    MADE,
    NADE,
    CategoricalOutput,
    LinearAutoregressive,
    NADEk,
    NeuralAutoregressiveNet,
    OrderlessNADE,
)
from tests.autoregressive.models import ALL, REAL, changed, several, shuffled

pytestmark = pytest.mark.usefixtures("float64")


def both_ways(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return draws of the quick and of the slowest way from the same random numbers."""
    torch.manual_seed(5)
    quick = model.sample((50,))
    torch.manual_seed(5)
    return quick, model.naive_sample((50,))


@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("name", ALL)
def test_the_same_values_from_the_same_random_numbers(name: str, context_dim: int) -> None:
    model = changed(ALL[name](6, order=shuffled(6), context_dim=context_dim), 0.4)
    if context_dim:
        model = model.condition(torch.randn(3, context_dim))
    quick, slow = both_ways(model)
    assert quick.dtype == slow.dtype
    assert quick.shape == (50, *model.batch_shape, 6)
    if name in REAL:
        torch.testing.assert_close(quick, slow)
    else:
        assert torch.equal(quick, slow)
        assert len(quick.unique()) == model.output.num_values


@pytest.mark.parametrize("name", several(5))
def test_the_same_values_of_means_over_orders(name: str) -> None:
    assert torch.equal(*both_ways(several(5)[name]()))


def test_a_wrong_order_gives_other_values() -> None:
    model = changed(NADE(6, 8, order=shuffled(6)))
    quick, _ = both_ways(model)
    model.order_indices.copy_(torch.arange(6))
    assert not torch.equal(both_ways(model)[1], quick)


WORK: dict[str, Callable[[], Any]] = {
    "linear": lambda: LinearAutoregressive(64),
    "linear_4": lambda: LinearAutoregressive(32, CategoricalOutput(4)),
    "neural": lambda: NeuralAutoregressiveNet(32, 4),
    "nade": lambda: NADE(64, 50),
    "orderless": lambda: OrderlessNADE(64, (50, 40)),
    "nade_k": lambda: NADEk(32, 50, 3),
    "made": lambda: MADE(64, (50,)),
    "made_deep": lambda: MADE(64, (50, 40)),
    "made_4": lambda: MADE(32, (50, 40), CategoricalOutput(4)),
}


@pytest.mark.parametrize("name", WORK)
def test_a_draw_takes_less_than_a_fifth_of_the_products(name: str) -> None:
    model = WORK[name]().eval().requires_grad_(False)
    counts = []
    for draw in (model.sample, model.naive_sample):
        with FlopCounterMode(display=False) as counter:
            draw((10,))
        counts.append(counter.get_total_flops())
    assert counts[1] > 0
    assert 5 * counts[0] < counts[1]


# ---------------------------------------------------------------- draws with gradients


@pytest.mark.parametrize("name", ["linear_real", "made_real", "nade_real", "orderless_real"])
def test_draws_with_gradients(name: str) -> None:
    model = changed(REAL[name](3, order=[2, 0, 1], context_dim=2), 0.3)
    context = torch.randn(2)

    def first_draw(context: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(2)
        return torch.as_tensor(model.condition(context).rsample())

    assert model.has_rsample
    assert torch.autograd.gradcheck(first_draw, context.requires_grad_())


def test_draws_of_discrete_variables_have_no_gradients() -> None:
    assert not NADE(3, 4).has_rsample
    with pytest.raises(ValueError, match=r"GaussianOutput and one order.*use sample\(\)"):
        NADE(3, 4).rsample()


def test_draws_follow_the_seed_and_leave_gradients_alone() -> None:
    model = MADE(4, (6,))
    torch.manual_seed(1)
    first = model.sample((20,))
    torch.manual_seed(1)
    assert torch.equal(model.sample((20,)), first)
    assert not first.requires_grad
    assert model.sample((0,)).shape == (0, 4)


@pytest.mark.parametrize("name", several(4))
def test_no_draws_at_all(name: str) -> None:
    assert several(4)[name]().sample((0,)).shape == (0, 4)
