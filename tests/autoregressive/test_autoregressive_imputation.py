# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Completing values: exact after what is known, by weights elsewhere, in any order."""

from typing import Any

import pytest
import torch

from pyro_deepgen.autoregressive import NADE, GaussianOutput, LinearAutoregressive, OrderlessNADE
from tests.autoregressive.models import BINARY, TERNARY, changed, several

pytestmark = pytest.mark.usefixtures("float64")

NUM = 10_000
PARTICLES = 100
TOLERANCE = 0.035  # a bias of about 1 / PARTICLES, and 4.5 standard errors
ORDER = [3, 1, 0, 2]
FIRST = torch.tensor([False, True, False, True])  # what comes first in this order
LAST = ~FIRST


def conditional(model: Any, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the exact probability of each completion, by enumeration."""
    support = model.enumerate_support()
    agree = (support == x)[:, mask].all(-1)
    return torch.where(agree, model.log_prob(support).exp().detach(), 0.0) / (
        torch.where(agree, model.log_prob(support).exp().detach(), 0.0).sum()
    )


def frequencies(model: Any, draws: torch.Tensor) -> torch.Tensor:
    powers = model.output.num_values ** torch.arange(draws.shape[-1])
    size = len(model.enumerate_support())
    return torch.bincount((draws.long() * powers).sum(-1), minlength=size) / len(draws)


def too_far(observed: torch.Tensor, probs: torch.Tensor, standard_errors: float = 4.5) -> bool:
    error = (probs * (1 - probs) / NUM).sqrt()
    return bool(((observed - probs).abs() > standard_errors * error + 1e-12).any())


@pytest.mark.parametrize("name", [*BINARY, *TERNARY])
def test_exact_where_the_known_variables_come_first(name: str) -> None:
    model = changed({**BINARY, **TERNARY}[name](4, order=ORDER))
    x = torch.tensor([9.0, 1.0, torch.nan, 0.0])  # what is missing may be anything
    done = model.impute(x.expand(NUM, 4), FIRST)
    assert done.value[:, FIRST].unique(dim=0).tolist() == [[1.0, 0.0]]
    assert bool(done.exact.all())
    if name.startswith(("orderless", "nade_k")):
        assert done.method == "any order"
    else:
        assert done.method == "exact"
        assert done.effective_sample_size.tolist() == [1.0] * NUM
        probs = conditional(model, x, FIRST)
        assert not too_far(frequencies(model, done.value), probs)
        uniform = torch.where(probs > 0, 1 / (probs > 0).sum(), 0.0)
        assert too_far(frequencies(model, done.value), uniform), "the test can fail"


@pytest.mark.parametrize("name", ["linear", "nade", "made", "nade_3", "made_deep_3"])
def test_weights_make_up_for_known_variables_that_come_later(name: str) -> None:
    model = changed({**BINARY, **TERNARY}[name](4, order=ORDER), 1.5)
    x = torch.tensor([1.0, torch.nan, 0.0, torch.nan])
    probs = conditional(model, x, LAST)
    done = model.impute(x.expand(NUM, 4), LAST, num_particles=PARTICLES)
    assert done.method == "importance"
    assert not bool(done.exact.any())
    assert bool(((frequencies(model, done.value) - probs).abs() < TOLERANCE).all())
    assert float(done.effective_sample_size.mean()) < PARTICLES - 1
    ignored = model.impute(x.expand(NUM, 4), LAST, num_particles=1)
    biased = frequencies(model, ignored.value)
    assert bool(((biased - probs).abs() > 1.5 * TOLERANCE).any()), (
        "without weights it is another law"
    )


def test_the_linear_gaussian_model_given_its_last_variable() -> None:
    model = changed(LinearAutoregressive(2, GaussianOutput()), 0.8)
    cov, mean = model.covariance_matrix.detach(), model.mean.detach()
    x = torch.tensor([0.0, float(mean[1]) + 0.7])
    known = torch.tensor([False, True])
    draws = model.impute(x.expand(4000, 2), known, num_particles=500).value[:, 0]
    expected = mean[0] + cov[0, 1] / cov[1, 1] * 0.7
    variance = cov[0, 0] - cov[0, 1] ** 2 / cov[1, 1]
    error = (variance / 4000).sqrt()
    assert abs(float(draws.mean() - expected)) < 4 * float(error) + 0.01 * float(variance.sqrt())
    torch.testing.assert_close(draws.var(), variance, rtol=0.12, atol=0)
    assert abs(float(mean[0] - expected)) > 8 * float(error), "the known variable matters"


def test_any_order_draws_from_the_models_own_conditionals() -> None:
    model = changed(OrderlessNADE(4, (9,)))
    x = torch.tensor([1.0, torch.nan, 0.0, torch.nan])
    done = model.impute(x.expand(NUM, 4), LAST)
    # The two orders of the missing variables, each after the known ones, with equal chances.
    probs = torch.zeros(16)
    for order in ([0, 2, 1, 3], [0, 2, 3, 1]):
        model.order_indices.copy_(torch.tensor([order]))
        probs += conditional(model, x, LAST) / 2
    assert done.method == "any order"
    assert not too_far(frequencies(model, done.value), probs)
    model.order_indices.copy_(torch.tensor([[1, 3, 0, 2]]))
    assert too_far(frequencies(model, done.value), conditional(model, x, LAST))


def test_each_datum_has_its_own_mask() -> None:
    for model in (changed(NADE(5, 6)), changed(OrderlessNADE(5, 6)), several(5)["made_masks"]()):
        x, mask = model.sample((3, 7)), torch.rand(3, 7, 5) < 0.5
        mask[0, 0], mask[1, 1] = True, False
        hidden = torch.where(mask, x, torch.nan)
        done = model.impute(hidden, mask, num_particles=5)
        assert torch.equal(done.value[mask], x[mask])
        assert bool(model.support.check(done.value).all())
        assert done.exact.shape == done.effective_sample_size.shape == (3, 7)
    mixed = changed(NADE(3, 4)).impute(torch.zeros(2, 3), torch.tensor([[1, 0, 0], [0, 0, 1]]) > 0)
    assert mixed.exact.tolist() == [True, False]
    assert mixed.method == "importance"


def test_a_mean_over_masks_weighs_its_masks() -> None:
    model = several(4)["made_masks"]()
    x, mask = torch.tensor([1.0, torch.nan, 0.0, torch.nan]), LAST
    probs = conditional(model, x, mask)
    done = model.impute(x.expand(NUM, 4), mask, num_particles=PARTICLES)
    assert bool(((frequencies(model, done.value) - probs).abs() < TOLERANCE).all())


def test_contexts_are_those_of_the_data() -> None:
    for make in (BINARY["nade"], BINARY["orderless"]):
        model = changed(make(1, context_dim=1))
        given = model.condition(torch.tensor([[-2.0], [2.0]]))
        expected = given.log_prob(torch.ones(1)).exp()
        assert bool(((expected[0] - expected[1]).abs() > 0.02).all()), "the context matters"
        done = given.impute(torch.zeros(NUM, 2, 1), torch.zeros(1, dtype=torch.bool))
        error = (expected * (1 - expected) / NUM).sqrt()
        difference = done.value.mean(0).squeeze(-1) - expected
        assert bool((difference.abs() < 4.5 * error + 1e-12).all())


def test_wrong_arguments() -> None:
    model = NADE(4, 3)
    x, mask = torch.zeros(2, 4), torch.ones(4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"boolean mask.*torch.float64.*mask.bool\(\)"):
        model.impute(x, mask.double())
    with pytest.raises(ValueError, match=r"last dimensions are \(4,\), got shape \(2, 3\)"):
        model.impute(x[:, :3], mask)
    with pytest.raises(ValueError, match=r"broadcasts to the shape of x, \(2, 4\), got \(3,\)"):
        model.impute(x, mask[:3])
    with pytest.raises(ValueError, match="num_particles a positive"):
        model.impute(x, mask, num_particles=0)
    with pytest.raises(ValueError, match="known values in the support of NADE"):
        model.impute(x + 0.5, mask)
