# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Self-supervised boosting where all states can be listed."""

from itertools import pairwise

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_deepgen.fit import fit
from pyro_deepgen.infer import SelfSupervisedBoosting

from .small_energies import PairEnergy, minimise

N = 3
COUNTS = torch.tensor([5, 1, 2, 3, 1, 1, 4, 2])


class Table(nn.Module):
    """A value for each of 8 states: the feature that can be any function."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.values[(x * torch.tensor([1.0, 2.0, 4.0])).sum(-1).long()]


class Pair(nn.Module):
    """A weak feature: two planes."""

    def __init__(self) -> None:
        super().__init__()
        self.plane = nn.Linear(N, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.plane(x).tanh().sum(-1)


def start() -> dist.Distribution:
    return dist.Bernoulli(torch.full((N,), 0.5)).to_event(1)


def states() -> torch.Tensor:
    return PairEnergy(N).states()


def data() -> torch.Tensor:
    return states().repeat_interleave(COUNTS, 0)


def log_likelihood(boosting: SelfSupervisedBoosting, x: torch.Tensor) -> torch.Tensor:
    return -boosting.energy(x).mean() - (-boosting.energy(states())).logsumexp(0)


def test_a_feature_that_can_be_anything_gives_the_density_of_the_data() -> None:
    boosting, x = SelfSupervisedBoosting(start(), [Table()]).eval(), data()
    before = log_likelihood(boosting, x)
    boosting.begin_round(states())  # each state once: exact draws of the start
    minimise(boosting, x)
    found = boosting.end_round(x)
    assert torch.isclose(found.coefficient, torch.ones(()), atol=1e-5)
    assert torch.allclose((-boosting.energy(states())).softmax(0), COUNTS / COUNTS.sum(), atol=1e-5)
    assert torch.isclose(found.gain, log_likelihood(boosting, x) - before, atol=1e-8)


def test_the_coefficient_maximises_the_likelihood() -> None:
    """At it the mean of the feature is that of the data, as for any exponential family."""
    boosting, x = SelfSupervisedBoosting(start(), [Pair(), Pair()]).eval(), data()
    feature = boosting.features[0]
    boosting.begin_round(states())
    found = boosting.end_round(x)
    weights = (-boosting.energy(states())).softmax(0)
    assert torch.isclose((weights * feature(states())).sum(), feature(x).mean(), atol=1e-10)
    assert 1 < found.effective_size <= 8
    planted = (found.coefficient * 1.1 * -feature(states())).softmax(0)
    assert not torch.isclose((planted * feature(states())).sum(), feature(x).mean(), atol=1e-4)


def test_each_round_of_weak_features_raises_the_likelihood() -> None:
    boosting = SelfSupervisedBoosting(start(), [Pair() for _ in range(5)])
    x, figures = data(), []
    figures.append(float(log_likelihood(boosting, x)))
    for _ in range(5):
        probs = (-boosting.energy(states())).softmax(0)
        boosting.begin_round(states()[probs.multinomial(5000, replacement=True)])
        learned = [p for p in boosting.parameters() if p.requires_grad]
        fit(
            boosting,
            x,
            torch.optim.Adam(learned, lr=0.1),
            num_epochs=100,
            batch_size=len(x),
            progress=False,
        )
        boosting.end_round(x)
        figures.append(float(log_likelihood(boosting, x)))
    shares = COUNTS / COUNTS.sum()
    best = float((shares * shares.log()).sum())
    assert all(after > before - 1e-3 for before, after in pairwise(figures))
    assert figures[-1] > figures[0] + 0.5 * (best - figures[0])
    assert not [p for p in boosting.parameters() if p.requires_grad]


def test_a_feature_of_the_wrong_sign_gets_a_negative_coefficient_within_its_limit() -> None:
    boosting = SelfSupervisedBoosting(start(), [Table(), Table()], max_coefficient=0.5).eval()
    with torch.no_grad():
        boosting.features[0].values.copy_((COUNTS * 8 / COUNTS.sum()).log())
    boosting.begin_round(states())
    assert torch.isclose(boosting.end_round(data()).coefficient, torch.tensor(-0.5))


def test_the_state_comes_back() -> None:
    boosting, x = SelfSupervisedBoosting(start(), [Pair(), Pair()]), data()
    boosting.begin_round(states())
    boosting.end_round(x)
    other = SelfSupervisedBoosting(start(), [Pair(), Pair()])
    other.load_state_dict(boosting.state_dict())
    assert torch.equal(other.energy(x), boosting.energy(x))


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="1 feature or more"):
        SelfSupervisedBoosting(start(), [])
    with pytest.raises(ValueError, match="energy"):
        SelfSupervisedBoosting(torch.zeros(2), [Pair()])
    with pytest.raises(ValueError, match="positive max_coefficient"):
        SelfSupervisedBoosting(start(), [Pair()], max_coefficient=0)
    boosting = SelfSupervisedBoosting(start(), [Pair()])
    with pytest.raises(ValueError, match="begin_round"):
        boosting(data())
    with pytest.raises(ValueError, match="negative examples"):
        boosting.begin_round(torch.zeros(5, N + 1))
    boosting.begin_round(states())
    boosting.end_round(data())
    with pytest.raises(ValueError, match="have had their round"):
        boosting.begin_round(states())
    wide = SelfSupervisedBoosting(start(), [nn.Linear(N, 1)])
    wide.begin_round(states())
    with pytest.raises(ValueError, match="expected a feature"):
        wide(data())
