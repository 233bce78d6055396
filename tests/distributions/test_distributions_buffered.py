# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Pyro distributions of every make as modules: nothing is left behind, nothing grows stale."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms
from pyro.infer import Trace_ELBO
from torch import nn
from torch.distributions import constraints

from pyro_deepgen.distributions import BufferedDistribution, DistributionModule
from pyro_deepgen.latent import vae


def mixture() -> Any:
    parts = dist.Normal(torch.zeros(3, 2), torch.ones(3, 2)).to_event(1)
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), parts)


def warped() -> Any:
    base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    lower = transforms.LowerCholeskyAffine(torch.ones(2), torch.tensor([[1.0, 0], [0.5, 2.0]]))
    inverse = transforms.AffineTransform(torch.ones(2), torch.ones(2) * 3, event_dim=1).inv
    both = transforms.ComposeTransform([lower, inverse])
    return dist.TransformedDistribution(base, [both, transforms.ExpTransform()])


def hidden_markov() -> Any:
    two = dist.MultivariateNormal(torch.zeros(2), torch.eye(2))
    return dist.GaussianHMM(two, torch.eye(2), two, torch.eye(2), two, duration=3)


def cached() -> Any:
    d = dist.MultivariateNormal(torch.zeros(2), covariance_matrix=torch.eye(2) * 2)
    assert d.precision_matrix is not None
    return d


MAKERS: dict[str, Callable[[], Any]] = {
    "mixture": mixture,
    "warped": warped,
    "hidden_markov": hidden_markov,
    "cached": cached,
    "log_normal": lambda: dist.LogNormal(torch.zeros(2), torch.ones(2)).to_event(1),
    "expanded": lambda: dist.Normal(torch.tensor(0.0), torch.tensor(1.0)).expand([3]).to_event(1),
    "masked": lambda: dist.Normal(torch.zeros(2), torch.ones(2)).mask(torch.tensor([True, False])),
    "masked_mixture": lambda: dist.MaskedMixture(
        torch.tensor([True, False]),
        dist.Normal(torch.zeros(2), torch.ones(2)),
        dist.Normal(torch.ones(2), torch.ones(2)),
    ),
    "student": lambda: dist.StudentT(torch.full((2,), 3.0)).to_event(1),
    "low_rank": lambda: dist.LowRankMultivariateNormal(
        torch.zeros(2), torch.ones(2, 1), torch.ones(2)
    ),
    "one_hot": lambda: dist.OneHotCategorical(torch.ones(3)),
    "beta": lambda: dist.Beta(torch.ones(2), torch.ones(2)).to_event(1),
    "gamma_poisson": lambda: dist.GammaPoisson(torch.ones(2), torch.ones(2)).to_event(1),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_every_make_of_distribution(make: Callable[[], Any], device: torch.device) -> None:
    plain = make()
    x = plain.sample((4,))
    expected = plain.log_prob(x)
    held = BufferedDistribution(make())
    torch.testing.assert_close(held.log_prob(x), expected)
    for other in (copy.deepcopy(held), pickle.loads(pickle.dumps(held))):
        torch.testing.assert_close(other.log_prob(x), expected)
    wide = held.expand((2, *held.batch_shape)).log_prob(x.unsqueeze(1))
    torch.testing.assert_close(wide, expected.unsqueeze(1).expand_as(wide))
    held = held.double().to(device)
    assert held.sample().dtype == torch.float64
    assert all(t.device.type == device.type for t in held.state_dict().values())
    after = held.log_prob(x.double().to(device))
    assert after.dtype == torch.float64
    torch.testing.assert_close(after.float().cpu(), expected, atol=1e-4, rtol=1e-5)


def test_parameters_stay_parameters_and_train() -> None:
    loc, scale = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(2))
    held = BufferedDistribution(dist.Normal(loc, scale).to_event(1))
    assert set(held.parameters()) == {loc, scale}
    optimizer = torch.optim.SGD(held.parameters(), lr=0.1)
    x = torch.tensor([1.0, 2.0])
    before = held.log_prob(x)
    (-before).backward()
    optimizer.step()
    assert bool(held.log_prob(x) > before)


def test_a_transform_module_is_a_sub_module_that_leaves_nothing_stale() -> None:
    flow = transforms.Spline(2, count_bins=4)
    base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    held = BufferedDistribution(dist.TransformedDistribution(base, [flow]))
    assert set(held.parameters()) == set(flow.parameters())
    x = held.sample()
    before = held.log_prob(x)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn_like(parameter))
    after = held.log_prob(x)  # the same object: what the transform remembers of it is stale
    torch.testing.assert_close(after, held.log_prob(x.clone()))
    assert not torch.allclose(after, before)
    # The plain distribution remembers, so the check above can fail.
    plain = held.distribution
    plain.log_prob(x)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert not torch.allclose(plain.log_prob(x), held.log_prob(x))
    copied = copy.deepcopy(held)  # of a transform that has just been used with gradients
    torch.testing.assert_close(copied.log_prob(x), held.log_prob(x))
    assert set(copied.parameters()).isdisjoint(held.parameters())


def test_lazily_computed_values_do_not_outlive_the_parameter() -> None:
    probs = nn.Parameter(torch.tensor([0.3, 0.6]))
    plain = dist.Bernoulli(probs)
    assert plain.logits is not None  # computed once, and remembered by the distribution
    held = BufferedDistribution(plain.to_event(1))
    assert list(held.parameters()) == [probs]
    with torch.no_grad():
        probs.fill_(0.9)
    x = torch.ones(2)
    torch.testing.assert_close(held.log_prob(x), 2 * torch.tensor(0.9).log())
    fresh = BufferedDistribution(dist.Bernoulli(torch.tensor([0.3, 0.6])).to_event(1))
    assert held.state_dict().keys() == fresh.state_dict().keys()


def test_a_tensor_that_no_optimiser_would_find_is_refused() -> None:
    loc = torch.zeros(2, requires_grad=True)
    with pytest.raises(ValueError, match=r"base_dist.loc requires a gradient.*nn.Parameter"):
        BufferedDistribution(dist.Normal(loc, torch.ones(2)).to_event(1))
    with pytest.raises(ValueError, match=r"scale requires a gradient"):
        BufferedDistribution(dist.Normal(torch.zeros(2), nn.Parameter(torch.zeros(2)).exp()))


class TrainedMixture(DistributionModule):
    """What the error advises: the distribution is made anew at each call."""

    has_rsample = False
    support = constraints.independent(constraints.real, 1)

    def __init__(self) -> None:
        super().__init__((2,))
        self.logits, self.loc = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.randn(3, 2))

    def _mixture(self) -> Any:
        components = dist.Normal(self.loc, 1.0).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        log_prob: torch.Tensor = self._mixture().log_prob(self.broadcast(value))
        return log_prob

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        draws: torch.Tensor = self._mixture().sample(torch.Size(sample_shape) + self.batch_shape)
        return draws


@pytest.mark.parametrize(
    "make",
    [
        lambda: dist.MixtureSameFamily(
            dist.Categorical(logits=nn.Parameter(torch.zeros(3))), dist.Normal(torch.zeros(3), 1.0)
        ),
        lambda: dist.MultivariateNormal(torch.zeros(2), scale_tril=nn.Parameter(torch.eye(2))),
    ],
)
def test_what_a_constructor_computes_from_a_parameter(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"subclass of DistributionModule.*anew in each call"):
        BufferedDistribution(make())


def test_the_advised_module_trains_as_a_prior() -> None:
    prior = TrainedMixture()
    assert prior.expand((4,)).sample().shape == (4, 2)
    torch.testing.assert_close(
        prior.expand((4,)).log_prob(torch.ones(2)), prior.log_prob(torch.ones(2)).expand(4)
    )
    pyro.settings.set(module_local_params=True)
    pair = vae(3, 2, (4,), prior=prior)
    Trace_ELBO()(pair.model, pair.guide)(torch.ones(5, 3)).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in prior.parameters())


def test_a_module_is_refused() -> None:
    held = BufferedDistribution(dist.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="use it as it is"):
        BufferedDistribution(held)


def test_the_base_class_names_shapes_and_refuses_wrong_ones() -> None:
    class Constant(DistributionModule):
        def log_prob(self, value: torch.Tensor) -> torch.Tensor:
            return self.broadcast(value).sum(-1)

    d = Constant((3,), (2, 1))
    assert d.broadcast(torch.zeros(3)).shape == (2, 1, 3)
    assert d.expand((5, 2, 4)).broadcast(torch.zeros(4, 3)).shape == (5, 2, 4, 3)
    with pytest.raises(ValueError, match=r"last dimensions are \(3,\), got shape \(2,\)"):
        d.log_prob(torch.zeros(2))
    with pytest.raises(ValueError, match=r"to which \(2, 1\) broadcasts"):
        d.expand((3, 1))
    with pytest.raises(ValueError, match=r"to which \(2, 1\) broadcasts"):
        d.expand((2,))
    assert "event_shape=(3,), batch_shape=(2, 1)" in repr(d)
