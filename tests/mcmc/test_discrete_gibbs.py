# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Gibbs sampling of discrete sites: which elements are drawn at once, and from what law."""

import itertools
from typing import Any
from unittest import mock

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_deepgen.mcmc.discrete_gibbs import DiscreteGibbs
from pyro_deepgen.mcmc.gibbs import Gibbs
from pyro_deepgen.mcmc.model_target import ModelTarget
from tests.mcmc.exact_targets import (
    EXACT_TARGETS,
    FAILURE_RATE,
    Lattice,
    discrete,
    labels,
    mixture,
    p_value_of,
)

pytestmark = pytest.mark.usefixtures("float64")


def two_plates(coupling: str) -> Any:
    """Labels in two plates, coupled along the rows, the columns, both or none."""

    def model() -> None:
        with pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 2, dim=-1):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.4)))
            pyro.factor("own", 0.3 * z)
        if coupling in ("rows", "both"):
            with pyro.plate("columns_2", 2, dim=-1):
                pyro.factor("along rows", 0.7 * (z[:-1] * z[1:]).sum(-2))
        if coupling in ("columns", "both"):
            with pyro.plate("rows_2", 3, dim=-2):
                pyro.factor("along columns", 0.7 * z.prod(-1, keepdim=True))

    return model


def coupled_in_a_rare_case() -> None:
    with pyro.plate("n", 8):
        z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
    pyro.factor("all", 3.0 * (z.sum(-1) == 8))


def coupled_against_the_plate() -> None:
    """A sum over a plate inside of it, which Pyro does not notice."""
    with pyro.plate("n", 4):
        z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
        pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=torch.zeros(4))


def summed_out_beside_it() -> None:
    k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.4)))
    with pyro.plate("n", 3):
        pyro.sample("z", dist.Bernoulli(0.2 + 0.6 * k))


def pixels() -> None:
    """Elements of one event, two to each element of a plate."""
    with pyro.plate("n", 3):
        z = pyro.sample("z", dist.Bernoulli(torch.tensor([0.3, 0.6])).to_event(1))
        pyro.sample("x", dist.Normal(z.prod(-1), 1.0), obs=torch.tensor([1.0, 0.0, 2.0]))


def one_hot() -> None:
    with pyro.plate("n", 2):
        z = pyro.sample("z", dist.OneHotCategorical(torch.tensor([0.2, 0.5, 0.3])))
        x = torch.tensor([0.5, 2.0])
        pyro.sample("x", dist.Normal((z * torch.arange(3.0)).sum(-1), 1.0), obs=x)


@pytest.mark.parametrize(
    ("model", "dims"),
    [
        (labels, {"k": (), "z": (-1,), "w": (-1,)}),
        (discrete, {"a": (), "b": (), "c": ()}),
        (Lattice(), {"z": ()}),
        (two_plates("none"), {"z": (-2, -1)}),
        (two_plates("rows"), {"z": (-1,)}),
        (two_plates("columns"), {"z": (-2,)}),
        (two_plates("both"), {"z": ()}),
        (coupled_in_a_rare_case, {"z": ()}),
        (coupled_against_the_plate, {"z": ()}),
        (pixels, {"z": (-1,)}),
        (one_hot, {"z": (-1,)}),
    ],
)
def test_it_finds_what_is_independent(model: Any, dims: dict[str, tuple[int, ...]]) -> None:
    kernel = DiscreteGibbs(model, compile=False)
    kernel.setup(0)
    kernel.init(kernel.target.start(3))
    assert dict(kernel.plates or ()) == dims


def exact_law(model: Any, name: str, values: torch.Tensor) -> dict[tuple[float, ...], float]:
    """Return the law of a site by a sum over all values of all its elements."""
    shape = poutine.trace(model).get_trace().nodes[name]["value"].shape
    num_elements = len(shape) - values.dim() + 1
    count = shape[:num_elements].numel()
    weights = {}
    for indices in itertools.product(range(len(values)), repeat=count):
        value = values[torch.tensor(indices)].reshape(shape)
        conditioned = poutine.condition(model, {name: value})
        log_prob = poutine.trace(conditioned).get_trace().log_prob_sum()
        weights[tuple(value.flatten().tolist())] = float(log_prob.exp())
    total = sum(weights.values())
    return {value: weight / total for value, weight in weights.items()}


@pytest.mark.parametrize("modified", [False, True])
@pytest.mark.parametrize(
    ("model", "values"),
    [
        (two_plates("none"), torch.arange(2.0)),
        (two_plates("rows"), torch.arange(2.0)),
        (two_plates("columns"), torch.arange(2.0)),
        (coupled_against_the_plate, torch.arange(2.0)),
        (pixels, torch.arange(2.0)),
        (one_hot, torch.eye(3)),
    ],
)
@torch.no_grad()
def test_chains_come_to_the_exact_law(model: Any, values: torch.Tensor, modified: bool) -> None:
    """Every configuration's frequency is within 5 standard errors after some steps."""
    kernel = DiscreteGibbs(model, modified=modified, compile="recorded")
    kernel.setup(0)
    num_chains = 8000
    state = kernel.init(kernel.target.start(num_chains))
    for _ in range(12):
        state, _ = kernel.step(state)
    drawn, counts = state["z"].reshape(num_chains, -1).unique(dim=0, return_counts=True)
    law = exact_law(model, "z", values)
    found = {tuple(d.tolist()): int(n) for d, n in zip(drawn, counts, strict=True)}
    assert set(found) <= set(law)
    for value, prob in law.items():
        error = (prob * (1 - prob) / num_chains) ** 0.5
        assert abs(found.get(value, 0) / num_chains - prob) < 5 * error + 1 / num_chains


@torch.no_grad()
def test_labels_of_a_plate_cost_one_evaluation() -> None:
    def many() -> None:
        with pyro.plate("n", 200):
            z = pyro.sample("z", dist.Categorical(torch.ones(3)))
            pyro.sample("x", dist.Normal(z.double(), 1.0), obs=torch.ones(200))

    kernel = DiscreteGibbs(many, compile=False)
    kernel.setup(0)
    state = kernel.init(kernel.target.start(2))
    with mock.patch.object(ModelTarget, "trace", side_effect=kernel.target.trace) as runs:
        state, _ = kernel.step(state)
    assert runs.call_count == 1
    exact = torch.softmax(-0.5 * (torch.arange(3.0) - 1) ** 2, 0)
    share = (state["z"] == 1).double().mean()
    assert abs(share - exact[1]) < 4 * (exact[1] * (1 - exact[1]) / 400).sqrt()


@torch.no_grad()
def test_the_modified_draw_changes_more_often() -> None:
    rates = []
    for modified in (False, True):
        kernel = DiscreteGibbs(labels, modified=modified, compile=False)
        kernel.setup(0)
        state = kernel.init(kernel.target.start(4000))
        state, _ = kernel.step(state)
        rates.append(float(kernel.step(state)[1]["change_rate"].mean()))
    assert rates[1] > 1.2 * rates[0]


@torch.no_grad()
def test_a_site_is_drawn_where_another_is_summed_out() -> None:
    kernel = DiscreteGibbs(summed_out_beside_it, sites=["z"], compile=False)
    kernel.setup(0)
    assert list(kernel.target.sites) == ["z"]
    state = kernel.init(kernel.target.start(4000))
    assert kernel.plates == (("z", ()),)
    for _ in range(20):
        state, _ = kernel.step(state)
    # The number of ones has the law of a mixture of two binomials.
    found = state["z"].sum(-1).long().bincount(minlength=4) / 4000
    exact = sum(
        w * dist.Binomial(3, torch.tensor(p)).log_prob(torch.arange(4.0)).exp()
        for w, p in ((0.6, 0.2), (0.4, 0.8))
    )
    assert ((found - exact).abs() < 4 * (exact * (1 - exact) / 4000).sqrt()).all()


@torch.no_grad()
def test_a_distribution_s_elements_are_drawn() -> None:
    probs = torch.tensor([0.2, 0.9])
    kernel = DiscreteGibbs(dist.Bernoulli(probs).to_event(1), compile=False)
    kernel.setup(0)
    state, _ = kernel.step(kernel.init(kernel.target.start(4000)))
    error = (probs * (1 - probs) / 4000).sqrt()
    assert ((state["x"].mean(0) - probs).abs() < 4 * error).all()


def test_an_impossible_value_is_never_drawn() -> None:
    def model() -> None:
        with pyro.plate("n", 2):
            z = pyro.sample("z", dist.Categorical(torch.ones(3)))
            pyro.factor("never", torch.where(z == 1, -torch.inf, 0.0))

    for modified in (False, True):
        kernel = DiscreteGibbs(model, modified=modified, compile=False)
        kernel.setup(0)
        state = kernel.init({"z": torch.zeros(1000, 2, dtype=torch.long)})
        for _ in range(3):
            state, _ = kernel.step(state)
            assert (state["z"] != 1).all()
        assert (state["z"] == 2).any()


@pytest.mark.slow
def test_compiled_draws_have_the_same_law() -> None:
    target = EXACT_TARGETS["labels"]
    kernel = DiscreteGibbs(target.program(), modified=True)
    assert p_value_of(kernel, target, 2) > FAILURE_RATE
    assert len(kernel.graphs) == 3


def counts() -> None:
    pyro.sample("n", dist.Poisson(torch.tensor(3.0)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiscreteGibbs(labels, scan="backwards"), "'random' or 'fixed', got 'backwards'"),
        (lambda: DiscreteGibbs(labels, sites=["k", "z", "q"]), "'q'"),
        (lambda: DiscreteGibbs(mixture), "cannot move the site 'loc', which is continuous"),
        (lambda: DiscreteGibbs(counts), r"'n' has no finite list .* Categorical over 0, \.\.\., K"),
        (lambda: Gibbs([(DiscreteGibbs(counts), "n")]), r"'n' has no finite list .* Bound it"),
    ],
)
def test_what_it_cannot_move_is_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().setup(0)
