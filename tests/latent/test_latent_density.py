# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The densities of model and guide against formulas written by hand with torch.distributions."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import distributions as td
from torch.nn.functional import softplus

from tests.latent.scoring import Latents, latents_of, log_prob
from tests.tables import PAIRS

ROWS = {row.name: row for row in PAIRS}
Formula = Callable[[Any, Latents, Any], tuple[torch.Tensor, torch.Tensor]]


def normal(x: torch.Tensor, loc: Any, scale: Any) -> torch.Tensor:
    return (-0.5 * ((x - loc) / scale) ** 2 - math.log(math.sqrt(2 * math.pi)) - log(scale)).sum()


def log(value: Any) -> Any:
    return value.log() if isinstance(value, torch.Tensor) else math.log(value)


def diagonal(z: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
    half = params.shape[-1] // 2
    return normal(z, params[..., :half], params[..., half:].exp())


def bernoulli(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return (x * logits - softplus(logits)).sum()


def vae_bernoulli(pair: Any, q: Latents, args: Any) -> tuple[torch.Tensor, torch.Tensor]:
    (x,), z = args, q["z"]
    return normal(z, 0.0, 1.0) + bernoulli(x, pair.decoder(z)), diagonal(z, pair.encoder(x))


def vae_gaussian_fixed_cholesky(pair: Any, q: Latents, args: Any) -> Any:
    (x,), z = args, q["z"]
    a = pair.encoder(x)  # mean, then rows of the triangle: L11, L21, L22
    lower = torch.zeros(len(x), 2, 2)
    lower[:, 0, 0], lower[:, 1, 0], lower[:, 1, 1] = a[:, 2].exp(), a[:, 3], a[:, 4].exp()
    guide = td.MultivariateNormal(a[:, :2], lower @ lower.mT).log_prob(z).sum()
    return normal(z, 0.0, 1.0) + normal(x, pair.decoder(z), 0.7), guide


def vae_gaussian_shared(pair: Any, q: Latents, args: Any) -> Any:
    (x,), z = args, q["z"]
    scale = 0.01 + softplus(pair.likelihood.raw_scale)
    model = normal(z, 0.0, 1.0) + normal(x, pair.decoder(z), scale)
    return model, diagonal(z, pair.encoder(x))


def vae_gaussian_decoded(pair: Any, q: Latents, args: Any) -> Any:
    (x,), z = args, q["z"]
    loc, raw = pair.decoder(z).unbind(-1)
    model = normal(z, 0.0, 1.0) + normal(x, loc, 0.01 + softplus(raw))
    return model, diagonal(z, pair.encoder(x))


def vae_categorical(pair: Any, q: Latents, args: Any) -> Any:
    (x,), z = args, q["z"]
    scores = pair.decoder(z).log_softmax(-1).gather(-1, x.unsqueeze(-1)).sum()
    return normal(z, 0.0, 1.0) + scores, diagonal(z, pair.encoder(x.double()))


def vae_discretized_logistic(pair: Any, q: Latents, args: Any) -> Any:
    (x,), z = args, q["z"]
    loc, log_scale = pair.decoder(z).unbind(-1)
    mu, s = 0.5 + loc, 0.025 + 0.1 * log_scale.exp()
    u = torch.where(x > 0.99, torch.inf, (x + 0.125 - mu) / s)
    v = torch.where(x < 0.01, -torch.inf, (x - 0.125 - mu) / s)
    flip = torch.where(u + v > 0, -1.0, 1.0)  # the side where the difference loses no digits
    mass = flip * (torch.sigmoid(flip * u) - torch.sigmoid(flip * v))
    return normal(z, 0.0, 1.0) + mass.log().sum(), diagonal(z, pair.encoder(x))


def conditional_vae(pair: Any, q: Latents, args: Any) -> Any:
    (x, y), z = args, q["z"]
    model = normal(z, 0.0, 1.0) + bernoulli(x, pair.decoder(z, y))
    return model, diagonal(z, pair.encoder(x, y))


def conditional_vae_learned_prior(pair: Any, q: Latents, args: Any) -> Any:
    (x, y), z = args, q["z"]
    model = diagonal(z, pair.prior_network(y)) + bernoulli(x, pair.decoder(z, y))
    return model, diagonal(z, pair.encoder(x, y))


def conditional_vae_conv(pair: Any, q: Latents, args: Any) -> Any:
    (x, y), z = args, q["z"]
    covariance = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    prior = td.MultivariateNormal(torch.ones(2), covariance).log_prob(z).sum()
    loc, raw = pair.decoder(z, y).unbind(-1)
    return prior + normal(x, loc, 0.01 + softplus(raw)), diagonal(z, pair.encoder(x, y))


def semi_supervised_vae(pair: Any, q: Latents, args: Any) -> Any:
    (x, y), z, classes = args, q["z"], q["y"]
    pi, scores = torch.tensor([0.5, 0.3, 0.2]).log(), pair.classifier(x).log_softmax(-1)
    model = normal(z, 0.0, 1.0) + bernoulli(x, pair.decoder(z, classes)) + (classes * pi).sum()
    guide = diagonal(z, pair.encoder(x, classes))
    for i, label in enumerate(y.tolist()):
        if label >= 0:
            model = model + scores[i, label]  # the site "label" of training mode
        else:
            guide = guide + (scores[i] * classes[i]).sum()
    return model, guide


def hierarchical_vae(pair: Any, q: Latents, args: Any) -> Any:
    (x,) = args
    likelihood = bernoulli(x, pair.decoders[0](q["z1"]))
    inner = diagonal(q["z1"], pair.decoders[1](q["z2"]))
    model = normal(q["z2"], 0.0, 1.0) + inner + likelihood
    first = diagonal(q["z1"], pair.encoders[0](x))
    return model, first + diagonal(q["z2"], pair.encoders[1](q["z1"]))


def hierarchical_vae_three_layers(pair: Any, q: Latents, args: Any) -> Any:
    (x,), d, e = args, pair.decoders, pair.encoders
    scale = 0.01 + softplus(pair.likelihood.raw_scale)
    model = normal(q["z3"], 0.0, 1.0) + diagonal(q["z2"], d[2](q["z3"]))
    model = model + diagonal(q["z1"], d[1](q["z2"])) + normal(x, d[0](q["z1"]), scale)
    guide = diagonal(q["z1"], e[0](x)) + diagonal(q["z2"], e[1](q["z1"]))
    return model, guide + diagonal(q["z3"], e[2](q["z2"]))


FORMULAS: list[Formula] = [
    vae_bernoulli,
    vae_gaussian_fixed_cholesky,
    vae_gaussian_shared,
    vae_gaussian_decoded,
    vae_categorical,
    vae_discretized_logistic,
    conditional_vae,
    conditional_vae_learned_prior,
    conditional_vae_conv,
    semi_supervised_vae,
    hierarchical_vae,
    hierarchical_vae_three_layers,
]


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda f: f.__name__)
def test_model_and_guide_are_their_formulas(formula: Formula, float64: torch.dtype) -> None:
    row = ROWS[formula.__name__]
    pair, args = row.make(), row.make_batch((4,))
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    latents = latents_of(pair, *args)
    model, guide = formula(pair, latents, args)
    torch.testing.assert_close(log_prob(pair.model, latents, *args), model)
    torch.testing.assert_close(log_prob(pair.guide, latents, *args), guide)
    wrong = {name: value + 0.01 if name != "y" else value for name, value in latents.items()}
    shifted, _ = formula(pair, wrong, args)
    scored = log_prob(pair.model, latents, *args)
    assert not torch.allclose(scored, shifted, rtol=1e-8, atol=1e-8)
