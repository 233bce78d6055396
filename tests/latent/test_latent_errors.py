# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Parts that do not fit together: what was expected, what came, and what to do."""

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_deepgen.latent import (
    VAE,
    BernoulliLikelihood,
    CholeskyNormalPosterior,
    ConditionalVAE,
    GaussianLikelihood,
    HierarchicalVAE,
    conditional_vae,
    hierarchical_vae,
    semi_supervised_vae,
    vae,
)
from pyro_deepgen.nn import MLP
from tests.tables import Poisson

ENCODER, DECODER = nn.Linear(6, 4), nn.Linear(2, 6)
Y_ENCODER, Y_DECODER = MLP(6, (), 4, context_dim=3), MLP(2, (), 6, context_dim=3)


def normal(*shape: int) -> Any:
    return dist.Normal(torch.zeros(shape), torch.ones(shape))


class TwoHeads(nn.Module):
    """An encoder as many people write it."""

    def __init__(self) -> None:
        super().__init__()
        self.mu, self.logvar = nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.mu(x), self.logvar(x)


CONSTRUCTIONS: dict[str, tuple[Any, str]] = {
    "encoder_output": (
        lambda: VAE(nn.Linear(6, 5), DECODER, 2),
        r"encoder to give \(4,\) numbers a datum.*DiagonalNormal.*shape \(2,\), got \(5,\)",
    ),
    "encoder_input": (
        lambda: VAE(nn.Linear(7, 4), DECODER, 2),
        r"encoder cannot take 1 argument.*\[\(1, 6\)\].*one datum",
    ),
    "encoder_without_batch": (
        lambda: VAE(nn.Flatten(0), DECODER, 2),
        r"encoder to give \(4,\) numbers a datum.*got \(\)",
    ),
    "posterior_triangle": (
        lambda: VAE(ENCODER, DECODER, 2, posterior=CholeskyNormalPosterior()),
        r"encoder to give \(5,\) numbers",
    ),
    "decoder_input": (lambda: VAE(ENCODER, DECODER, 3), "decoder cannot take 1 argument"),
    "decoder_output": (
        lambda: VAE(ENCODER, nn.Linear(2, 5), 2, likelihood=GaussianLikelihood("decoded")),
        r"last dimension of 2.*got shape \(1, 5\): use ConvDecoder\(..., params_per_pixel=2\)",
    ),
    "likelihood_class": (
        lambda: VAE(ENCODER, DECODER, 2, likelihood=BernoulliLikelihood),  # type: ignore[arg-type]
        "as likelihood an object with condition.*an instance of",
    ),
    "likelihood_distribution": (
        lambda: VAE(ENCODER, DECODER, 2, likelihood=normal(6)),
        "as likelihood an object with condition",
    ),
    "posterior_nonsense": (
        lambda: VAE(ENCODER, DECODER, 2, posterior=3),  # type: ignore[arg-type]
        "as posterior an object with condition.*got 3",
    ),
    "posterior_event": (
        lambda: VAE(ENCODER, DECODER, 2, posterior=lambda c: dist.Normal(c, 1.0)),
        r"encoder's distribution to have event_shape \(2,\), got \(4,\)",
    ),
    "posterior_batch": (
        lambda: VAE(ENCODER, DECODER, 2, posterior=lambda c: normal()),
        "distribution of the encoder to have at least 1 batch dimensions",
    ),
    "prior_batch": (
        lambda: VAE(ENCODER, DECODER, 2, prior=normal(2)),
        r"event_shape \(2,\), got Normal.*to_event\(1\)",
    ),
    "prior_size": (
        lambda: VAE(ENCODER, DECODER, 2, prior=normal(3).to_event(1)),
        r"event_shape \(2,\)",
    ),
    "prior_class": (
        lambda: VAE(ENCODER, DECODER, 2, prior=dist.Normal),  # type: ignore[arg-type]
        "a Pyro distribution",
    ),
    "both_priors": (
        lambda: ConditionalVAE(
            Y_ENCODER, Y_DECODER, 2, 3, prior=normal(2).to_event(1), prior_network=nn.Linear(3, 4)
        ),
        "got both",
    ),
    "prior_network": (
        lambda: ConditionalVAE(Y_ENCODER, Y_DECODER, 2, 3, prior_network=nn.Linear(3, 3)),
        r"prior_network to give \(4,\) numbers",
    ),
    "context_dim": (
        lambda: ConditionalVAE(Y_ENCODER, Y_DECODER, 2, 5),
        r"decoder cannot take 2 argument.*context with 3 dimensions, got 5",
    ),
    "factory_function": (
        lambda: vae(6, 2, likelihood=lambda c: dist.Poisson(c.exp())),  # type: ignore[arg-type]
        "as likelihood an object with params_shape.*make the networks yourself",
    ),
    "factory_protocol": (
        lambda: hierarchical_vae(6, (2, 1), ((), ()), likelihood=Poisson()),  # type: ignore[arg-type]
        "as likelihood an object with params_shape",
    ),
    "layers": (lambda: hierarchical_vae(6, (3, 2, 1)), "each of the 3 stochastic layers"),
    "layers_of_networks": (
        lambda: HierarchicalVAE([ENCODER], [DECODER, DECODER], (2, 2)),
        "got 1 encoders, 2 decoders",
    ),
    "no_layers": (lambda: HierarchicalVAE([], [], ()), "got 0 encoders"),
    "inner_layer": (
        lambda: HierarchicalVAE([ENCODER, nn.Linear(2, 3)], [DECODER, nn.Linear(1, 4)], (2, 1)),
        r"encoders\[1\] to give \(2,\) numbers",
    ),
    "sizes": (lambda: vae((1, 0), 2), "positive size"),
    "latent_dim": (lambda: vae(6, 2.0), "as latent_dim a positive whole number, got 2.0"),  # type: ignore[arg-type]
    "latent_dim_of_class": (lambda: VAE(ENCODER, DECODER, 0), "as latent_dim a positive"),
    "latent_dims": (lambda: hierarchical_vae(6, (3, -2)), "as latent_dims a sequence of positive"),
    "context_dim_sign": (lambda: conditional_vae(6, 2, -1), "as context_dim a positive"),
    "num_classes": (lambda: semi_supervised_vae(6, 2, 0), "as num_classes a positive"),
    "hidden_dims": (lambda: vae(6, 2, 20), r"as hidden_dims a sequence.*\(200,\), got 20"),  # type: ignore[arg-type]
    "hidden_dims_sign": (lambda: vae(6, 2, (-3,)), r"as hidden_dims a sequence.*got \(-3,\)"),
    "hidden_dims_of_layers": (
        lambda: hierarchical_vae(6, (3, 2), 20),  # type: ignore[arg-type]
        "each of the 2 stochastic layers.*got 20",
    ),
    "hidden_dims_of_a_layer": (
        lambda: hierarchical_vae(6, (3, 2), (20, 20)),  # type: ignore[arg-type]
        "as hidden_dims a sequence.*got 20",
    ),
    "class_probs": (
        lambda: semi_supervised_vae(6, 2, 3, class_probs=[0.5, 0.5]),
        r"3 positive class_probs, got \[0.5, 0.5\]",
    ),
    "class_probs_of_words": (
        lambda: semi_supervised_vae(6, 2, 3, class_probs="abc"),  # type: ignore[arg-type]
        "3 positive class_probs, got 'abc'",
    ),
    "both_priors_of_factory": (
        lambda: conditional_vae(6, 2, 3, prior=normal(2).to_event(1), learn_prior=True),
        "learn_prior=True.*got both",
    ),
    "encoder_tuple": (
        lambda: VAE(TwoHeads(), DECODER, 2),
        r"encoder to give one tensor, got tuple: join.*torch.cat\(\[loc, log_scale\], -1\)",
    ),
    "torch_distribution": (
        lambda: VAE(ENCODER, DECODER, 2, likelihood=lambda c: torch.distributions.Normal(c, 1.0)),
        r"a Pyro distribution for the decoder, got .*torch.distributions.normal.*dist.Normal\(loc",
    ),
    "no_distribution": (
        lambda: VAE(ENCODER, DECODER, 2, likelihood=lambda c: c),
        "a Pyro distribution for the decoder, got .*Tensor",
    ),
}


@pytest.mark.parametrize(("make", "message"), CONSTRUCTIONS.values(), ids=CONSTRUCTIONS)
def test_parts_that_do_not_fit(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
