# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Learning, and what `log_prob` is while a model learns; models as parts of others."""

import copy
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from pyro_deepgen.autoregressive import (
    MADE,
    NADE,
    RNADE,
    AutoregressiveDistribution,
    GaussianOutput,
    LinearAutoregressive,
    NADEk,
    OrderlessNADE,
)
from pyro_deepgen.latent import VAE, vae
from tests.autoregressive.models import ALL, REAL, changed, several, shuffled

pytestmark = pytest.mark.usefixtures("float64")


class Observed(nn.Module):
    """A model that observes data under a distribution."""

    def __init__(self, d: AutoregressiveDistribution) -> None:
        super().__init__()
        self.d = d

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> None:
        pyro.module("d", self.d)
        d = self.d if context is None else self.d.condition(context)
        with pyro.plate("data", len(x)):
            pyro.sample("x", d, obs=x)


def empty(*args: Any) -> None:
    pass


@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("name", ALL)
def test_a_step_moves_every_parameter(name: str, context_dim: int) -> None:
    model = changed(ALL[name](5, order=shuffled(5), context_dim=context_dim), 0.3).train()
    context = torch.randn(40, context_dim) if context_dim else None
    data = (model.condition(context) if context_dim else model).sample(() if context_dim else (40,))
    before = copy.deepcopy(dict(model.named_parameters()))
    svi = SVI(Observed(model), empty, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    svi.step(data, context)
    assert before
    for parameter_name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[parameter_name]), parameter_name


@pytest.mark.parametrize("name", ["linear", "nade", "made", "neural_3", "nade_k", "orderless"])
def test_learning_finds_a_law_that_independent_variables_miss(name: str) -> None:
    # x_1 is fair, x_2 = x_1, x_3 = x_4 fair: 2 bits, where independent variables need 4.
    bits = torch.randint(2, (400, 2)).double()
    data = bits[:, [0, 0, 1, 1]]
    model = ALL[name](4).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        (-model.log_prob(data).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        nats = -model.log_prob(data).mean()
    assert float(nats) < 1.2 * 2 * torch.tensor(2.0).log()


# ---------------------------------------------------------------- log_prob in training mode


@pytest.mark.parametrize("name", ["nade_k", "orderless", "orderless_3"])
def test_the_training_score_has_no_bias(name: str) -> None:
    model = changed(ALL[name](3)).train()
    x = model.sample()
    scores = torch.cat([model.log_prob(x.expand(5000, 3)).detach() for _ in range(4)])
    exact = []
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]:
        model.order_indices.copy_(torch.tensor([order]))
        with torch.no_grad():
            exact.append(model.log_prob(x))
    mean = torch.stack(exact).mean()
    error = scores.std() / len(scores) ** 0.5
    assert abs(float(scores.mean() - mean)) < 4 * float(error)
    # Without the factor D / (D - k) it would be another number.
    assert abs(float(mean)) / 2 > 8 * float(error)


@pytest.mark.parametrize("name", several(4))
def test_evaluation_and_no_grad_give_the_exact_value(name: str) -> None:
    model = several(4)[name]()
    x = model.sample((9,))
    exact = model.eval().log_prob(x)
    model.train()
    with torch.no_grad():
        assert torch.equal(model.log_prob(x), exact)
    drawn = torch.stack([model.log_prob(x) for _ in range(20)]).detach()
    assert bool((drawn.std(0) > 1e-6).all())


def test_training_takes_each_mask() -> None:
    model = several(4)["made_masks"]().train()
    x = model.sample((1,))
    with torch.no_grad():
        each = {round(float(model.score(x, None, m)), 10) for m in range(3)}
    seen = {round(float(model.log_prob(x).detach()), 10) for _ in range(60)}
    assert len(each) == 3
    assert seen == each


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_gradients_of_means_are_rescaled_in_training_only(kind: str) -> None:
    model = changed(RNADE(2, 5, 3, kind), 0.4)
    x = torch.randn(8, 2)

    def gradients() -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        value = model.log_prob(x)
        value.sum().backward()
        return value.detach(), model.out_bias.grad.clone()

    value, plain = gradients()
    rescaled_value, rescaled = gradients() if model.train() else (value, plain)
    assert torch.equal(value, rescaled_value)
    torch.testing.assert_close(plain[:, :3], rescaled[:, :3])  # logits
    torch.testing.assert_close(plain[:, 6:], rescaled[:, 6:])  # log-scales
    # By hand: the derivative by each datum's means times its scales.
    parameters = model.eval().conditionals(x).detach()
    leaf = parameters.requires_grad_()
    model.output.log_prob(leaf, x).sum().backward()
    assert leaf.grad is not None
    expected = (leaf.grad[..., 3:6] * leaf.detach()[..., 6:].exp()).sum(0)
    torch.testing.assert_close(rescaled[:, 3:6], expected)
    assert not torch.allclose(plain[:, 3:6], expected)
    model.rescale_gradient = False
    model.train()
    torch.testing.assert_close(gradients()[1], plain)


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_those_of_the_value(name: str) -> None:
    model = changed(ALL[name](3, order=[1, 2, 0]), 0.3)
    x = model.sample((2,))
    names = [n for n, _ in model.named_parameters()]

    def score(*values: torch.Tensor) -> torch.Tensor:
        swapped = dict(zip(names, values, strict=True))
        call = Scored(model)
        given = {f"model.{n}": v for n, v in swapped.items()}
        return torch.as_tensor(torch.func.functional_call(call, given, (x,)))

    values = tuple(p.detach().clone().requires_grad_() for p in model.parameters())
    assert torch.autograd.gradcheck(score, values)


class Scored(nn.Module):
    """A distribution's `log_prob` as a forward pass."""

    def __init__(self, model: AutoregressiveDistribution) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.log_prob(x)


# ---------------------------------------------------------------- composition


@pytest.mark.parametrize("name", ["linear", "nade", "nade_k", "orderless", "made", "neural"])
def test_as_the_likelihood_of_a_vae(name: str) -> None:
    pyro.settings.set(module_local_params=True)
    pair = vae(6, 2, (8,), likelihood=ALL[name](6, context_dim=5))
    x = torch.randint(2, (9, 6)).double()
    Trace_ELBO()(pair.model, pair.guide)(x).backward()
    for parameter_name, parameter in pair.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), parameter_name
    assert pair.sample(4).shape == (4, 6)
    by_hand = VAE(nn.Linear(6, 4), nn.Linear(2, 5), 2, likelihood=NADE(6, 3, context_dim=5))
    assert by_hand.data_shape == (6,)
    given = by_hand.decode(torch.zeros(3, 2))
    assert given.batch_shape == (3,)


@pytest.mark.parametrize("name", ["linear_real", "made_real", "rnade", "orderless_real"])
def test_as_the_prior_of_a_vae(name: str) -> None:
    pyro.settings.set(module_local_params=True)
    prior = REAL[name](2)
    pair = vae(6, 2, (8,), prior=prior)
    Trace_ELBO()(pair.model, pair.guide)(torch.randint(2, (9, 6)).double()).backward()
    for parameter_name, parameter in pair.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), parameter_name
    assert pair.sample(4).shape == (4, 6)


def test_a_binary_prior_and_posterior_of_a_vae() -> None:
    pyro.settings.set(module_local_params=True)
    posterior = MADE(3, (8,), context_dim=4)
    pair = VAE(nn.Linear(6, 4), nn.Linear(3, 6), 3, prior=NADE(3, 4), posterior=posterior)
    Trace_ELBO()(pair.model, pair.guide)(torch.randint(2, (9, 6)).double()).backward()
    for parameter_name, parameter in pair.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), parameter_name


def test_as_a_guide_that_finds_a_correlated_posterior() -> None:
    """Reparametrised draws of a linear Gaussian guide reach the posterior in closed form."""
    pyro.settings.set(module_local_params=True)
    precision = torch.tensor([[2.0, 1.2], [1.2, 1.5]])
    target = dist.MultivariateNormal(torch.tensor([0.5, -1.0]), precision_matrix=precision)
    guide_family = LinearAutoregressive(2, GaussianOutput())

    class Guide(pyro.nn.PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.q = guide_family

        def forward(self) -> torch.Tensor:
            return pyro.sample("z", self.q)

    def model() -> None:
        pyro.sample("z", target)

    loss = Trace_ELBO(num_particles=20, vectorize_particles=True)(model, Guide())
    optimizer = torch.optim.Adam(guide_family.parameters(), lr=0.03)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 400)
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    torch.testing.assert_close(guide_family.mean, target.mean, atol=0.1, rtol=0)
    cov = target.covariance_matrix
    torch.testing.assert_close(guide_family.covariance_matrix, cov, atol=0.15, rtol=0)


def test_inside_plates_and_enumeration() -> None:
    nade = changed(NADE(3, 4, context_dim=1))
    context = torch.randn(2, 5, 1)
    with pyro.plate("outer", 2, dim=-2), pyro.plate("inner", 5, dim=-1):
        assert pyro.sample("x", nade.condition(context)).shape == (2, 5, 3)

    given = nade.condition(context)
    assert given.enumerate_support().shape == (8, 2, 5, 3)
    assert given.enumerate_support(expand=False).shape == (8, 1, 1, 3)
    total = given.log_prob(given.enumerate_support()).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(2, 5))


@pytest.mark.parametrize("name", [*ALL, *several(4)])
def test_copies_and_saved_states(name: str) -> None:
    def make() -> Any:
        if name in ALL and name not in several(4):
            return changed(ALL[name](4, order=shuffled(4)), 0.4)
        return several(4)[name]()

    model, other = make(), make()
    x = model.sample((6,))
    exact = model.log_prob(x)
    assert torch.equal(copy.deepcopy(model).log_prob(x), exact)
    assert not torch.allclose(other.log_prob(x), exact)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.log_prob(x), exact)
    torch.manual_seed(0)
    draws = model.sample((6,))
    torch.manual_seed(0)
    assert torch.equal(other.sample((6,)), draws)


@pytest.mark.parametrize("make", [NADE, RNADE, OrderlessNADE, NADEk])
def test_a_saved_state_has_the_order(make: Any) -> None:
    first, second = make(4, 3, order=[3, 1, 0, 2]).eval(), make(4, 3).eval()
    second.load_state_dict(first.state_dict())
    assert second.order.tolist() == [3, 1, 0, 2]
    x = first.sample((5,))
    assert torch.equal(first.log_prob(x), second.log_prob(x))
