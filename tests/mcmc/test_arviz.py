# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Draws in ArviZ: groups, names, dimensions, and both generations of ArviZ."""

import math
import warnings
from types import SimpleNamespace
from typing import Any

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from pyro.infer.autoguide.initialization import init_to_value

from pyro_deepgen.mcmc import arviz_groups
from pyro_deepgen.mcmc.chains import Chains
from pyro_deepgen.mcmc.model_target import ModelTarget
from pyro_deepgen.mcmc.run import run
from tests.mcmc.walk import Walk, X, model

Y = torch.tensor([[1.0, -1.0], [0.5, 2.0], [0.0, 1.0]])


def quietly(*args: Any, **kwargs: Any) -> Chains:
    return run(*args, progress=False, **kwargs)


def schools(y: torch.Tensor = Y) -> None:
    """Plates within plates, vectors, a factor, a mask."""
    with pyro.plate("school", 3):
        effect = pyro.sample("effect", dist.Normal(0.0, 1.0))
        pyro.sample("vector", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("tests", 2), pyro.plate("pupils", 3, dim=-2):
        mask = torch.tensor([[True], [True], [False]])
        pyro.sample("y", dist.Normal(effect[:, None], 1.0).mask(mask), obs=y)
    pyro.factor("tilt", -0.1 * effect.square().sum())


@pytest.fixture(scope="module")
def chains() -> Chains:
    pyro.set_rng_seed(0)
    return quietly(Walk(model, compile=False), 60, 20, 4, args=(X,))


def test_inference_data_has_the_groups_and_the_standard_names(chains: Chains) -> None:
    data = chains.to_arviz(posterior_predictive=True, log_likelihood=True, deterministic=True)
    assert set(data.groups()) == {
        "posterior",
        "posterior_predictive",
        "log_likelihood",
        "observed_data",
        "sample_stats",
    }
    assert data.posterior["parts"].shape == (4, 60, 3)
    np.testing.assert_array_equal(data.posterior["loc"], chains.samples["loc"].numpy())
    np.testing.assert_allclose(data.posterior["twice"], 2 * data.posterior["loc"])
    assert set(data.sample_stats) == {"acceptance_rate", "diverging", "lp"}
    assert data.sample_stats["diverging"].dtype == bool
    assert data.posterior_predictive["x"].dims == ("chain", "draw", "items")
    np.testing.assert_array_equal(data.observed_data["x"], X.numpy())
    assert math.isfinite(arviz.loo(data, pointwise=True).elpd_loo)


def test_only_what_is_asked_for(chains: Chains) -> None:
    assert set(chains.to_arviz().groups()) == {"posterior", "sample_stats", "observed_data"}


def test_the_log_likelihood_is_that_of_each_datum(chains: Chains) -> None:
    found = chains.to_groups(log_likelihood=True)["log_likelihood"]["x"]
    expected = dist.Normal(chains.samples["loc"][..., None], 1.0).log_prob(X)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


def test_lp_is_the_density_of_the_unconstrained_draws(chains: Chains) -> None:
    s = {name: value.double() for name, value in chains.samples.items()}
    expected = (
        dist.Normal(0.0, 1.0).log_prob(s["loc"])
        + dist.Gamma(3.0, 2.0).log_prob(s["rate"])
        + s["rate"].log()
        + dist.Normal(s["loc"][..., None], 1.0).log_prob(X.double()).sum(-1)
        + dist.Dirichlet(torch.full((3,), 2.0).double()).log_prob(s["parts"])
        + s["parts"].log().sum(-1)  # the Jacobian of stick-breaking
    )
    found = chains.to_groups()["sample_stats"]["lp"]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("parallel", [False, True])
def test_predictions_are_new_data_at_every_draw(parallel: bool) -> None:
    chains = quietly(Walk(model, compile=False), 100, 20, 4, args=(X,))
    new = chains.to_groups(posterior_predictive=True, parallel=parallel)
    noise = new["posterior_predictive"]["x"] - chains.samples["loc"].numpy()[..., None]
    assert noise.shape == (4, 100, 4)
    count = noise.size
    assert abs(noise.mean()) < 4 / count**0.5
    assert abs(noise.var() - 1) < 4 * (2 / count) ** 0.5


def test_dimensions_are_plates_and_masks_and_factors_are_respected() -> None:
    chains = quietly(Walk(schools, compile=False), 20, 5, 4)
    data = chains.to_arviz(
        log_likelihood=True, posterior_predictive=True, coords={"school": ["a", "b", "c"]}
    )
    assert data.posterior["effect"].dims == ("chain", "draw", "school")
    assert data.posterior["vector"].dims == ("chain", "draw", "school", "vector_dim_1")
    assert data.log_likelihood["y"].dims == ("chain", "draw", "pupils", "tests")
    assert list(data.posterior["effect"].coords["school"].values) == ["a", "b", "c"]
    assert list(data.observed_data) == ["y"]
    assert list(data.posterior_predictive) == ["y"]
    terms = data.log_likelihood["y"].values
    assert (terms[:, :, 2] == 0).all() and (terms[:, :, :2] != 0).all()
    renamed = chains.to_arviz(dims={"effect": ["house"]})
    assert renamed.posterior["effect"].dims == ("chain", "draw", "house")


def test_the_summary_is_that_of_arviz(chains: Chains) -> None:
    table = chains.summary()
    assert list(table.columns) == [
        "mean",
        "sd",
        "mcse_mean",
        "mcse_sd",
        "ess_bulk",
        "ess_tail",
        "r_hat",
    ]
    assert list(table.index) == ["loc", "rate", "parts[0]", "parts[1]", "parts[2]"]
    loc = chains.samples["loc"]
    assert table["mean"]["loc"] == pytest.approx(float(loc.mean()), rel=1e-5)
    assert table["sd"]["loc"] == pytest.approx(float(loc.std()), rel=1e-4)
    assert table["ess_bulk"]["loc"] == pytest.approx(float(arviz.ess(loc.numpy())), rel=1e-6)
    assert table["r_hat"]["loc"] == pytest.approx(float(arviz.rhat(loc.numpy())), rel=1e-6)


def test_one_chain_and_many_short_ones_have_a_summary() -> None:
    kernel = Walk(model, compile=False)
    one = quietly(kernel, 30, 5, 1).summary()
    assert bool(one["r_hat"].isna().all()) and bool((one["ess_bulk"] > 0).all())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "More chains than draws" is what is wanted here
        many = quietly(kernel, 6, 5, 50).summary()
    assert bool((many["r_hat"] > 0.9).all())


def test_a_latent_site_without_draws_is_named() -> None:
    chains = quietly(Walk(model, compile=False), 5, 0, 4, save_params=["rate", "parts"])
    with pytest.raises(ValueError, match=r"'loc'.*save_params"):
        chains.to_arviz(log_likelihood=True)
    assert "loc" not in chains.to_arviz().posterior


def test_chains_without_a_model_say_so() -> None:
    kernel = Walk(potential_fn=lambda values: values["q"].square().sum() / 2, compile=False)
    chains = quietly(kernel, 50, 0, initial_params={"q": torch.randn(4, 2)})
    assert set(chains.to_arviz().groups()) == {"posterior", "sample_stats"}
    with pytest.raises(ValueError, match="know no Pyro model"):
        chains.to_arviz(log_likelihood=True)


def test_a_prior_that_cannot_be_drawn_from_does_not_matter() -> None:
    def improper() -> None:
        loc = pyro.sample("loc", dist.ImproperUniform(dist.constraints.real, (), ()))
        with pyro.plate("items", 4):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=X)

    target = ModelTarget(improper, init_strategy=init_to_value(values={"loc": torch.tensor(1.0)}))
    chains = quietly(Walk(target, compile=False), 10, 5, 3)
    data = chains.to_arviz(log_likelihood=True, posterior_predictive=True)
    assert data.log_likelihood["x"].shape == (3, 10, 4)


# ---------------------------------------------------------------- the next generation


def test_version_one_gets_one_dictionary(monkeypatch: pytest.MonkeyPatch, chains: Chains) -> None:
    taken: dict[str, Any] = {}

    def from_dict(data: dict[str, Any], *, coords: Any = None, dims: Any = None) -> str:
        taken.update(data=data, coords=coords, dims=dims)
        return "tree"

    newer = SimpleNamespace(__version__="1.3.0", from_dict=from_dict)
    monkeypatch.setattr(arviz_groups, "arviz", newer)
    assert chains.to_arviz(log_likelihood=True, coords={"items": list("abcd")}) == "tree"
    assert set(taken["data"]) == {"posterior", "log_likelihood", "observed_data", "sample_stats"}
    assert all(isinstance(a, np.ndarray) for g in taken["data"].values() for a in g.values())
    assert taken["dims"]["x"] == ["items"] and taken["coords"] == {"items": list("abcd")}


def test_predictive_of_pyro_gives_the_same_sites(chains: Chains) -> None:
    program = chains.program
    assert program is not None
    mine = program.predict(chains.get_samples(num_samples=7))
    theirs = Predictive(
        poutine.uncondition(model), posterior_samples=chains.get_samples(num_samples=7)
    )(X)
    assert mine["x"].shape == theirs["x"].shape
