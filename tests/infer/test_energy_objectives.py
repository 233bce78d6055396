# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What all objectives for energies have in common, and the ways to train with them."""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_deepgen.energy import RBM, GaussianUnits
from pyro_deepgen.fit import fit
from pyro_deepgen.infer import (
    DenoisingScoreMatching,
    EnergyObjective,
    NoiseContrastiveEstimation,
    PseudoLikelihood,
    RatioMatching,
    ScoreMatching,
    SlicedScoreMatching,
)

from .small_energies import GaussianEnergy, PairEnergy

D = 3


class NetEnergy(nn.Module):
    """A network that keeps its values on the line small far away."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(D, 16), nn.Softplus(), nn.Linear(16, 1))

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x.square().sum(-1) + self.net(x).squeeze(-1)


def normal() -> dist.Distribution:
    return dist.Normal(torch.zeros(D), 1.5).to_event(1)


MAKE: dict[str, Callable[[], EnergyObjective]] = {
    "exact": lambda: ScoreMatching(NetEnergy()),
    "sliced": lambda: SlicedScoreMatching(NetEnergy(), 2),
    "sliced_normal": lambda: SlicedScoreMatching(
        NetEnergy(), variance_reduced=False, directions="normal"
    ),
    "denoising": lambda: DenoisingScoreMatching(NetEnergy(), 0.5),
    "noise_contrastive": lambda: NoiseContrastiveEstimation(NetEnergy(), normal(), 3),
    "pseudo_likelihood": lambda: PseudoLikelihood(PairEnergy(D)),
    "pseudo_likelihood_sites": lambda: PseudoLikelihood(PairEnergy(D), 2),
    "ratio_matching": lambda: RatioMatching(PairEnergy(D)),
}
# The last bias of the network is a constant, which moves no score.
STILL = {"model.net.2.bias"}


def data(loss: EnergyObjective, count: int = 60) -> torch.Tensor:
    if isinstance(loss.model, PairEnergy):
        return (torch.rand(count, D) < torch.tensor([0.2, 0.5, 0.8])).to(torch.get_default_dtype())
    return torch.randn(count, D) * torch.tensor([0.5, 1.0, 1.5]) + 1


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("compile", [False, "recorded"])
def test_fit_trains_every_parameter(name: str, compile: bool | str) -> None:
    loss = MAKE[name]()
    x = data(loss)
    before = {n: p.detach().clone() for n, p in loss.named_parameters()}
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
    still = set() if name == "noise_contrastive" else STILL
    history = fit(
        loss,
        x,
        optimizer,
        num_epochs=25,
        batch_size=20,
        held_out=x,
        progress=False,
        compile=compile,
    )
    assert history.held_out[-1] < history.held_out[0]
    for n, p in loss.named_parameters():
        assert torch.equal(p, before[n]) == (n in still), n


@pytest.mark.parametrize("name", MAKE)
def test_the_value_is_the_same_without_gradients_and_holds_no_graph(name: str) -> None:
    loss = MAKE[name]()
    x = data(loss)
    torch.manual_seed(0)
    value = loss(x)
    torch.manual_seed(0)
    with torch.no_grad():
        bare = loss(x)
    assert torch.equal(value, bare)
    assert value.requires_grad and not bare.requires_grad
    assert value.shape == ()


@pytest.mark.parametrize("name", ["exact", "pseudo_likelihood", "ratio_matching"])
def test_a_batch_is_the_sum_of_its_data_whatever_its_shape(name: str) -> None:
    loss = MAKE[name]()
    x = data(loss, 12)
    parts = torch.stack([loss(row[None]) for row in x]).sum()
    assert torch.isclose(loss(x), parts)
    assert torch.isclose(loss(x.reshape(3, 4, D)), parts)


def test_a_distribution_serves_as_well_as_an_energy() -> None:
    x = torch.randn(10, D)
    energy = GaussianEnergy(torch.eye(D) / 1.5**2, torch.zeros(D))
    assert torch.isclose(ScoreMatching(normal())(x), ScoreMatching(energy)(x))
    assert torch.isclose(
        ScoreMatching(dist.Normal(0.0, 1.5))(x), ScoreMatching(normal())(x)
    )  # each number a datum


@pytest.mark.parametrize("cls", [PseudoLikelihood, RatioMatching])
def test_a_machine_learns_without_its_chains(cls: type[EnergyObjective]) -> None:
    rbm = RBM(D, 4, weight_scale=0.5)
    chains, loss = rbm.negative_phase.chains.clone(), cls(rbm)
    x = data(PseudoLikelihood(PairEnergy(D)), 200)
    before = float(-rbm.eval().log_prob(x).mean().detach())
    fit(loss, x, torch.optim.Adam(rbm.parameters(), lr=0.05), num_epochs=30, progress=False)
    assert torch.equal(rbm.negative_phase.chains, chains)
    assert float(-rbm.eval().log_prob(x).mean().detach()) < before


def test_a_machine_with_a_context_has_a_loss_of_each_datum_and_context() -> None:
    rbm = RBM(D, 4, weight_scale=0.5, context_dim=2)
    nn.init.normal_(rbm.bias.weight)
    x, context = data(PseudoLikelihood(PairEnergy(D)), 5), torch.randn(5, 2)
    rows = zip(context[:, None], x[:, None], strict=True)
    parts = [PseudoLikelihood(rbm.condition(c))(v) for c, v in rows]
    total = PseudoLikelihood(rbm.condition(context))(x)
    assert torch.isclose(total, torch.stack(parts).sum())


def test_score_matching_of_a_gaussian_machine_is_that_of_its_density() -> None:
    rbm = RBM(GaussianUnits(1), 3, weight_scale=1.0).eval()
    x = torch.linspace(-12.0, 12.0, 1201)[:, None]
    weights = rbm.log_prob(x).softmax(0).detach()
    each = torch.stack([ScoreMatching(rbm)(row[None]) for row in x[::10]])
    # Of the machine's own density the mean of the loss is minus half the mean square of its score.
    at = x.clone().requires_grad_()
    (score,) = torch.autograd.grad(rbm.log_prob(at).sum(), at)
    expected = -0.5 * (weights * score.square().sum(-1)).sum()
    own = (weights[::10] * each).sum() / weights[::10].sum()
    assert torch.isclose(own, expected, atol=1e-6)


class Linear(nn.Module):
    """An energy without curvature, and one without parameters in its slope."""

    def __init__(self, slope: torch.Tensor | None) -> None:
        super().__init__()
        self.slope = torch.ones(D) if slope is None else nn.Parameter(slope)

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.slope


@pytest.mark.parametrize("slope", [None, torch.ones(D)])
def test_a_linear_energy_has_no_curvature(slope: torch.Tensor | None) -> None:
    model = Linear(None if slope is None else slope.to(torch.get_default_dtype()))
    for loss in (ScoreMatching(model), SlicedScoreMatching(model)):
        assert torch.isclose(loss(torch.randn(4, D)), torch.tensor(4 * 0.5 * D))


@pytest.mark.parametrize(
    "make", [ScoreMatching, SlicedScoreMatching, lambda m: DenoisingScoreMatching(m, 0.1)]
)
def test_score_matching_refuses_what_is_not_real(make: Callable[[Any], EnergyObjective]) -> None:
    for model in (PairEnergy(D), dist.Gamma(1.0, 1.0), dist.Poisson(1.0)):
        with pytest.raises(ValueError, match="PseudoLikelihood"):
            make(model)


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="energy"):
        ScoreMatching(torch.zeros)

    class Bad:
        def energy(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum()

    with pytest.raises(ValueError, match="one energy for each datum"):
        ScoreMatching(Bad())(torch.randn(4, D))
