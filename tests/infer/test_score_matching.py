# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Score matching against closed forms of Gaussian energies and of mixtures."""

import pytest
import torch
from torch import nn

from pyro_deepgen.infer import DenoisingScoreMatching, ScoreMatching, SlicedScoreMatching

from .small_energies import GaussianEnergy, gradients, is_mean, minimise, random_precision

D = 3
SIGMA = 0.7


def problem(num_data: int = 4) -> tuple[GaussianEnergy, torch.Tensor]:
    return GaussianEnergy(random_precision(D), torch.randn(D)), 2 * torch.randn(num_data, D) + 1


def closed_form(model: GaussianEnergy, x: torch.Tensor) -> torch.Tensor:
    """The score is ``b - L x`` and its derivative ``-L``."""
    matrix = 0.5 * (model.precision + model.precision.mT)
    score = model.linear - x @ matrix
    return (0.5 * score.square().sum(-1) - matrix.trace()).sum()


def denoising_closed_form(
    model: GaussianEnergy, x: torch.Tensor, sign: float = 1.0
) -> torch.Tensor:
    """The mean over the noise of ``|b - L (x + s e) + sign e / s|^2 / 2``."""
    matrix = 0.5 * (model.precision + model.precision.mT)
    score = model.linear - x @ matrix
    noise = sign * torch.eye(D) / SIGMA - SIGMA * matrix
    return 0.5 * (score.square().sum() + len(x) * noise.square().sum())


def test_exact_score_matching_is_the_closed_form() -> None:
    model, x = problem()
    loss, expected = ScoreMatching(model)(x), closed_form(model, x)
    assert torch.isclose(loss, expected, rtol=1e-12)
    assert torch.allclose(gradients(loss, model), gradients(expected, model), atol=1e-11)


def test_exact_score_matching_finds_the_normal_of_the_data() -> None:
    model, x = problem(200)
    minimise(ScoreMatching(model), x)
    precision = (x.mT.cov(correction=0)).inverse()
    found = 0.5 * (model.precision + model.precision.mT)
    assert torch.allclose(found, precision, atol=1e-6)
    assert torch.allclose(model.linear, precision @ x.mean(0), atol=1e-6)


class Mixture(nn.Module):
    """Two normals on the line, known but for a factor."""

    def __init__(self, means: torch.Tensor, scale: float) -> None:
        super().__init__()
        self.means, self.scale = nn.Parameter(means), scale

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return -(-0.5 * ((x - self.means) / self.scale).square()).logsumexp(-1) + 3.0


def fisher(data: Mixture, model: Mixture, grid: torch.Tensor) -> torch.Tensor:
    """Half the expected squared distance of the scores, by quadrature."""
    scores = []
    for which in (data, model):
        x = grid.clone().requires_grad_()
        (score,) = torch.autograd.grad(-which.energy(x).sum(), x, create_graph=True)
        scores.append(score)
    weights = (-data.energy(grid)).softmax(0).detach()
    return 0.5 * (weights * (scores[0].detach() - scores[1]).square().sum(-1)).sum()


def test_score_matching_is_the_fisher_divergence_and_a_constant() -> None:
    grid = torch.linspace(-12.0, 12.0, 2001)[:, None]
    data = Mixture(torch.tensor([-1.0, 1.5]), 0.8)
    weights = (-data.energy(grid)).softmax(0).detach()
    constants, slopes = [], []
    for means in ([0.0, 1.0], [-2.0, 0.5], [-1.0, 1.5]):
        model = Mixture(torch.tensor(means), 1.1)
        each = torch.stack([ScoreMatching(model)(x[None]) for x in grid[::20]])
        # A sum over the batch is a mean under the data if the grid's points have their weights.
        matching = (each * weights[::20]).sum() / weights[::20].sum()
        divergence = fisher(data, model, grid)
        constants.append((matching - divergence).detach())
        slopes.append((gradients(matching, model), gradients(divergence, model)))
    assert torch.allclose(torch.stack(constants), constants[0], atol=1e-8)
    assert all(torch.allclose(ours, theirs, atol=1e-8) for ours, theirs in slopes)


@pytest.mark.parametrize("variance_reduced", [True, False])
@pytest.mark.parametrize("directions", ["rademacher", "normal"])
def test_sliced_score_matching_has_the_exact_mean(variance_reduced: bool, directions: str) -> None:
    model, _ = problem()
    # Close to the mode, so that the curvature is a large part of the loss.
    x = (torch.linalg.solve(model.precision, model.linear) + 0.3 * torch.randn(1, D)).detach()
    exact = closed_form(model, x)
    many = x.expand(20_000, D)
    loss = SlicedScoreMatching(
        model,
        variance_reduced=variance_reduced,
        directions=directions,  # type: ignore[arg-type]
    )
    values = torch.stack([loss(part) / len(part) for part in many.chunk(100)])
    assert is_mean(values, exact)
    slopes = torch.stack([gradients(loss(part) / len(part), model) for part in many.chunk(100)])
    assert is_mean(slopes, gradients(exact, model))
    assert not is_mean(values, exact + 0.5 * model.precision.trace())  # planted: half of it


def test_more_directions_have_less_variance() -> None:
    model, x = problem(1)
    many = x.expand(4000, D)

    def spread(count: int) -> torch.Tensor:
        loss = SlicedScoreMatching(model, count, directions="normal")
        return torch.stack([loss(part) for part in many.chunk(400)]).var()

    # The ratio of variances is 8; of 400 values each has a standard error of 7 %.
    assert 5.5 < float((spread(1) / spread(8)).detach()) < 11.5


def test_denoising_score_matching_has_the_closed_mean() -> None:
    model, x = problem(1)
    exact = denoising_closed_form(model, x)
    loss = DenoisingScoreMatching(model, SIGMA)
    parts = x.expand(40_000, D).chunk(100)
    values = torch.stack([loss(part) / len(part) for part in parts])
    assert is_mean(values, exact)
    slopes = torch.stack([gradients(loss(part) / len(part), model) for part in parts])
    assert is_mean(slopes, gradients(exact, model))
    # Planted: the noise is subtracted where it should be added.
    assert not is_mean(values, denoising_closed_form(model, x, -1.0))


def test_denoising_finds_the_smoothed_normal() -> None:
    """At the precision of data with noise the mean gradient is 0, and at that of the data not."""
    x = torch.randn(500, D) @ torch.diag(torch.tensor([0.5, 1.0, 2.0]))
    covariance, mean = x.mT.cov(correction=0), x.mean(0)
    for added, at_optimum in ((SIGMA**2, True), (0.0, False)):
        precision = (covariance + added * torch.eye(D)).inverse()
        model = GaussianEnergy(precision, precision @ mean)
        loss = DenoisingScoreMatching(model, SIGMA)
        slopes = torch.stack([gradients(loss(x) / len(x), model) for _ in range(200)])
        assert is_mean(slopes, torch.zeros(())) == at_optimum


def test_errors_say_what_to_do() -> None:
    model, _ = problem()
    with pytest.raises(ValueError, match="positive noise_scale"):
        DenoisingScoreMatching(model, 0.0)
    with pytest.raises(ValueError, match="1 direction or more"):
        SlicedScoreMatching(model, 0)
    with pytest.raises(ValueError, match="rademacher"):
        SlicedScoreMatching(model, directions="uniform")  # type: ignore[arg-type]
