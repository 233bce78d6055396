# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Dequantisation against probabilities of all levels by quadrature."""

import itertools
import math

import pyro.distributions as dist
import pytest
import torch

from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.nn import MLP
from pyro_deepgen.transforms import CholeskyAffine, Dequantize, Logit, maf

pytestmark = pytest.mark.usefixtures("float64")

NUM_LEVELS, NUM_DRAWS = 3, 20_000
ALL = torch.tensor(list(itertools.product(range(NUM_LEVELS), repeat=2))).double()


def normal(size: int = 2) -> dist.Distribution:
    return dist.Normal(torch.zeros(size), torch.ones(size)).to_event(1)


def density() -> FlowDistribution:
    """Return a correlated law on the unit square."""
    tril = torch.tensor([[1.5, 0.0], [-0.8, 0.7]])
    return FlowDistribution(
        normal(), [CholeskyAffine(2, loc=torch.tensor([0.4, -0.3]), scale_tril=tril), Logit()]
    )


def with_levels(dequantize: Dequantize) -> FlowDistribution:
    parts = list(density().transform.parts)  # type: ignore[attr-defined]
    return FlowDistribution(normal(), [*parts, dequantize])


def conditional_noise() -> Dequantize:
    """Return noise that depends on the levels and is far from uniform."""
    # Wide: with less noise at the ends of a cell than data, a few draws have all the weight.
    wide = CholeskyAffine(2, scale_tril=1.7 * torch.eye(2))
    flow = maf(2, context_dim=4, hidden_dims=(8,), num_layers=1)
    noise = FlowDistribution(normal(), [flow, wide, Logit()])
    return Dequantize(2, NUM_LEVELS, noise=noise, network=MLP(2, (8,), 4))


def exact() -> tuple[torch.Tensor, torch.Tensor]:
    """Return log P(k) of all levels, and the uniform bound, by the midpoint rule in each cell."""
    num = 400
    inside = torch.cartesian_prod(*[(torch.arange(num) + 0.5) / num] * 2)
    with torch.no_grad():
        log_p = density().log_prob((ALL[:, None] + inside) / NUM_LEVELS) - 2 * math.log(NUM_LEVELS)
    return log_p.logsumexp(1) - 2 * math.log(num), log_p.mean(1)


def draws(flow: FlowDistribution) -> torch.Tensor:
    with torch.no_grad():
        return flow.log_prob(ALL.expand(NUM_DRAWS, *ALL.shape))


def is_near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    error = found.std(0) / found.shape[0] ** 0.5
    return bool(((found.mean(0) - expected).abs() < 4.5 * error + 1e-4).all())


def is_below(found: torch.Tensor, limit: torch.Tensor) -> bool:
    error = found.std(0) / found.shape[0] ** 0.5
    return bool((found.mean(0) < limit + 4.5 * error).all())


@pytest.mark.parametrize("make", [lambda: Dequantize(2, NUM_LEVELS), conditional_noise])
def test_the_average_over_draws_is_the_probability_and_that_of_logarithms_is_below(make) -> None:  # type: ignore[no-untyped-def]
    log_probs, uniform_bound = exact()
    assert float(log_probs.exp().sum()) == pytest.approx(1, abs=1e-3)
    dequantize = make()
    found = draws(with_levels(dequantize))
    assert is_near(found.exp(), log_probs.exp())
    assert is_below(found, log_probs)
    if dequantize.noise is None:
        assert is_near(found, uniform_bound)
    # Planted bugs: the volume of a cell forgotten, and the density of the noise with its sign lost.
    assert not is_near((found + 2 * math.log(NUM_LEVELS)).exp(), log_probs.exp())
    if dequantize.noise is not None:
        y, term = dequantize.inverse_and_log_det(ALL.expand(NUM_DRAWS, *ALL.shape))
        log_q = -(term.detach() + 2 * math.log(NUM_LEVELS))
        assert not is_near(
            (density().log_prob(y).detach() - 2 * math.log(NUM_LEVELS) + log_q).exp(),
            log_probs.exp(),
        )


def test_noise_that_learns_closes_the_gap_of_the_bound() -> None:
    dequantize = conditional_noise()
    flow = with_levels(dequantize)
    log_probs, uniform_bound = exact()
    optimiser = torch.optim.Adam(dequantize.parameters(), lr=0.02)
    for _ in range(200):
        loss = -flow.log_prob(ALL.expand(50, *ALL.shape)).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    gap = log_probs - draws(flow).mean(0)
    uniform_gap = log_probs - uniform_bound
    assert float(gap.mean()) < 0.5 * float(uniform_gap.mean())


def test_unconditional_noise_of_any_law() -> None:
    noise = dist.Beta(torch.full((2,), 2.0), torch.full((2,), 3.0)).to_event(1)
    found = draws(with_levels(Dequantize(2, NUM_LEVELS, noise=noise)))
    # Weights of Beta noise have heavy tails: only their average over the levels is compared.
    log_probs, uniform_bound = exact()
    assert is_below(found, log_probs)
    assert not is_near(found, uniform_bound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("num_levels", [2, 17, 256])
def test_levels_come_back_whatever_the_noise(num_levels: int, dtype: torch.dtype) -> None:
    levels = torch.arange(num_levels, dtype=dtype).expand(2, num_levels)
    for value in (0.0, 1e-9, 1 - 1e-9, 1.0):
        noise = dist.Delta(torch.full((num_levels,), value, dtype=dtype)).to_event(1)
        dequantize = Dequantize(num_levels, num_levels, noise=noise)
        y, _ = dequantize.inverse_and_log_det(levels)
        assert bool(((y >= 0) & (y < 1)).all())
        assert torch.equal(dequantize.forward_and_log_det(y)[0], levels)


def test_draws_are_levels_and_points_outside_go_to_the_ends() -> None:
    flow = with_levels(Dequantize(2, NUM_LEVELS))
    drawn = flow.sample((5000,))
    assert bool(flow.support.check(drawn).all())
    log_probs, _ = exact()
    counts = (drawn[:, None] == ALL).all(-1).double().mean(0)
    error = (counts * (1 - counts) / 5000).sqrt() + 1e-3
    assert bool(((counts - log_probs.exp()).abs() < 4.5 * error).all())
    outside, _ = Dequantize(2, 4).forward_and_log_det(torch.tensor([-0.05, 1.05]))
    assert outside.tolist() == [0, 3]


def test_a_draw_is_scored_like_any_other_levels() -> None:
    """The noise that made a draw is not a draw of the noise given the levels."""
    flow = with_levels(conditional_noise())
    assert not flow.has_rsample
    with torch.no_grad():
        drawn = flow.sample((NUM_DRAWS,))
        difference = flow.log_prob(drawn) - flow.log_prob(drawn.clone())
    assert is_near(difference, torch.zeros(()))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("conditional", [False, True])
def test_batch_shapes(batch: tuple[int, ...], conditional: bool) -> None:
    dequantize = conditional_noise() if conditional else Dequantize((2,), NUM_LEVELS)
    levels = torch.ones(*batch, 2)
    y, term = dequantize.inverse_and_log_det(levels)
    assert y.shape == levels.shape
    assert term.shape == batch
    back, forward_term = dequantize.forward_and_log_det(y)
    assert torch.equal(back, levels)
    assert forward_term.shape == batch
    assert not torch.equal(y, dequantize.inverse_and_log_det(levels)[0])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="two levels or more"):
        Dequantize(2, 1)
    with pytest.raises(ValueError, match=r"noise of event_shape \(2,\), got \(3,\)"):
        Dequantize(2, 4, noise=dist.Uniform(torch.zeros(3), torch.ones(3)).to_event(1))
    with pytest.raises(ValueError, match="a network that makes the context"):
        Dequantize(2, 4, network=MLP(2, (), 3))
    with pytest.raises(ValueError, match=r"last dimensions are \(2,\), got shape \(3,\)"):
        Dequantize(2, 4).inverse_and_log_det(torch.zeros(3))
    with pytest.raises(ValueError, match=r"last dimensions are \(1, 2\), got shape \(\)"):
        Dequantize((1, 2), 4).forward_and_log_det(torch.tensor(0.0))
