# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Kernels in turn over one target."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC

from pyro_deepgen.mcmc.discrete_gibbs import DiscreteGibbs
from pyro_deepgen.mcmc.gibbs import Gibbs
from pyro_deepgen.mcmc.kernel import Kernel
from pyro_deepgen.mcmc.mala import MALA
from pyro_deepgen.mcmc.random_walk import RandomWalk
from pyro_deepgen.mcmc.run import run
from tests.mcmc.exact_targets import mixture, normal

pytestmark = pytest.mark.usefixtures("float64")


def clusters(x: torch.Tensor) -> None:
    with pyro.plate("k", 2):
        loc = pyro.sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 2.0))
    with pyro.plate("n", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5])))
        pyro.sample("x", dist.Normal(loc[..., z], 0.5), obs=x)


X = torch.tensor([-2.1, -1.9, -2.0, 1.4, 1.6], dtype=torch.float64)


def make(model: Any = clusters) -> Gibbs:
    return Gibbs(
        [
            (RandomWalk(model, compile=False), ["loc"]),
            (DiscreteGibbs(model, compile=False), "z"),
        ]
    )


@torch.no_grad()
def test_it_adapts_each_kernel_and_names_what_each_says() -> None:
    kernel = make()
    kernel.setup(200, X)
    state = kernel.warm_up(kernel.init(kernel.target.start(100)), 200)
    state, info = kernel.step(state)
    assert set(info) == {
        "RandomWalk.accept_prob",
        "RandomWalk.potential",
        "DiscreteGibbs.accept_prob",
        "DiscreteGibbs.change_rate",
        "accept_prob",
    }
    # Over all chains a cluster is at -2 in some and at 1.5 in others.
    scale = kernel.kernels[0].tuning["scale"]
    assert (scale > 1.0).all() and (scale < 2.5).all()
    expected = {"RandomWalk.scale", "RandomWalk.step_size"}
    assert expected <= set(kernel.tuning_dict())


@torch.no_grad()
def test_what_it_has_adapted_can_be_given_to_another() -> None:
    kernel, other = make(), make()
    kernel.setup(50, X)
    kernel.warm_up(kernel.init(kernel.target.start(10)), 50)
    other.setup(0, X)
    other.load_tuning(kernel.tuning_dict())
    for name, value in kernel.tuning_dict().items():
        assert torch.equal(other.tuning_dict()[name], value)


@torch.no_grad()
def test_new_data_of_the_same_shape_keep_the_graphs() -> None:
    kernel = make()
    for part in kernel.kernels:
        part.compile = "recorded"
    graphs, means = [], []
    for data in (X, X + 3):
        kernel.setup(0, data)
        state = kernel.init(kernel.target.start(500))
        for _ in range(60):
            state, _ = kernel.step(state)
        means.append(state["loc"].mean())
        graphs.append([id(g) for part in kernel.kernels for g, _ in part.graphs.values()])
    assert graphs[0] == graphs[1]
    assert means[1] - means[0] > 1.0


def test_two_of_a_kind_are_told_apart() -> None:
    kernel = Gibbs(
        [
            (RandomWalk(mixture, compile=False), "loc"),
            (RandomWalk(mixture, compile=False), "x"),
            (DiscreteGibbs(mixture, compile=False), "z"),
        ]
    )
    kernel.setup(0)
    _, info = kernel.step(kernel.init(kernel.target.start(5)))
    assert {"RandomWalk_1.accept_prob", "RandomWalk_2.accept_prob"} <= set(info)


def test_pyro_runs_it_as_one_chain() -> None:
    kernel = make()
    for part in kernel.kernels:
        part.compile = "recorded"
    mcmc = MCMC(kernel, num_samples=400, warmup_steps=200, disable_progbar=True)
    mcmc.run(X)
    assert all(len(part.graphs) <= 3 for part in kernel.kernels)
    samples = mcmc.get_samples()
    assert samples["loc"].shape == (400, 2) and samples["z"].shape == (400, 5)
    share = (samples["z"][:, :3] == samples["z"][:, :1]).double().mean()
    assert share > 0.95
    order = samples["loc"].sort(-1).values.mean(0)
    assert torch.allclose(order, torch.tensor([-1.95, 1.45]), atol=0.3)


def test_the_runner_runs_it() -> None:
    chains = run(make(), 60, 60, 40, args=(X,), progress=False)
    samples = chains.get_samples(group_by_chain=True)
    assert samples["loc"].shape == (40, 60, 2) and samples["z"].shape == (40, 60, 5)
    assert not samples["z"].is_floating_point()


def kernels_of(model: Any) -> tuple[Kernel, Kernel, Kernel]:
    return RandomWalk(model), DiscreteGibbs(model), MALA(model)


def wrong_lists() -> dict[str, Any]:
    walk, labels, mala = kernels_of(mixture)
    return {
        "no kernel of Gibbs moves the site 'x'": [(walk, "loc"), (labels, "z")],
        "no kernel of Gibbs moves the sites 'loc', 'x'": [(labels, "z")],
        "Gibbs lists the site 'loc' twice, for RandomWalk and for MALA": [
            (walk, ["loc", "x"]),
            (labels, "z"),
            (mala, "loc"),
        ],
        "the site 'y', which the target does not have": [(walk, ["loc", "x", "y"]), (labels, "z")],
        "RandomWalk cannot move the site 'z', which is discrete": [(walk, ["loc", "x", "z"])],
        "DiscreteGibbs cannot move the site 'x', which is continuous": [
            (walk, "loc"),
            (labels, ["z", "x"]),
        ],
        "kernels of one target": [(walk, ["loc", "x"]), (DiscreteGibbs(normal), "z")],
        "the same RandomWalk is in two pairs": [(walk, "loc"), (labels, "z"), (walk, "x")],
        "list of pairs": [],
        r"pairs \(kernel, sites\), got RandomWalk: write Gibbs": [walk, labels],
        r"pairs \(kernel, sites\), got tuple: write Gibbs": [(walk, "loc", "x"), (labels, "z")],
        "sites for RandomWalk, got none": [(walk, [])],
        "cannot contain a Gibbs": [(Gibbs([(walk, "loc")]), "loc"), (labels, "z"), (mala, "x")],
    }


@pytest.mark.parametrize("message", list(wrong_lists()))
def test_a_wrong_list_is_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gibbs(wrong_lists()[message]).setup(0)
