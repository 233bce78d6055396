# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Images made pixel by pixel: probabilities against enumeration, contexts, imputation."""

from itertools import product
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from scipy.stats import chi2

from pyro_deepgen.autoregressive import GatedPixelCNN, LogisticMixtureOutput, PixelCNN
from pyro_deepgen.distributions import DiscretizedLogistic
from tests.autoregressive.rows_pixels import NETWORKS, SETTINGS, changed, pixels

pytestmark = pytest.mark.usefixtures("float64")

FAILURE_RATE = 1e-6
CONTEXTS: list[dict[str, int]] = [{}, {"context_dim": 2}, {"context_channels": 2}]
by_context = pytest.mark.parametrize("kwargs", CONTEXTS, ids=["alone", "vector", "map"])
# Images of few variables, for tests that count draws.
FEW: dict[str, Any] = {
    "grey": ((1, 2, 3), None),
    "colour": ((3, 1, 2), None),
    "mixture": ((3, 2, 1), LogisticMixtureOutput(2, 2)),
    "levels": ((1, 2, 2), LogisticMixtureOutput(2, 3)),
}


@torch.no_grad()
def probabilities(model: Any) -> torch.Tensor:
    return torch.as_tensor(model.log_prob(model.enumerate_support()).exp())


def given_something(model: Any, *batch: int) -> Any:
    return (
        model.condition(torch.randn(*batch, *model.context_shape)) if model.context_dim else model
    )


@pytest.mark.parametrize(
    ("setting", "kwargs"),
    [*((name, {}) for name in SETTINGS), *product(["grey", "colour", "mixture"], CONTEXTS[1:])],
)
@pytest.mark.parametrize("network", NETWORKS)
def test_all_configurations_sum_to_one(network: str, setting: str, kwargs: Any) -> None:
    model = given_something(pixels(network, setting, **kwargs))
    probs = probabilities(model)
    assert len(probs) in (2**12, 3**6)
    assert float(probs.std()) > 1e-6
    assert abs(float(probs.sum()) - 1) < 1e-8


@pytest.mark.parametrize("network", ["cnn", "gated", "diagonal", "row"])
def test_a_pixel_that_is_seen_by_itself_does_not_sum_to_one(network: str) -> None:
    model = pixels(network)
    first = model.layers[0]["horizontal"] if network == "gated" else model.first
    first.mask[:, :, -1, first.side] = 1.0
    assert abs(float(probabilities(model).sum()) - 1) > 1e-3


# ---------------------------------------------------------------- draws


def p_value(model: Any, draws: torch.Tensor) -> float:
    """Return the p-value of Pearson's test against the enumerated probabilities."""
    top = model.output.num_values - 1 if isinstance(model.output, LogisticMixtureOutput) else 1
    digits = (draws.flatten(1) * top).long()
    powers = model.output.num_values ** torch.arange(digits.shape[1])
    expected = probabilities(model) * len(draws)
    observed = torch.bincount((digits * powers).sum(-1), minlength=len(expected)).double()
    small = expected < 10
    e = torch.cat([expected[~small], expected[small].sum().reshape(1)])
    o = torch.cat([observed[~small], observed[small].sum().reshape(1)])
    if e[-1] < 10:
        e, o = e[:-1], o[:-1]
    return float(chi2.sf(float(((o - e) ** 2 / e).sum()), len(e) - 1))


@pytest.mark.parametrize("setting", FEW)
@pytest.mark.parametrize("network", NETWORKS)
def test_draws_have_the_enumerated_probabilities(network: str, setting: str) -> None:
    model = changed(NETWORKS[network](*FEW[setting]))
    assert p_value(model, model.sample((10_000,))) > FAILURE_RATE
    other = changed(NETWORKS[network](*FEW[setting]))
    assert p_value(model, other.sample((10_000,))) < FAILURE_RATE, "the test can fail"


# ---------------------------------------------------------------- contexts


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@by_context
@pytest.mark.parametrize("network", NETWORKS)
def test_contexts_of_any_batch_shape(network: str, kwargs: Any, batch: tuple[int, ...]) -> None:
    model = changed(NETWORKS[network]((2, 3, 2), **kwargs))
    if not kwargs:
        wide = model.expand(batch)
        draws = wide.sample((4,))
        assert draws.shape == (4, *batch, 2, 3, 2)
        assert wide.log_prob(draws).shape == (4, *batch)
        return
    contexts = torch.randn(*batch, *model.context_shape)
    given = model.condition(contexts)
    assert given.batch_shape == batch
    draws = given.sample((4,))
    scores = given.log_prob(draws)
    assert (draws.shape, scores.shape) == ((4, *batch, 2, 3, 2), (4, *batch))
    for at in product(*map(range, batch)):
        alone = model.condition(contexts[at]).log_prob(draws[(slice(None), *at)])
        torch.testing.assert_close(scores[(slice(None), *at)], alone)
    assert not torch.allclose(scores, model.condition(contexts + 1).log_prob(draws))
    done = given.impute(draws, draws > 0.5, num_particles=3)
    assert done.value.shape == draws.shape


@pytest.mark.parametrize("network", NETWORKS)
def test_draws_follow_a_map_at_its_place(network: str) -> None:
    model = NETWORKS[network]((1, 2, 3), context_channels=1)
    context, place = torch.zeros(1, 2, 3), (0, 1, 1)
    before = changed(model).condition(context)
    context = context.clone()
    context[place] = 3.0
    after = model.condition(context)
    x = before.sample((20,))
    same = (before.conditionals(x, before._given_context())).eq(
        after.conditionals(x, after._given_context())
    )
    changes = (~same.squeeze(-1)).any(0).flatten()
    assert not bool(changes[:3].any())  # the row above
    assert bool(changes[4:].all())  # its place and on
    if network != "gated":  # whose vertical stack sees neighbours of the row
        assert not bool(changes[3])


# ---------------------------------------------------------------- imputation


@pytest.mark.parametrize(
    ("network", "setting"), [*((name, "grey") for name in NETWORKS), ("cnn", "levels")]
)
def test_imputation_is_exact_after_what_is_known(network: str, setting: str) -> None:
    model = changed(NETWORKS[network]((1, 2, 2), SETTINGS[setting][1]))
    support, probs = model.enumerate_support(), probabilities(model)
    x, caught = support[1].clone(), []
    for mask, method in (
        (torch.tensor([[True, True], [False, False]]), "exact"),
        (torch.tensor([[False, True], [False, True]]), "importance"),
    ):
        done = model.impute(torch.where(mask, x, torch.nan).expand(800, 1, 2, 2), mask, 80)
        assert done.method == method
        assert bool(done.exact.all()) == (method == "exact")
        right = probs * (support == x)[:, :, mask].all(-1).all(-1)
        right = right / right.sum()
        seen = (done.value.unsqueeze(1) == support).flatten(2).all(-1).double().mean(0)
        error = (right * (1 - right) / 800).sqrt()
        bias = 0.0 if method == "exact" else 3 / 80
        assert bool(((seen - right).abs() < 4.5 * error + bias + 1e-12).all())
        wrong = right.clone()  # the same probabilities of other completions
        wrong[right > 0] = right[right > 0].roll(1)
        caught.append(bool(((seen - wrong).abs() > 4.5 * error + bias).any()))
    assert any(caught), "the test can fail"


# ---------------------------------------------------------------- mixtures of logistics


def test_a_mixture_of_discretised_logistics() -> None:
    output, theta = LogisticMixtureOutput(3, 8), torch.randn(40, 9)
    logits, loc, log_scale = theta.chunk(3, -1)
    scale = log_scale.exp() + 0.1 / 7
    reference = dist.MixtureSameFamily(
        dist.Categorical(logits=logits), DiscretizedLogistic((loc + 1) / 2, scale, num_levels=8)
    )
    x = torch.randint(8, (40,)) / 7
    torch.testing.assert_close(output.log_prob(theta, x), reference.log_prob(x))
    levels = torch.arange(8) / 7
    one = theta[0].expand(50_000, 9)
    draws = output.draw(one, output.noise((50_000,), theta))
    assert bool(output.support.check(draws).all())
    observed = (draws.unsqueeze(-1) == levels).double().mean(0)
    expected = output.log_prob(theta[0].expand(8, 9), levels).exp()
    error = (expected * (1 - expected) / 50_000).sqrt()
    assert bool(((observed - expected).abs() < 4.5 * error).all())
    assert bool(((observed.roll(1) - expected).abs() > 4.5 * error).any()), "the test can fail"


def test_the_channels_of_a_pixel_share_a_component() -> None:
    output, num = LogisticMixtureOutput(2, 4), 3
    theta, x = torch.randn(5, output.num_pixel_parameters(num)), torch.randint(4, (5, num)) / 3
    product_of_conditionals = sum(
        output.log_prob(output.couple(theta, x[:, :c], num), x[:, c]) for c in range(num)
    )
    parts = theta.reshape(5, -1, 2)
    logits, own, slopes = parts[:, 0], parts[:, 1:7].reshape(5, 3, 2, 2), parts[:, 7:].tanh()
    y = 2 * x[..., None] - 1
    locs = [
        own[:, 0, 0],
        own[:, 1, 0] + slopes[:, 0] * y[:, 0],
        own[:, 2, 0] + slopes[:, 1] * y[:, 0] + slopes[:, 2] * y[:, 1],
    ]
    scores = logits.log_softmax(-1)
    for c, loc in enumerate(locs):
        logistic = DiscretizedLogistic(
            (loc + 1) / 2, own[:, c, 1].exp() + 0.1 / 3, num_levels=4, validate_args=False
        )
        scores = scores + logistic.log_prob(x[:, c, None])
    torch.testing.assert_close(product_of_conditionals, scores.logsumexp(-1))


# ---------------------------------------------------------------- wrong arguments


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PixelCNN((28, 28)), r"image shape \(channels, height, width\), got \(28, 28\)"),
        (lambda: PixelCNN((1, 2, 2), "binary"), r"instance of an Output"),
        (lambda: PixelCNN((1, 2, 2), first_kernel_size=4), "odd height and width"),
        (lambda: PixelCNN((3, 2, 2), num_channels=4), "at least 3 channels in a layer"),
        (lambda: PixelCNN((1, 2, 2), num_blocks=0), "num_blocks a positive"),
        (lambda: PixelCNN((1, 2, 2), one_hot=True), "CategoricalOutput with one_hot=True"),
        (lambda: GatedPixelCNN((1, 2, 2), first_kernel_size=1), "a height above 1"),
        (
            lambda: GatedPixelCNN((1, 2, 2), context_dim=2, context_channels=1),
            "a vector context or a context map",
        ),
        (lambda: NETWORKS["row"]((1, 2, 2)).condition(torch.zeros(2)), "context with 0 dimensions"),
        (
            lambda: GatedPixelCNN((1, 2, 2), context_channels=3).condition(torch.zeros(3)),
            r"last dimensions are \(3, 2, 2\), got shape \(3,\)",
        ),
        (lambda: NETWORKS["row"]((1, 2, 2)).log_prob(torch.zeros(4)), r"are \(1, 2, 2\), got"),
        (lambda: LogisticMixtureOutput(0), "1 component or more"),
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_real_outputs_and_unknown_kinds_are_refused() -> None:
    from pyro_deepgen.autoregressive import GaussianOutput, PixelRNN

    with pytest.raises(ValueError, match=r"LogisticMixtureOutput\(10\), say, got GaussianOutput"):
        PixelCNN((1, 2, 2), GaussianOutput())
    with pytest.raises(ValueError, match=r'kind "diagonal" or "row", got \'spiral\''):
        PixelRNN((1, 2, 2), kind="spiral")  # type: ignore[arg-type]
