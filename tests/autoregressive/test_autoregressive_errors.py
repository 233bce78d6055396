# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a user can get wrong, and the families of one variable."""

from typing import Any

import pyro.distributions as dist
import pytest
import torch

from pyro_deepgen.autoregressive import (
    MADE,
    NADE,
    RNADE,
    BinaryOutput,
    CategoricalOutput,
    GaussianOutput,
    LinearAutoregressive,
    MixtureOutput,
    NADEk,
    OrderlessNADE,
)

pytestmark = pytest.mark.usefixtures("float64")

REFERENCES: dict[str, tuple[Any, Any]] = {
    "binary": (BinaryOutput(), lambda p: dist.Bernoulli(logits=p[..., 0])),
    "categorical": (CategoricalOutput(4), lambda p: dist.Categorical(logits=p)),
    "gaussian": (GaussianOutput(), lambda p: dist.Normal(p[..., 0], p[..., 1].exp())),
    "mixture": (
        MixtureOutput(3),
        lambda p: dist.MixtureSameFamily(
            dist.Categorical(logits=p[..., :3]), dist.Normal(p[..., 3:6], p[..., 6:].exp())
        ),
    ),
    "laplace": (
        MixtureOutput(2, "laplace"),
        lambda p: dist.MixtureSameFamily(
            dist.Categorical(logits=p[..., :2]), dist.Laplace(p[..., 2:4], p[..., 4:].exp())
        ),
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_outputs_are_the_distributions_that_they_name(name: str) -> None:
    output, reference = REFERENCES[name]
    parameters = torch.randn(5, 7, output.num_parameters)
    given = reference(parameters)
    value = given.sample()
    torch.testing.assert_close(output.log_prob(parameters, value), given.log_prob(value))
    assert bool(output.support.check(value).all())


@pytest.mark.parametrize("name", REFERENCES)
def test_draws_of_outputs(name: str) -> None:
    output, reference = REFERENCES[name]
    parameters = torch.randn(output.num_parameters)
    noise = output.noise((50_000,), parameters)
    draws = output.draw(parameters.expand(50_000, -1), noise).double()
    other = reference(parameters).sample((50_000,)).double()
    for function in (lambda x: x, torch.cos, lambda x: (x > 1).double()):
        a, b = function(draws), function(other)
        error = ((a.var() + b.var()) / 50_000).sqrt()
        assert abs(float(a.mean() - b.mean())) <= 4.5 * float(error)
    shifted = draws + 0.1
    error = (2 * shifted.var() / 50_000).sqrt()
    assert abs(float(shifted.mean() - other.mean())) > 4.5 * float(error), "the test can fail"


@pytest.mark.parametrize("logit", [-800.0, -40.0, 0.0, 40.0, 800.0])
def test_binary_outputs_keep_small_probabilities(logit: float) -> None:
    parameters = torch.tensor([logit])
    for x in (0.0, 1.0):
        score = float(BinaryOutput().log_prob(parameters, torch.tensor(x)))
        signed = logit if x else -logit
        exact = float(torch.nn.functional.logsigmoid(torch.tensor(signed)))
        assert score == pytest.approx(exact, rel=1e-12, abs=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NADE(0, 3), "num_variables a positive whole number, got 0"),
        (lambda: NADE(3, 0), "num_hidden a positive whole number, got 0"),
        (lambda: NADE(3, 3, order=[0, 1, 1]), "order each of the numbers from 0 to 2"),
        (lambda: NADE(3, 3, "binary"), r"instance of an Output, such as BinaryOutput\(\)"),
        (lambda: MADE(3, (4,), num_masks=0), "num_masks a positive"),
        (lambda: MADE(3, (4,), order=[0, 1]), "order each of the numbers"),
        (lambda: MADE(3, (4,), CategoricalOutput(3), order=[0, 1]), "order each of the numbers"),
        (lambda: LinearAutoregressive(-1), "num_variables a positive"),
        (lambda: OrderlessNADE(3, ()), "at least one hidden layer, got none"),
        (lambda: OrderlessNADE(3, (4, -1)), "hidden_dims a sequence of positive"),
        (lambda: NADEk(3, 4, 0), "num_steps a positive"),
        (lambda: RNADE(3, 4, 0), "1 component or more.*num_components=0"),
        (lambda: RNADE(3, 4, 2, "cauchy"), "kind='cauchy'"),
        (lambda: CategoricalOutput(1), "at least 2 classes, got 1"),
        (lambda: OrderlessNADE(3, 4).ensemble(0), "num_orders a positive"),
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_contexts_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"context with 0 dimensions.*context_dim=0"):
        NADE(3, 4).condition(torch.zeros(2))
    for model in (NADE(3, 4, context_dim=2), MADE(3, (4,), context_dim=2)):
        with pytest.raises(ValueError, match=r"context with 2 dimensions, got shape \(5, 3\)"):
            model.condition(torch.zeros(5, 3))
        for use in (lambda m: m.log_prob(torch.zeros(3)), lambda m: m.sample()):
            with pytest.raises(ValueError, match=r"got none: use condition\(context\)"):
                use(model)
        assert model.params_shape((3,)) == (2,)
        with pytest.raises(ValueError, match=r"data of shape \(3,\).*got data of shape \(4,\)"):
            model.params_shape((4,))


def test_values_that_do_not_fit() -> None:
    model = NADE(3, 4)
    with pytest.raises(ValueError, match=r"last dimensions are \(3,\), got shape \(5, 4\)"):
        model.log_prob(torch.zeros(5, 4))
    with pytest.raises(ValueError, match="support"):
        model.log_prob(torch.full((3,), 0.5))
    with pytest.raises(ValueError, match="support"):
        MADE(3, (4,), CategoricalOutput(3)).log_prob(torch.tensor([0, 1, 3]))


def test_what_cannot_be_enumerated() -> None:
    with pytest.raises(ValueError, match="at most 1048576 values"):
        NADE(21, 4).enumerate_support()
    with pytest.raises(ValueError, match="discrete variables to enumerate"):
        RNADE(2, 4).enumerate_support()
    assert not RNADE(2, 4).has_enumerate_support


@pytest.mark.parametrize("output", [BinaryOutput(), CategoricalOutput(3), GaussianOutput()])
def test_one_variable(output: Any) -> None:
    for model in (
        LinearAutoregressive(1, output),
        NADE(1, 3, output),
        MADE(1, (3,), output),
        OrderlessNADE(1, 3, output),
    ):
        assert model.log_prob(model.sample((4,))).shape == (4,)
        assert torch.isfinite(model.log_prob(model.naive_sample((4,)))).all()


def test_devices_and_precisions(device: torch.device) -> None:
    for make in (NADE, RNADE, NADEk, OrderlessNADE, lambda d, h: MADE(d, (h,), num_masks=2)):
        model = make(4, 5).float().to(device).eval()
        x = model.sample((3,))
        assert (x.dtype, x.device.type) == (torch.float32, device.type)
        assert model.log_prob(x).device.type == device.type
        done = model.impute(x, torch.tensor([False, True, False, True], device=device))
        assert done.value.device.type == device.type
        assert torch.equal(done.value[:, 1], x[:, 1])
