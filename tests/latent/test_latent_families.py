# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a user gives as likelihood, posterior and prior: is it trained, and does it fit?"""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms
from torch import nn

from pyro_deepgen.distributions import DistributionModule
from pyro_deepgen.latent import (
    VAE,
    ConditionalVAE,
    GaussianLikelihood,
    HierarchicalVAE,
    conditional_vae,
    hierarchical_vae,
    semi_supervised_vae,
    vae,
)
from pyro_deepgen.nn import MLP
from tests.tables import conditional_flow_vae

SCALE = nn.Parameter(torch.zeros(()))


def make(**families: Any) -> VAE:
    return VAE(nn.Linear(6, 4), nn.Linear(2, 6), 2, **families)


def normal(context: torch.Tensor) -> Any:
    loc, log_scale = context.chunk(2, -1)
    return dist.Normal(loc, log_scale.exp()).to_event(1)


# ---------------------------------------------------------------- parameters nobody holds


class PlainClass:
    """A family with a network, and not a module."""

    def __init__(self) -> None:
        self.net = nn.Linear(4, 4)

    def condition(self, context: torch.Tensor) -> Any:
        return normal(self.net(context))


class HalfAModule(nn.Module):
    """A module that holds one parameter and uses another, hidden in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.hidden = nn.Parameter(torch.ones(())), [nn.Parameter(torch.ones(3))]

    def condition(self, context: torch.Tensor) -> Any:
        return dist.Normal(context * self.own, self.hidden[0].exp().sum())


class Coins(DistributionModule):
    """A likelihood that holds parameters."""

    def __init__(self, logits: torch.Tensor, shift: nn.Parameter) -> None:
        super().__init__(logits.shape[-1:], logits.shape[:-1])
        self.logits, self.shift = logits, shift

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        coins = dist.Bernoulli(logits=self.logits + self.shift).to_event(1)
        log_prob: torch.Tensor = coins.log_prob(value)
        return log_prob

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        raise AssertionError("a draw may be slow, and is not needed here")


LOST: dict[str, tuple[Callable[[], VAE], str]] = {
    "function": (lambda: make(likelihood=lambda c: dist.Normal(c, SCALE.exp())), r"\[\(\)\]"),
    "discrete_function": (
        lambda: make(likelihood=lambda c: dist.Bernoulli(logits=c + SCALE)),
        "the decoder's output",
    ),
    "plain_class": (lambda: make(posterior=PlainClass()), r"PlainClass.*encoder's.*\(4, 4\)"),
    "half_a_module": (lambda: make(likelihood=HalfAModule()), r"HalfAModule.*shapes \[\(3,\)\]"),
    "distribution_module": (lambda: make(likelihood=lambda c: Coins(c, SCALE)), r"\[\(\)\]"),
    "distribution_of_a_leaf": (
        lambda: make(likelihood=lambda c: Coins(c + SCALE, nn.Parameter(torch.ones(2)).detach())),
        r"\[\(\)\]",
    ),
}


@pytest.mark.parametrize(("make_pair", "message"), LOST.values(), ids=LOST)
def test_parameters_that_no_optimiser_would_find(
    make_pair: Callable[[], VAE], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make_pair()
    assert "method condition(context)" in str(caught.value)


def test_parameters_that_an_optimiser_finds() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(()))

        def condition(self, context: torch.Tensor) -> Any:
            return dist.Normal(context, self.scale.exp())

    class Called(Scaled):
        def __call__(self, context: torch.Tensor) -> Any:
            return self.condition(context)

    for family in (Scaled(), Called(), GaussianLikelihood("shared")):
        assert set(family.parameters()) < set(make(likelihood=family).parameters())
    decoder = MLP(2, (), 6)
    decoder.scale = nn.Parameter(torch.zeros(()))
    by_decoder = VAE(
        nn.Linear(6, 4), decoder, 2, likelihood=lambda c: dist.Normal(c, decoder.scale.exp())
    )
    assert any(p is decoder.scale for p in by_decoder.parameters())
    make(likelihood=lambda c: dist.Normal(c, SCALE.detach().exp()))
    frozen = nn.Linear(4, 4).requires_grad_(False)
    make(posterior=lambda c: normal(frozen(c)))


def test_making_a_pair_moves_no_random_stream_and_no_statistics() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def condition(self, context: torch.Tensor) -> Any:
            return normal(self.norm(context))

    networks, family = (nn.Linear(6, 4), nn.Linear(2, 6)), Normed()
    before = torch.get_rng_state()
    VAE(*networks, 2, posterior=family)
    assert torch.equal(torch.get_rng_state(), before)
    assert int(family.norm.num_batches_tracked) == 0
    assert family.training and family.norm.training


# ---------------------------------------------------------------- Pyro's conditional flows


def test_a_conditional_flow_is_a_part_of_the_pair(device: torch.device) -> None:
    pair, x = conditional_flow_vae(), torch.ones(3, 3)
    names = {n for n, _ in pair.posterior.named_parameters()}
    assert names and all(n.startswith("transforms__0") for n in names)
    q = pair.encode(x.expand(2, 3, 3))
    assert (q.batch_shape, q.event_shape) == ((2, 3), (2,))
    z = q.sample()
    expected = q.log_prob(z)
    moved = pair.encode(torch.zeros(2, 3, 3)).log_prob(z)
    assert not torch.allclose(moved, expected), "the posterior must depend on the data"
    fresh = conditional_flow_vae()
    fresh.load_state_dict(pair.state_dict())
    for other in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair)), fresh):
        torch.testing.assert_close(other.encode(x.expand(2, 3, 3)).log_prob(z), expected)
    there = pair.double().to(device).encode(x.double().to(device))
    assert there.sample().dtype == torch.float64
    assert there.sample().device.type == device.type


def test_a_conditional_flow_leaves_nothing_stale() -> None:
    pair, x = conditional_flow_vae(), torch.ones(4, 3)
    z = pair.encode(x).rsample().detach()
    before = pair.encode(x).log_prob(z)
    with torch.no_grad():
        for p in pair.posterior.parameters():
            p.add_(0.3 * torch.randn_like(p))
    after = pair.encode(x).log_prob(z)
    torch.testing.assert_close(after, pair.encode(x).log_prob(z.clone()))
    assert not torch.allclose(after, before)


def test_a_flow_from_an_unexpanded_base_is_expanded() -> None:
    class Flow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.warp = transforms.conditional_planar(2, 4, [8])
            self.register_buffer("zeros", torch.zeros(2))

        def condition(self, context: torch.Tensor) -> Any:
            base = dist.Normal(self.zeros, 1.0).to_event(1)
            return dist.TransformedDistribution(base, [self.warp.condition(context)])

    pair = make(posterior=Flow())
    for batch in [(), (3,), (2, 3)]:
        assert pair.encode(torch.zeros(*batch, 6)).rsample().shape == (*batch, 2)


# ---------------------------------------------------------------- priors and posteriors


def over(cls: Any, *numbers: float) -> Any:
    return cls(*(torch.full((2,), number) for number in numbers)).to_event(1)


def log_normal(context: torch.Tensor) -> Any:
    loc, log_scale = context.chunk(2, -1)
    return dist.LogNormal(loc, log_scale.exp())


@pytest.mark.parametrize(
    ("prior", "posterior"),
    [
        (over(dist.Gamma, 2.0, 1.0), normal),
        (over(dist.Bernoulli, 0.5), normal),
        (over(dist.Normal, 0.0, 1.0), lambda c: dist.Bernoulli(logits=c[..., :2])),
        (over(dist.Poisson, 1.0), normal),
        (over(dist.Beta, 1.0, 1.0), log_normal),
    ],
)
def test_a_posterior_outside_the_support_of_the_prior(prior: Any, posterior: Any) -> None:
    message = r"values that the prior can have, .*but it is over .*give posterior=\.\.\."
    with pytest.raises(ValueError, match=message):
        make(prior=prior, posterior=posterior)


@pytest.mark.parametrize(
    ("prior", "posterior"),
    [
        (over(dist.Gamma, 2.0, 1.0), log_normal),
        (over(dist.Bernoulli, 0.5), lambda c: dist.Bernoulli(logits=c[..., :2])),
        (over(dist.Laplace, 0.0, 1.0), normal),
        (over(dist.Normal, 0.0, 1.0), log_normal),  # a part of the line is in the line
        (dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), normal),
    ],
)
def test_a_posterior_in_the_support_of_the_prior(prior: Any, posterior: Any) -> None:
    pair = make(prior=prior, posterior=posterior)
    pair.model(torch.zeros(3, 6))


def test_every_family_compares_the_supports() -> None:
    gamma = over(dist.Gamma, 2.0, 1.0)
    y = {"context_dim": 3}
    makers: list[Callable[[], Any]] = [
        lambda: vae(6, 2, (4,), prior=gamma),
        lambda: conditional_vae(6, 2, 3, (4,), prior=gamma),
        lambda: ConditionalVAE(MLP(6, (), 4, **y), MLP(2, (), 6, **y), 2, 3, prior=gamma),
        lambda: semi_supervised_vae(6, 2, 3, (4,), prior=gamma),
        lambda: hierarchical_vae(6, (3, 2), ((), ()), prior=gamma),
    ]
    for maker in makers:
        with pytest.raises(ValueError, match="values that the prior can have"):
            maker()
    # Only the top layer has the prior.
    layers = [nn.Linear(6, 6), nn.Linear(3, 4)], [nn.Linear(3, 6), nn.Linear(2, 6)]
    HierarchicalVAE(*layers, (3, 2), prior=over(dist.Normal, 0.0, 1.0))


def test_conditional_vae_takes_a_prior() -> None:
    prior = over(dist.Normal, 5.0, 0.01)
    pair = conditional_vae(6, 2, 3, (4,), prior=prior)
    y = torch.eye(3)
    torch.testing.assert_close(pair.prior_given(y).mean, torch.full((3, 2), 5.0))
