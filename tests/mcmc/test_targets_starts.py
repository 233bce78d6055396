# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Where chains start, how data are replaced, and what a model must not do."""

from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide.initialization import (
    init_to_median,
    init_to_sample,
    init_to_uniform,
    init_to_value,
)
from torch import nn

from pyro_deepgen.mcmc.model_target import ModelTarget
from pyro_deepgen.mcmc.starts import TRIES, check_starts, draw_starts

from .models import MODELS, Regression, chain, data, mixture, schools

pytestmark = pytest.mark.usefixtures("float64")


def picky() -> None:
    """A model half of whose unconstrained line is impossible."""
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.factor("half", torch.where(x > 0, 0.0, -torch.inf))


# ---------------------------------------------------------------- starts


def test_only_chains_without_a_start_draw_again() -> None:
    target = ModelTarget(picky)
    sizes: list[int] = []

    def draw(num_chains: int) -> dict[str, torch.Tensor]:
        sizes.append(num_chains)
        return {"x": torch.rand(num_chains) * 4 - 2}

    values = draw_starts(target, draw, 1000)
    assert bool((values["x"] > 0).all())
    assert sizes[0] == 1000 and sizes == sorted(sizes, reverse=True) and 400 < sizes[1] < 600
    # Valid draws of the first round stay: half of the values would else be biased.
    assert abs(float(values["x"].mean()) - 1.0) < 4 * (1 / 3 / 1000) ** 0.5


def test_starts_are_uniform_in_the_cube_as_in_pyro() -> None:
    values = ModelTarget(schools, (data(),)).start(4000)
    for value in values.values():
        assert float(value.abs().max()) <= 2.0
        assert abs(float(value.mean())) < 4 * (4 / 3 / value.numel()) ** 0.5
    narrow = partial(init_to_uniform, radius=0.1)
    values = ModelTarget(schools, (data(),), init_strategy=narrow).start(50)
    assert 0.05 < max(float(v.abs().max()) for v in values.values()) <= 0.1


@pytest.mark.parametrize("strategy", [init_to_sample, init_to_median(num_samples=5)])
@pytest.mark.parametrize("model", [schools, mixture, chain])
def test_other_strategies_start_every_chain_elsewhere(model: Any, strategy: Any) -> None:
    target = ModelTarget(model, (data(4),), keep=None, init_strategy=strategy)
    values = target.start(20)
    for name, site in target.sites.items():
        assert values[name].shape == (20, *site.shape) and values[name].dtype == site.dtype
        # The median of a vector is not defined: Pyro then starts all at one place.
        if not site.is_discrete and (site.support.event_dim == 0 or strategy is init_to_sample):
            assert len(values[name].unique(dim=0)) == 20


def test_starts_at_given_values() -> None:
    given = {"mu": torch.tensor(0.5), "tau": torch.tensor(2.0)}
    target = ModelTarget(schools, (data(),), init_strategy=init_to_value(values=given))
    values = target.constrain(target.start(3))
    assert values["mu"].tolist() == [0.5] * 3
    assert torch.allclose(values["tau"], torch.tensor(2.0))
    assert len(values["theta"].unique(dim=0)) == 3


def test_kept_discrete_sites_start_from_the_prior() -> None:
    def model() -> None:
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Categorical(torch.tensor([0.1, 0.0, 0.9])))

    z = ModelTarget(model, keep=None).start(3000)["z"]
    assert not (z == 1).any()
    assert abs(float((z == 2).double().mean()) - 0.9) < 4 * (0.09 / 9000) ** 0.5


def test_no_start_is_an_error_that_names_the_site() -> None:
    def impossible() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("bad", dist.Normal(0.0, -x.square()), obs=torch.tensor(1.0))

    with pytest.raises(ValueError, match=f"3 of 3 chains.*{TRIES} draws.*'bad' is nan"):
        ModelTarget(impossible).start(3)

    def steep() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("root", (x - x).sqrt())

    with pytest.raises(ValueError, match="gradient at the site 'x' is not finite"):
        ModelTarget(steep).start(3)


def test_starts_of_a_user() -> None:
    target = ModelTarget(schools, (data(),))
    good = target.start(3)
    checked = check_starts(target, {n: v.float() for n, v in good.items()}, 3)
    assert list(checked) == list(target.sites)
    assert all(v.dtype == torch.float64 for v in checked.values())
    assert check_starts(target, {n: v[0] for n, v in good.items()}, 1)["theta"].shape == (1, 6)

    def error(**changes: Any) -> str:
        with pytest.raises(ValueError) as caught:
            check_starts(target, {**good, **changes}, 3)
        return str(caught.value)

    assert "unknown: ['nu']" in error(nu=torch.zeros(3))
    with pytest.raises(ValueError, match=r"missing: \['theta'\]"):
        check_starts(target, {n: good[n] for n in ("mu", "tau")}, 3)
    assert "shape (3, 6) for the site 'theta'" in error(theta=torch.zeros(3, 5))
    assert "'mu' has values that are not finite in chain 1" in error(
        mu=torch.tensor([0.0, torch.inf, 0.0])
    )
    far = error(tau=torch.tensor([0.0, 0.0, -2000.0]))
    assert "chain 2 starts" in far and "'theta'" in far


# ---------------------------------------------------------------- data


def test_new_data_of_the_same_shape_are_taken_over_and_the_users_tensors_stay() -> None:
    first, second = data(), data().flip(0) * 2
    before = first.clone()
    target = ModelTarget(schools, (first,))
    values = target.start(4)
    assert target.update((second,), {})
    assert torch.equal(target.potential(values), ModelTarget(schools, (second,)).potential(values))
    assert torch.equal(first, before)
    first.zero_()
    assert torch.equal(target.arguments.args[0], second)


def test_other_kinds_of_data_are_not_taken_over() -> None:
    def model(y: Any, scale: float = 1.0, top: Any = 2.0) -> None:
        with pyro.plate("data", len(y)):
            x = pyro.sample("x", dist.Uniform(0.0, top))
            pyro.sample("y", dist.Normal(x, scale), obs=y)

    target = ModelTarget(model, (data(),), {"top": torch.tensor(2.0)})
    same = {"top": torch.tensor(2.0)}
    assert target.update((data() + 1,), same)
    for args, kwargs in [
        ((data(5),), same),
        ((data().float(),), same),
        ((data(), 2.0), same),
        ((data(),), {"top": 2.0}),
        ((data(),), {"top": torch.tensor(3.0)}),  # another support
    ]:
        assert not target.update(args, kwargs)
    assert torch.equal(target.arguments.args[0], data() + 1)


def test_other_parameters_or_another_mode_of_a_module_are_noticed() -> None:
    model = Regression()
    target = ModelTarget(model, (data(),))
    assert target.update((data(),), {})
    model.eval()
    assert not target.update((data(),), {})
    target = ModelTarget(model, (data(),))
    model.out.weight = nn.Parameter(torch.ones(1, 2))
    assert not target.update((data(),), {})
    target = ModelTarget(MODELS["with_param"], (data(),))
    assert target.update((data(),), {})
    pyro.clear_param_store()
    assert not target.update((data(),), {})


# ---------------------------------------------------------------- what a model must not do


def subsampled() -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("some", 10, subsample_size=3):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=torch.zeros(3))


def varying() -> None:
    x = pyro.sample("x", dist.Uniform(0.0, 1.0))
    pyro.sample("x2" if bool(x * 1e6 % 2 < 1) else "x3", dist.Normal(0.0, 1.0))
    for i in range(20):
        if bool(x * 10 ** (i % 6) * (i + 7) % 2 < 1):
            pyro.sample(f"extra_{i}", dist.Normal(0.0, 1.0))


def moving_support() -> None:
    top = pyro.sample("top", dist.LogNormal(0.0, 1.0))
    pyro.sample("below", dist.Uniform(0.0, top))


def counting() -> None:
    pyro.sample("count", dist.Poisson(3.0))


def bits() -> None:
    pyro.sample("bits", dist.Bernoulli(torch.ones(3) / 2).to_event(1))


def sphere() -> None:
    pyro.sample("direction", dist.ProjectedNormal(torch.ones(3)))


def nothing() -> None:
    pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))


def unplated() -> None:
    z = pyro.sample("z", dist.Bernoulli(0.5))
    pyro.sample("y", dist.Normal(z, torch.ones(3)), obs=torch.zeros(3))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (subsampled, "plate 'some' draws 3 of 10"),
        (varying, "same sites"),
        (moving_support, r"\['below'\] differ between two runs"),
        (counting, r"'count' \(Poisson.*no finite list.*Gibbs"),
        (bits, "'bits'.*DiscreteGibbs"),
        (sphere, "'direction' has the support.*reparam"),
        (nothing, "no latent site"),
        (unplated, 'at site "y", invalid log_prob shape'),
    ],
)
def test_models_that_no_chain_can_sample(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        ModelTarget(model)


def test_kept_sites_may_be_counts_or_vectors() -> None:
    assert ModelTarget(counting, keep=("count",)).sites["count"].values is None
    site = ModelTarget(bits, keep=None).sites["bits"]
    assert site.values is not None and site.values.tolist() == [0.0, 1.0] and site.shape == (3,)


def reads_a_value() -> None:
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(0.0 if x > 0 else 1.0, 1.0), obs=torch.tensor(1.0))


def reads_an_item() -> None:
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(x.item(), 1.0), obs=torch.tensor(1.0))


def reads_an_array() -> None:
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    loc = torch.as_tensor(x.detach().numpy())
    pyro.sample("y", dist.Normal(loc, 1.0), obs=torch.tensor(1.0))


def writes_in_place() -> None:
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    mean = torch.zeros(2)
    mean[0] = x
    pyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=torch.ones(2))


def draws_numbers() -> None:
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    noisy = nn.functional.dropout(x, 0.5)
    pyro.sample("y", dist.Normal(noisy, 1.0), obs=torch.tensor(1.0))


@pytest.mark.parametrize(
    "model", [reads_a_value, reads_an_item, reads_an_array, writes_in_place, draws_numbers]
)
def test_models_that_run_for_one_chain_only(model: Any) -> None:
    with pytest.raises(ValueError, match=r"many chains at once; it stops after the site 'x'"):
        ModelTarget(model).start(4)
