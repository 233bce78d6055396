# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Families of distributions of a network's output, and the floor of the Gaussian one."""

import copy
import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

from pyro_deepgen.latent import (
    VAE,
    BernoulliLikelihood,
    CategoricalLikelihood,
    CholeskyNormalPosterior,
    DiagonalNormalPosterior,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    vae,
)

FAMILIES = {
    "bernoulli": BernoulliLikelihood(),
    "gaussian": GaussianLikelihood(),
    "gaussian_shared": GaussianLikelihood("shared"),
    "gaussian_decoded": GaussianLikelihood("decoded"),
    "categorical": CategoricalLikelihood(3),
    "discretized_logistic": DiscretizedLogisticLikelihood(num_levels=9),
}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("data_shape", [(4,), (1, 2, 3)])
def test_likelihoods_take_the_shape_that_they_ask_for(
    family: Any, data_shape: tuple[int, ...]
) -> None:
    d = family.condition(torch.randn(5, 2, *family.params_shape(data_shape)))
    assert d.batch_shape == (5, 2, *data_shape)
    assert d.event_shape == ()
    assert d.log_prob(d.sample()).shape == (5, 2, *data_shape)


@pytest.mark.parametrize("family", [DiagonalNormalPosterior(), CholeskyNormalPosterior()])
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_posteriors(family: Any, dim: int, float64: torch.dtype) -> None:
    d = family.condition(torch.randn(7, *family.params_shape((dim,))))
    assert (d.batch_shape, d.event_shape) == ((7,), (dim,))
    standard = family.condition(torch.zeros(family.params_shape((dim,))))
    z = torch.randn(4, dim)
    expected = dist.Normal(torch.zeros(dim), 1.0).to_event(1).log_prob(z)
    torch.testing.assert_close(standard.log_prob(z), expected)


def test_the_triangle_is_filled_row_by_row(float64: torch.dtype) -> None:
    d = CholeskyNormalPosterior().condition(torch.arange(9.0) / 10)
    lower = torch.tensor([[0.3, 0, 0], [0.4, 0.5, 0], [0.6, 0.7, 0.8]])
    lower = lower.tril(-1) + lower.diagonal().exp().diag()
    torch.testing.assert_close(d.mean, torch.arange(3.0) / 10)
    torch.testing.assert_close(d.covariance_matrix, lower @ lower.T)


def test_gaussian_scales(float64: torch.dtype) -> None:
    context = torch.randn(3, 4)
    assert torch.equal(
        GaussianLikelihood(scale=0.3).condition(context).stddev, torch.tensor(0.3).expand(3, 4)
    )
    shared = GaussianLikelihood("shared", scale=2.5, floor=0.2).condition(context)
    torch.testing.assert_close(shared.stddev, torch.full((3, 4), 2.5))
    decoded = GaussianLikelihood("decoded", floor=0.2)
    low = decoded.condition(torch.tensor([[1.0, -100.0], [2.0, 0.0]]))
    torch.testing.assert_close(low.mean, torch.tensor([1.0, 2.0]))
    expected = torch.tensor([0.2, 0.2 + math.log(2)])  # softplus(0) = log 2
    torch.testing.assert_close(low.stddev, expected)


def test_the_report_speaks_once_and_only_of_the_floor() -> None:
    likelihood = GaussianLikelihood("decoded", floor=0.1)
    assert likelihood.report() is None
    raw = torch.zeros(10, 4)
    likelihood.condition(torch.stack([torch.zeros(10, 4), raw], -1))
    assert likelihood.report() is None
    raw[:, 0] = -20.0
    low = torch.stack([torch.zeros(10, 4), raw], -1)
    likelihood.condition(low)
    text = likelihood.report()
    assert text is not None
    assert "floor 0.1" in text
    assert "25.0%" in text
    assert likelihood.report() is None
    with torch.no_grad():
        likelihood.condition(low)
    likelihood.eval().condition(low)
    assert likelihood.report() is None, "evaluation does not count"
    assert "_share_at_floor" not in likelihood.state_dict()
    assert GaussianLikelihood().report() is None
    copy.deepcopy(likelihood)


@pytest.mark.parametrize("variance", ["shared", "decoded"])
def test_constant_pixels_drive_the_scale_to_the_floor_and_no_further(variance: Any) -> None:
    pyro.settings.set(module_local_params=True)
    floor, x = 0.1, torch.full((20, 2), 0.3)
    pair = vae(2, 1, (), likelihood=GaussianLikelihood(variance, floor=floor))
    assert pair.likelihood.report() is None, "making a pair must not count"
    loss = Trace_ELBO()(pair.model, pair.guide)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()
    scale = pair.decode(torch.zeros(1, 1)).base_dist.scale
    assert bool((scale >= floor).all())
    assert bool((scale < 1.2 * floor).all())
    text = pair.likelihood.report()
    assert text is not None and "raise the floor" in text
    # On data with noise well above the floor nothing is said.
    pair = vae(2, 1, (), likelihood=GaussianLikelihood(variance, floor=0.01))
    loss = Trace_ELBO()(pair.model, pair.guide)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
    for _ in range(50):
        optimizer.zero_grad()
        loss(torch.randn(20, 2)).backward()
        optimizer.step()
    assert pair.likelihood.report() is None


def test_a_large_floor_is_not_reported_before_training() -> None:
    pair = vae(2, 1, (), likelihood=GaussianLikelihood("decoded", floor=10.0))
    assert pair.likelihood.report() is None


def test_the_scale_of_the_discretised_logistic() -> None:
    likelihood = DiscretizedLogisticLikelihood(-1.0, 3.0, num_levels=5, initial_scale=0.25)
    d = likelihood.condition(torch.tensor([[0.0, 0.0], [0.5, -100.0]]))
    torch.testing.assert_close(d.loc, torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(d.scale, torch.tensor([1.1, 0.1]))  # a tenth of a level more
    assert d.log_prob(torch.tensor([1.0, 3.0]))[1].exp() > 0.99


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianLikelihood("free"), '"fixed", "shared" or "decoded", got \'free\''),  # type: ignore[arg-type]
        (lambda: GaussianLikelihood(scale=0.005), "0 < floor < scale, got floor=0.01"),
        (lambda: GaussianLikelihood("decoded", floor=0.0), "0 < floor"),
        (lambda: CategoricalLikelihood(1), "at least 2 classes, got 1"),
        (lambda: DiscretizedLogisticLikelihood(num_levels=1), "num_levels of 2 or more.*got num_l"),
        (lambda: DiscretizedLogisticLikelihood(1.0, 0.0), "low < high.*low=1.0, high=0.0"),
        (lambda: DiscretizedLogisticLikelihood(initial_scale=0.0), "initial_scale > 0.*=0.0"),
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("family", "width", "message"),
    [
        (CategoricalLikelihood(3), 5, r"dimension of 3, the logits.*params_per_pixel=3"),
        (GaussianLikelihood("decoded"), 3, r"dimension of 2, the mean.*params_per_pixel=2"),
        (DiscretizedLogisticLikelihood(), 7, r"dimension of 2, the location.*params_per_pixel=2"),
        (DiagonalNormalPosterior(), 3, "an even last dimension"),
        (CholeskyNormalPosterior(), 4, r"2, 5, 9, \.\.\. for 1, 2, 3"),
    ],
)
def test_a_network_of_another_width(family: Any, width: int, message: str) -> None:
    for shape in [(4, width), (2, 4, width), ()]:
        with pytest.raises(ValueError, match=message):
            family.condition(torch.zeros(shape))


def test_a_function_with_hidden_parameters_is_no_network() -> None:
    hidden = nn.Linear(3, 4)
    with pytest.raises(ValueError, match=r"as encoder a torch.nn.Module, got a function"):
        VAE(lambda x: hidden(x), nn.Linear(2, 3), 2)
    free = VAE(lambda x: torch.cat([x[:, :2], 0 * x[:, :2]], -1), nn.Linear(2, 3), 2)
    assert free.encode(torch.ones(5, 3)).mean.tolist() == [[1.0, 1.0]] * 5
