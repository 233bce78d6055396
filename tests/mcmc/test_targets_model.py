# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The potential of a Pyro model for all chains, against Pyro's for one."""

from collections.abc import Hashable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.mcmc.util import initialize_model

from pyro_deepgen.mcmc import log_einsum
from pyro_deepgen.mcmc.compiled import compiled
from pyro_deepgen.mcmc.model_target import ModelTarget
from pyro_deepgen.mcmc.state import Values
from pyro_deepgen.tracing import Graph

from .models import MODELS, Regression, data, mixture

CHAINS = 7
pytestmark = pytest.mark.usefixtures("float64")


class Evaluation:
    """Potential and gradient as a kernel asks for them."""

    def __init__(self, target: ModelTarget, compile: bool | str) -> None:
        self.target, self.compile = target, compile
        self.graphs: dict[Hashable, tuple[Graph, Any]] = {}

    @compiled
    def both(self, values: Values) -> Any:
        return self.target.potential_and_gradient(values, list(self.target.sites))


def by_pyro(model: Any, y: torch.Tensor, values: Values) -> tuple[torch.Tensor, torch.Tensor]:
    """Potential (C,) and gradient (C, D), one chain after the other."""
    with pyro.validation_enabled(False):
        _, potential_fn, _, _ = initialize_model(model, (y,))
        potentials, gradients = [], []
        for i in range(CHAINS):
            one = {name: v[i].clone().requires_grad_() for name, v in values.items()}
            potential = potential_fn(one)
            parts = torch.autograd.grad(potential, list(one.values()))
            potentials.append(potential.detach())
            gradients.append(torch.cat([p.flatten() for p in parts]))
    return torch.stack(potentials), torch.stack(gradients)


def all_models() -> dict[str, Any]:
    return {**MODELS, "module": Regression}


@pytest.mark.parametrize("compile", [False, "recorded"])
@pytest.mark.parametrize("name", all_models())
def test_potential_and_gradient_are_those_of_pyro(
    name: str, compile: bool | str, device: torch.device
) -> None:
    if device.type != "cpu":
        pytest.skip("the models hold tensors on the CPU")
    y = data()
    model = Regression() if name == "module" else MODELS[name]
    target = ModelTarget(model, (y,))
    values = target.start(CHAINS)
    potential, gradient = Evaluation(target, compile).both(values)
    expected = by_pyro(model, y, values)
    assert torch.allclose(potential, expected[0], rtol=1e-10, atol=1e-10)
    assert torch.allclose(gradient, expected[1], rtol=1e-9, atol=1e-10)
    assert gradient.isfinite().all()


def test_compiled_potential_is_the_same() -> None:
    target = ModelTarget(mixture, (data(),))
    values = target.start(CHAINS)
    for got, expected in zip(
        Evaluation(target, True).both(values), Evaluation(target, False).both(values), strict=True
    ):
        assert torch.allclose(got, expected, rtol=1e-10, atol=1e-10)


def test_a_missing_jacobian_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    y = data()
    target = ModelTarget(MODELS["schools"], (y,))
    values = target.start(CHAINS)
    inverse = target.sites["tau"].transform.inv
    monkeypatch.setattr(type(inverse), "log_abs_det_jacobian", lambda self, x, y: 0 * x)
    potential = target.potential(values)
    monkeypatch.undo()
    assert not torch.allclose(potential, by_pyro(MODELS["schools"], y, values)[0], rtol=1e-3)


def test_sites_below_an_enumerated_one_keep_their_shape() -> None:
    """The density of a latent site given an enumerated one is summed with it."""

    def model() -> None:
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(4 * z, 1.0))

    target = ModelTarget(model)
    assert target.sites["x"].shape == ()
    x = torch.linspace(-3.0, 7.0, 11)
    mixed = dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([0.7, 0.3])), dist.Normal(torch.tensor([0.0, 4.0]), 1.0)
    )
    assert torch.allclose(target.potential({"x": x}), -mixed.log_prob(x), rtol=1e-12)


def test_kept_sites_are_not_summed_out() -> None:
    """Summing the kept sites' densities by hand gives the potential with them summed out."""
    y = data(3)
    summed, kept = ModelTarget(mixture, (y,)), ModelTarget(mixture, (y,), keep=("z",))
    site = kept.sites["z"]
    assert (site.shape, site.plate_dims, site.dtype) == ((3,), 1, torch.int64)
    assert site.values is not None and site.values.tolist() == [0, 1, 2]
    assert kept.start(5)["z"].shape == (5, 3)
    values = summed.start(1)
    z = torch.cartesian_prod(*[torch.arange(3)] * 3)
    tiled = {name: v.expand(len(z), *v.shape[1:]) for name, v in values.items()}
    log_total = (-kept.potential({**tiled, "z": z})).logsumexp(0)
    assert torch.allclose(-log_total, summed.potential(values)[0], rtol=1e-12)


def test_partially_observed_sites_have_proper_posteriors() -> None:
    """What is observed has no free copy, and what is not follows the prior."""
    y, mask = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([True, False, True])

    def model() -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3):
            pyro.sample("y", dist.Normal(loc, 1.0), obs=y, obs_mask=mask)

    target = ModelTarget(model)
    values = target.start(CHAINS)
    loc, free = values["loc"], values["y_unobserved"]
    expected = dist.Normal(0.0, 1.0).log_prob(loc)
    expected = expected + dist.Normal(loc[:, None], 1.0).log_prob(y[mask]).sum(-1)
    expected = expected + dist.Normal(loc[:, None], 1.0).log_prob(free).sum(-1)
    assert torch.allclose(target.potential(values), -expected, rtol=1e-12)


def test_sums_of_terms_that_peak_apart_do_not_underflow() -> None:
    a = torch.tensor([0.0, -2000.0], requires_grad=True)
    b = torch.tensor([-2000.0, 0.0])
    total = log_einsum.einsum("i,i->", a, b)
    assert torch.allclose(total, torch.tensor(2.0).log() - 2000)
    (gradient,) = torch.autograd.grad(total, a)
    assert gradient.tolist() == [0.5, 0.5]


def test_a_sum_of_nothing_has_no_gradient() -> None:
    a = torch.full((3,), -torch.inf, requires_grad=True)
    total = log_einsum.einsum("i->", a)
    (gradient,) = torch.autograd.grad(total, a)
    assert total.item() == -torch.inf and gradient.tolist() == [0.0, 0.0, 0.0]


def test_a_matrix_that_is_not_positive_definite_concerns_its_chain_only() -> None:
    def model() -> None:
        r = pyro.sample("r", dist.Normal(0.0, 1.0))
        covariance = torch.eye(2) + r * torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(2), covariance), obs=torch.ones(2))

    potential = ModelTarget(model).potential({"r": torch.tensor([0.5, 2.0, -0.5])})
    assert potential.isfinite().tolist() == [True, False, True]
    assert potential[1] == torch.inf


def test_plain_einsum_agrees_on_random_tensors() -> None:
    tensors = [torch.rand(2, 3), torch.rand(3, 4, 2), torch.rand(4)]
    got = log_einsum.einsum("ab,bca,c->ca", *[t.log() for t in tensors])
    assert torch.allclose(got.exp(), torch.einsum("ab,bca,c->ca", *tensors))
    x, y = torch.rand(2, 3, 4), torch.rand(4, 2, 5)
    got = log_einsum.tensordot(x.log(), y.log(), axes=((0, 2), (1, 0)))
    assert torch.allclose(got.exp(), torch.tensordot(x, y, dims=([0, 2], [1, 0])))
