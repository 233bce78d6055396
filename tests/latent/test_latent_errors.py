# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a user can get wrong is answered by what was expected, what came, and what to do."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from pyro_deepgen.distributions import DistributionModule
from pyro_deepgen.latent import (
    VAE,
    BernoulliLikelihood,
    CategoricalLikelihood,
    CholeskyNormalPosterior,
    ConditionalVAE,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    HierarchicalVAE,
    conditional_vae,
    hierarchical_vae,
    semi_supervised_vae,
    vae,
)
from pyro_deepgen.nn import MLP
from tests.tables import PAIRS, PairRow, Poisson, named

ENCODER, DECODER = nn.Linear(6, 4), nn.Linear(2, 6)
Y_ENCODER, Y_DECODER = MLP(6, (), 4, context_dim=3), MLP(2, (), 6, context_dim=3)


def normal(*shape: int) -> Any:
    return dist.Normal(torch.zeros(shape), torch.ones(shape))


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
        "encoder cannot take",
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
        lambda: VAE(ENCODER, DECODER, 2, posterior=lambda c: normal(2).to_event(1)),
        "encoder with at least 1 batch dimensions",
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
}


@pytest.mark.parametrize(("make", "message"), CONSTRUCTIONS.values(), ids=CONSTRUCTIONS)
def test_parts_that_do_not_fit(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("row", **named(PAIRS))
def test_data_of_another_shape(row: PairRow) -> None:
    pair = row.make()
    x, *context = row.make_batch((4,))
    for wrong in (x[..., :-1], x[0].reshape(-1)[:1]):
        for program in (pair.model, pair.guide, pair.reconstruct):
            with pytest.raises(ValueError, match=r"data of shape \(\*batch, .*reshape the data"):
                program(wrong, *context)


@pytest.mark.parametrize("row", **named(PAIRS))
def test_data_size(row: PairRow) -> None:
    pair, args, many = row.make(), row.make_batch((4,)), row.make_batch((2, 4))
    for program in (pair.model, pair.guide):
        with pytest.raises(ValueError, match="data_size=3 scales a batch of at most that many"):
            program(*args, data_size=3)
        with pytest.raises(ValueError, match=r"one batch dimension, got batch shape \(2, 4\)"):
            program(*many, data_size=100)
        program(*args, data_size=4)


@pytest.mark.parametrize(
    ("likelihood", "x", "message"),
    [
        (BernoulliLikelihood(), 0.5, r"support of Bernoulli.*0.5 to 0.5: binarise them"),
        (BernoulliLikelihood(), 255, r"binarise them \(pyro_deepgen.datasets.binarize\)"),
        (CategoricalLikelihood(3), 3.0, "support of Categorical.*bring them to these values"),
        (GaussianLikelihood(), float("nan"), "support of Normal.*nan to nan"),
        (DiscretizedLogisticLikelihood(num_levels=5), 0.3, "one of 5 levels from 0.0 to 1.0"),
    ],
)
def test_data_outside_the_support(likelihood: Any, x: float, message: str) -> None:
    pair = vae(6, 2, (4,), likelihood=likelihood)
    data = torch.tensor(x).to(torch.uint8 if x == 255 else torch.float32).expand(4, 6)
    with pytest.raises(ValueError, match=message):
        pair.model(data)


def test_data_that_overflow_the_encoder() -> None:
    pair, grey = vae(6, 2, (4,)), torch.full((4, 6), 255, dtype=torch.uint8)
    with torch.no_grad():
        for layer, value in zip(pair.encoder.layers[::2], (1.0, -1.0), strict=True):
            layer.weight.fill_(value)  # log standard deviations of about -6,000
    with pytest.raises(ValueError, match=r"network of the posterior.*inputs from 255 to 255"):
        pair.guide(grey)


def test_without_validation_nothing_is_checked() -> None:
    pyro.enable_validation(False)
    try:
        pair = vae(6, 2, (4,))
        pair.model(torch.full((4, 6), 0.5))
    finally:
        pyro.enable_validation(True)


def test_a_likelihood_that_names_no_support_is_not_checked() -> None:
    class Free(DistributionModule):
        def __init__(self, loc: torch.Tensor) -> None:
            super().__init__(loc.shape[-1:], loc.shape[:-1])
            self.loc = loc

        def log_prob(self, value: torch.Tensor) -> torch.Tensor:
            return -(value - self.loc).square().sum(-1)

        def sample(self, sample_shape: Any = ()) -> torch.Tensor:
            return self.loc.expand(self.shape(sample_shape))

    pair = VAE(nn.Linear(6, 4), nn.Linear(2, 6), 2, likelihood=lambda loc: Free(loc))
    pair.model(torch.zeros(4, 6))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, r"a condition y of shape \(\*batch, 3\).*use VAE"),
        (torch.zeros(4, dtype=torch.long), r"\(\*batch, 3\), got torch.int64.*one_hot"),
        (torch.zeros(4, 3, dtype=torch.long), r"floating point.*one_hot\(labels, 3\)"),
        (torch.zeros(4, 2), r"\(\*batch, 3\), got torch.float32 of shape \(4, 2\)"),
        (torch.tensor(0.0), r"of shape \(\)"),
        (torch.zeros(5, 3), r"each datum of the batch \(4,\), got y of shape \(5, 3\)"),
        (torch.zeros(2, 4, 3), r"each datum of the batch \(4,\), got y of shape \(2, 4, 3\)"),
    ],
)
def test_wrong_conditions(y: torch.Tensor | None, message: str) -> None:
    pair, x = conditional_vae(6, 2, 3, (4,)), torch.zeros(4, 6)
    for program in (pair.model, pair.guide):
        with pytest.raises(ValueError, match=message):
            program(x, y)
    pair.model(x, torch.zeros(3))
    pair.guide(x, torch.zeros(1, 3))


def test_sites_and_plates() -> None:
    pairs = [
        (vae(6, 2), (), {"z", "x"}),
        (conditional_vae(6, 2, 3), (torch.eye(3)[[0, 1]],), {"z", "x"}),
        (hierarchical_vae(6, (3, 2), ((), ())), (), {"z1", "z2", "x"}),
        (semi_supervised_vae(6, 2, 3), (), {"y", "z", "x"}),
    ]
    for pair, context, names in pairs:
        trace = poutine.trace(pair.model).get_trace(torch.zeros(2, 6), *context)
        sites = {n: s for n, s in trace.nodes.items() if s["type"] == "sample"}
        assert set(sites) == names | {"data"}
        for name in names:
            assert [(f.name, f.dim) for f in sites[name]["cond_indep_stack"]] == [("data", -1)]
