# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a user can get wrong gives an error that names it."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_deepgen.infer import ImportanceWeightedELBO, MeanFieldELBO

Program = Callable[..., Any]
X = [0.5, -1.0, 2.0, 0.1]


def latent(name: str = "z") -> Any:
    return pyro.sample(name, dist.Normal(torch.zeros(()), 1.0))


def observe(z: Any) -> None:
    pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(X))


def model() -> None:
    with pyro.plate("data", 4):
        observe(latent())


def guide() -> None:
    with pyro.plate("data", 4):
        latent()


def refuses(objective: Any, message: str, model: Program = model, guide: Program = guide) -> None:
    with pytest.raises(ValueError, match=message):
        objective.differentiable_loss(model, guide)


def test_arguments() -> None:
    with pytest.raises(ValueError, match="gradient to be one of"):
        ImportanceWeightedELBO(5, "reinforce")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 2 particles"):
        ImportanceWeightedELBO(1, "vimco")
    for make in (ImportanceWeightedELBO, MeanFieldELBO):
        with pytest.raises(ValueError, match="at least one particle"):
            make(0)
    with pytest.raises(ValueError, match="closed_form"):
        MeanFieldELBO(1, "dreg")  # type: ignore[arg-type]


@pytest.mark.parametrize("per_datum", [True, False])
@pytest.mark.parametrize("num_particles", [1, 3])
def test_a_global_latent_beside_a_minibatch(per_datum: bool, num_particles: int) -> None:
    def minibatch() -> None:
        z = latent()
        with pyro.plate("data", 8, subsample=torch.arange(4)):
            observe(z)

    objective = ImportanceWeightedELBO(num_particles, per_datum=per_datum)
    refuses(objective, "must not be subsampled", minibatch, lambda: latent())


def test_a_site_outside_the_plate() -> None:
    def outside() -> None:
        z = latent()
        with pyro.plate("data", 4):
            observe(z)

    message = r"plate 'data'.*sites \['guide z', 'z'\] lie outside.*per_datum=False"
    refuses(ImportanceWeightedELBO(3), message, outside, lambda: latent())
    ImportanceWeightedELBO(3, per_datum=False).loss(outside, lambda: latent())


def test_a_minibatch_inside_each_datum() -> None:
    def inner() -> None:
        with pyro.plate("data", 2, dim=-2):
            z = latent()
            with pyro.plate("pixels", 8, subsample=torch.arange(4), dim=-1):
                observe(z)

    def outer() -> None:
        with pyro.plate("data", 2, dim=-2):
            latent()

    refuses(ImportanceWeightedELBO(3), "plate 'pixels'.*must not be subsampled", inner, outer)


def test_a_loop_over_the_data() -> None:
    def looped(observed: bool) -> None:
        for i in pyro.plate("data", 4):
            z = latent(f"z{i}")
            if observed:
                pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=torch.tensor(X[i]))

    message = "sequential loop.*vectorised"
    refuses(ImportanceWeightedELBO(3), message, lambda: looped(True), lambda: looped(False))


def test_missing_and_extra_sites() -> None:
    def extra() -> None:
        with pyro.plate("data", 4):
            latent()
            latent("other")

    for objective in (ImportanceWeightedELBO(1, "dreg"), MeanFieldELBO(), MeanFieldELBO(1, "stl")):
        refuses(objective, r"\['z'\] are neither observed nor sampled", guide=lambda: None)
        refuses(objective, r"guide's sites \['other'\]", guide=extra)
    refuses(ImportanceWeightedELBO(3), "at least one pyro.sample site", lambda: 0, lambda: 0)


def test_undeclared_dimensions() -> None:
    def undeclared() -> None:
        pyro.sample("z", dist.Normal(torch.zeros(4), 1.0))

    refuses(ImportanceWeightedELBO(1), "'z' has batch_shape.*no plate", undeclared, undeclared)
    refuses(MeanFieldELBO(), "'z' has batch_shape.*no plate", undeclared, undeclared)


@pytest.mark.parametrize(
    "objective",
    [
        *(ImportanceWeightedELBO(3, g) for g in ("iwae", "stl", "dreg")),
        MeanFieldELBO(),
        MeanFieldELBO(2, "stl"),
    ],
)
def test_a_site_without_reparametrised_draws(objective: Any) -> None:
    def discrete() -> None:
        with pyro.plate("data", 4):
            observe(pyro.sample("z", dist.Bernoulli(torch.tensor(0.5))))

    def guess() -> None:
        with pyro.plate("data", 4):
            pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))

    refuses(objective, r"'z' \(Bernoulli\) is not reparametrised.*vimco", discrete, guess)
    assert torch.isfinite(objective.loss(discrete, guess))  # nothing is wrong with the value
    if isinstance(objective, ImportanceWeightedELBO):
        assert objective.log_weights(discrete, guess).shape == (3, 4)


@pytest.mark.parametrize("objective", [ImportanceWeightedELBO(3, "dreg"), MeanFieldELBO(1, "stl")])
def test_dropout_in_a_guide_that_is_scored_again(objective: Any) -> None:
    net = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5))

    def dropping() -> None:
        with pyro.plate("data", 4):
            mean = net(torch.tensor(X).unsqueeze(-1)).squeeze(-1)
            pyro.sample("z", dist.Normal(mean, 1.0))

    refuses(objective, "dropout", guide=dropping)
    net.eval()
    objective.differentiable_loss(model, dropping).backward()
    for trained in (ImportanceWeightedELBO(3, "iwae"), MeanFieldELBO()):
        net.train()
        trained.differentiable_loss(model, dropping).backward()


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
def test_a_parameter_that_cannot_be_stopped(gradient: str) -> None:
    leaf = torch.full((4,), 0.3, requires_grad=True)
    before = leaf * 2.0  # outside the guide

    def captured() -> None:
        with pyro.plate("data", 4):
            pyro.sample("z", dist.Normal(before, 1.0))

    refuses(ImportanceWeightedELBO(3, gradient), r"parameter of shape \(4,\)", guide=captured)


def test_a_guide_that_observes() -> None:
    def observing() -> None:
        with pyro.plate("data", 4):
            latent()
            pyro.sample("seen", dist.Normal(torch.zeros(()), 1.0), obs=torch.tensor(X))

    refuses(ImportanceWeightedELBO(3, "dreg"), r"guide observes \['seen'\]", guide=observing)


def test_a_transform_without_an_inverse() -> None:
    def planar() -> None:
        base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        with pyro.plate("data", 4):
            pyro.sample("z", dist.TransformedDistribution(base, [flow]))

    def plane() -> None:
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            observe(z.sum(-1))

    flow = dist.transforms.Planar(2)
    refuses(ImportanceWeightedELBO(3, "dreg"), "cannot score the value at site 'z'", plane, planar)
    ImportanceWeightedELBO(3, "iwae").differentiable_loss(plane, planar).backward()


def test_a_value_outside_the_support_names_its_site() -> None:
    def wrong() -> None:
        with pyro.plate("data", 4):
            latent()
            pyro.sample("x", dist.Bernoulli(torch.tensor(0.5)), obs=torch.tensor(X))

    refuses(ImportanceWeightedELBO(1), "site 'x'", wrong)
