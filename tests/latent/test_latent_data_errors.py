# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Wrong data and wrong arguments of methods: what was expected, what came, and what to do."""

from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from torch import nn

from pyro_deepgen.distributions import DistributionModule
from pyro_deepgen.latent import (
    VAE,
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    conditional_vae,
    hierarchical_vae,
    semi_supervised_vae,
    vae,
)
from pyro_deepgen.latent.shapes import data_plates
from tests.tables import PAIRS, PairRow, named


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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize("validate", [True, False])
def test_binary_data_of_another_type(dtype: torch.dtype, validate: bool) -> None:
    pair, x = vae(6, 2, (4,)), torch.ones(4, 6)
    with pyro.validation_enabled(validate):
        with pytest.raises(ValueError, match=rf"floating-point.*{dtype}.*x.float\(\).*binarize"):
            pair.model(x.to(dtype))
        pair.model(x)
    with pytest.raises(ValueError, match=r"for a Normal likelihood, got torch\.bool"):
        vae(6, 2, (4,), likelihood=GaussianLikelihood()).model(x.bool())


def test_a_wrong_batch_leaves_no_plate_open() -> None:
    pair, x = vae(6, 2, (4,)), torch.zeros(4, 6)
    with pyro.plate("rows", 2, dim=-2), pytest.raises(ValueError, match=r"data_2.*collide"):
        data_plates((2, 3))  # the plate "data" opens, and then "data_2" cannot
    pair.model(x)
    pair.guide(x)


def test_wrong_numbers_of_samples() -> None:
    y = torch.eye(3)[0]
    pairs: list[tuple[Any, tuple[Any, ...]]] = [
        (vae(6, 2, (4,)), ()),
        (conditional_vae(6, 2, 3, (4,)), (y,)),
        (semi_supervised_vae(6, 2, 3, (4,)), ()),
        (hierarchical_vae(6, (3, 2), ((), ())), ()),
    ]
    for pair, context in pairs:
        for number in (-1, 0, 2.0):
            with pytest.raises(ValueError, match="as num_samples a positive whole number"):
                pair.sample(number, *context)


def test_labels_and_probabilities_as_numbers() -> None:
    pair = semi_supervised_vae(6, 2, 3, (4,), class_probs=[2, 1, 1])
    torch.testing.assert_close(pair.class_logits.exp(), torch.tensor([0.5, 0.25, 0.25]))
    assert pair.sample(2, 1).shape == (2, 6)
    assert pair.sample(2, torch.tensor([1, 2])).shape == (2, 6)
    with pytest.raises(ValueError, match="whole numbers"):
        pair.sample(2, 1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="between -1"):
        pair.sample(2, 3)


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
