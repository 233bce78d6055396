# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Pseudo-likelihood and ratio matching against tables of all probabilities."""

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_deepgen.infer import PseudoLikelihood, RatioMatching

from .small_energies import PairEnergy, gradients, is_mean, minimise

N = 4
LOSSES = [PseudoLikelihood, RatioMatching]


def conditionals(model: PairEnergy) -> torch.Tensor:
    """``p(x_i | rest)`` of each state and unit, ``(2 ** N, N)``, from the table of all states."""
    states, probs = model.states(), model.probs()
    columns = []
    for i in range(N):
        rest = torch.cat([states[:, :i], states[:, i + 1 :]], -1)
        same = (rest[:, None] == rest[None]).all(-1).to(probs.dtype)
        columns.append(probs / (same @ probs))
    return torch.stack(columns, -1)


@pytest.mark.parametrize("cls", LOSSES)
def test_values_and_gradients_are_those_of_the_table(cls: type[PseudoLikelihood]) -> None:
    model = PairEnergy(N)
    x = torch.randint(0, 2, (7, N)).to(model.bias.dtype)
    rows = (x[:, None] == model.states()).all(-1).to(x.dtype).argmax(-1)
    table = conditionals(model)[rows]
    expected = -table.log().sum() if cls is PseudoLikelihood else (1 - table).square().sum()
    loss = cls(model)(x)
    assert torch.isclose(loss, expected, rtol=1e-12)
    assert torch.allclose(gradients(loss, model), gradients(expected, model), atol=1e-12)
    # Planted: the energy of the datum and of its flip are exchanged.
    exchanged = -(1 - table).log().sum() if cls is PseudoLikelihood else table.square().sum()
    assert not torch.isclose(loss, exchanged, rtol=1e-3)


def distance_of_ratios(data: PairEnergy, model: PairEnergy) -> torch.Tensor:
    """Half the expected squared distances of ``g`` of all ratios, both ways round."""
    states = model.states()
    flips = (states[:, None] - torch.eye(N)).abs()  # (S, N, N)
    index = (flips[..., None, :] == states).all(-1).to(states.dtype).argmax(-1)
    p, q = data.probs().detach(), model.probs()
    there = 1 / (1 + p[:, None] / p[index]) - 1 / (1 + q[:, None] / q[index])
    back = 1 / (1 + p[index] / p[:, None]) - 1 / (1 + q[index] / q[:, None])
    return 0.5 * (p[:, None] * (there.square() + back.square())).sum()


def test_ratio_matching_is_the_distance_of_ratios_and_a_constant() -> None:
    data = PairEnergy(N)
    weights, constants = data.probs().detach(), []
    for _ in range(3):
        model = PairEnergy(N)
        each = torch.stack([RatioMatching(model)(x[None]) for x in model.states()])
        matching = (weights * each).sum()
        distance = distance_of_ratios(data, model)
        constants.append((matching - distance).detach())
        assert torch.allclose(gradients(matching, model), gradients(distance, model), atol=1e-12)
    assert torch.allclose(torch.stack(constants), constants[0], atol=1e-12)


@pytest.mark.parametrize("cls", LOSSES)
def test_the_optimum_is_the_density_of_the_data(cls: type[PseudoLikelihood]) -> None:
    counts = torch.tensor([5, 1, 2, 3, 1, 1, 4, 2])
    x = PairEnergy(3).states().repeat_interleave(counts, 0)

    class Anything(nn.Module):
        """An energy for each of 8 states."""

        def __init__(self) -> None:
            super().__init__()
            self.energies = nn.Parameter(torch.zeros(8))

        def energy(self, x: torch.Tensor) -> torch.Tensor:
            index = (x * torch.tensor([1.0, 2.0, 4.0])).sum(-1).long()
            return self.energies[index]

    model = Anything()
    minimise(cls(model), x)
    assert torch.allclose((-model.energies).softmax(0), counts / counts.sum(), atol=1e-5)


@pytest.mark.parametrize("cls", LOSSES)
def test_a_few_sites_have_the_mean_of_all(cls: type[PseudoLikelihood]) -> None:
    model = PairEnergy(N)
    x = torch.randint(0, 2, (6, N)).to(model.bias.dtype)
    exact = cls(model)(x)
    for num_sites in (1, 3):
        loss = cls(model, num_sites)
        assert is_mean(torch.stack([loss(x) for _ in range(400)]), exact)
        slopes = torch.stack([gradients(loss(x), model) for _ in range(400)])
        assert is_mean(slopes, gradients(exact, model))
        assert not is_mean(slopes, gradients(exact, model) * num_sites / N)  # planted: no factor
    assert torch.isclose(cls(model, N)(x), exact)


def test_events_may_be_images_and_batches_anything() -> None:
    image = dist.Bernoulli(torch.rand(2, 3)).to_event(2)
    x = image.sample((4, 5))
    assert torch.isclose(PseudoLikelihood(image)(x), -image.log_prob(x).sum())


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="score matching"):
        PseudoLikelihood(dist.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="1 site or more"):
        PseudoLikelihood(PairEnergy(N), 0)
    with pytest.raises(ValueError, match="4 units or fewer"):
        RatioMatching(PairEnergy(N), 5)(torch.zeros(2, N))
