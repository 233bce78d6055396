# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What users call on a pair: encode, decode, reconstruct, sample; values, means against draws."""

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_deepgen.distributions import BufferedDistribution
from pyro_deepgen.latent import (
    VAE,
    CategoricalLikelihood,
    GaussianLikelihood,
    conditional_vae,
    hierarchical_vae,
    semi_supervised_vae,
    vae,
)
from tests.tables import PAIRS, PairRow, named

SINGLE = [row for row in PAIRS if "hierarchical" not in row.name]


@pytest.mark.parametrize("row", **named(SINGLE))
def test_encode_and_decode_keep_the_batch(row: PairRow) -> None:
    pair = row.make()
    for batch in [(), (3,), (2, 3)]:
        x, *context = row.make_batch(batch)
        if not row.reparametrized:  # encode and decode of M2 take one-hot vectors
            context = [torch.eye(3)[context[0].clamp(min=0)]]
        q = pair.encode(x, *context)
        assert (q.batch_shape, q.event_shape) == (batch, (2,))
        p = pair.decode(q.rsample(), *context)
        assert (p.batch_shape, p.event_shape) == (batch, pair.data_shape)
        assert p.log_prob(x).shape == batch


def test_a_reconstruction_is_the_mean_at_the_posterior_mean(float64: torch.dtype) -> None:
    x, y = torch.bernoulli(torch.full((3, 5), 0.5)), torch.eye(3)
    plain = vae(5, 2, (8,))
    again = plain.decode(plain.encode(x).mean).mean
    torch.testing.assert_close(plain.reconstruct(x), again.detach())
    conditional = conditional_vae(5, 2, 3, (8,))
    again = conditional.decode(conditional.encode(x, y).mean, y).mean
    torch.testing.assert_close(conditional.reconstruct(x, y), again.detach())
    deep = hierarchical_vae(5, (3, 2), ((8,), (8,)))
    torch.testing.assert_close(deep.reconstruct(x), deep.decode(deep.encode(x).mean).mean.detach())
    m2 = semi_supervised_vae(5, 2, 3, (8,))
    labels = torch.tensor([0, 1, 2])
    again = m2.decode(m2.encode(x, y).mean, y).mean.detach()
    torch.testing.assert_close(m2.reconstruct(x, labels), again)
    guessed = torch.eye(3)[m2.classify(x).argmax(-1)]
    again = m2.decode(m2.encode(x, guessed).mean, guessed).mean.detach()
    torch.testing.assert_close(m2.reconstruct(x), again)


def test_draws_are_in_the_support_and_means_are_not() -> None:
    pair = vae(5, 2, (8,))
    x = torch.bernoulli(torch.full((30, 5), 0.5))
    for drawn in (pair.sample(30), pair.reconstruct(x, sample=True), pair.model(x)):
        assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    for mean in (pair.sample(30, mean=True), pair.reconstruct(x)):
        assert bool(((mean > 0) & (mean < 1)).all())
    classes = vae(5, 2, (8,), likelihood=CategoricalLikelihood(3))
    assert set(classes.sample(50, mean=True).unique().tolist()) <= {0, 1, 2}  # the mode


def test_whole_numbers_are_data_of_any_dtype() -> None:
    pair = vae(5, 2, (8,), likelihood=CategoricalLikelihood(3))
    x = pair.sample(6)
    for data in (x, x.to(torch.uint8), x.float()):
        torch.testing.assert_close(pair.encode(data).mean, pair.encode(x).mean)
        assert pair.reconstruct(data).shape == x.shape


def moments(pair: Any, *args: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return deviations of sample means from the model's, in standard errors, and of variances."""
    w, b = pair.decoder.weight, pair.decoder.bias
    x = pair.sample(20_000, *args)
    variance = (w @ w.T + 0.25 * torch.eye(len(b))).diagonal()
    mean_error = (x.mean(0) - b).abs() / (variance / len(x)).sqrt()
    return mean_error, (x.var(0) - variance).abs() / (variance * (2 / len(x)) ** 0.5)


def test_samples_have_the_moments_of_a_linear_model(float64: torch.dtype) -> None:
    pair = VAE(nn.Linear(3, 4), nn.Linear(2, 3), 2, likelihood=GaussianLikelihood(scale=0.5))
    assert all(bool((error < 4).all()) for error in moments(pair))
    wrong = BufferedDistribution(dist.Normal(torch.zeros(2), 1.5 * torch.ones(2)).to_event(1))
    pair.prior = wrong
    assert not all(bool((error < 4).all()) for error in moments(pair))


def test_conditional_samples_follow_their_condition(float64: torch.dtype) -> None:
    pair = conditional_vae(2, 1, 2, (), likelihood=GaussianLikelihood(scale=0.5), learn_prior=True)
    y = torch.eye(2)
    for k in range(2):
        means = pair.sample(20_000, y[k], mean=True).mean(0)
        prior = pair.prior_given(y[k])
        exact = pair.decode(prior.mean, y[k]).mean  # linear: the mean of means
        spread = pair.decoder.layers[0].weight[:, 0].abs() * prior.stddev
        assert bool(((means - exact).abs() < 4 * spread / 20_000**0.5).all())
    both = pair.sample(2, y)
    assert both.shape == (2, 2)
    with pytest.raises(ValueError, match=r"each of the 3 draws, got y of shape \(2, 2\)"):
        pair.sample(3, y)


def test_a_posterior_without_a_mean_says_what_to_do() -> None:
    def warped(context: torch.Tensor) -> Any:
        loc, log_scale = context.chunk(2, -1)
        base = dist.Normal(loc, log_scale.exp()).to_event(1)
        return dist.TransformedDistribution(base, [dist.transforms.SigmoidTransform()])

    pair = VAE(nn.Linear(3, 4), nn.Linear(2, 3), 2, posterior=warped)
    x = torch.zeros(5, 3)
    with pytest.raises(ValueError, match=r"TransformedDistribution has none.*sample=True"):
        pair.reconstruct(x)
    assert pair.reconstruct(x, sample=True).shape == x.shape


def test_a_prior_moves_with_the_pair(device: torch.device) -> None:
    prior = dist.MultivariateNormal(torch.zeros(2), torch.eye(2))
    pair = vae(3, 2, (4,), prior=prior).double().to(device)
    assert any(name.startswith("prior.") for name in pair.state_dict())
    assert pair.sample(4).dtype == torch.float64
    assert pair.sample(4).device.type == device.type
    assert prior.mean.dtype == torch.float32
