# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Mixtures of one family as targets and as sites: PyTorch has no bijection to their support."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import biject_to

from pyro_deepgen.mcmc.distribution_target import DistributionTarget
from pyro_deepgen.mcmc.model_target import ModelTarget
from pyro_deepgen.mcmc.random_walk import RandomWalk
from pyro_deepgen.mcmc.run import run

pytestmark = pytest.mark.usefixtures("float64")


def mixture_of(components: Any, num: int = 2, batch: tuple[int, ...] = ()) -> Any:
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(*batch, num)), components)


def apart() -> Any:
    """Modes 40 standard deviations apart, with weights of 0.2 and 0.8."""
    weights = dist.Categorical(torch.tensor([0.2, 0.8]))
    return dist.MixtureSameFamily(weights, dist.Normal(torch.tensor([-20.0, 20.0]), 1.0))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (apart, ()),
        (lambda: mixture_of(dist.Gamma(torch.tensor([2.0, 5.0]), 1.0)), ()),
        (lambda: mixture_of(dist.Beta(torch.ones(3, 2) + 1, 2.0), batch=(3,)).to_event(1), (3,)),
        (
            lambda: mixture_of(dist.Dirichlet(torch.tensor([[2.0, 3.0, 4.0], [5.0, 3.0, 4.0]]))),
            (2,),
        ),
        (lambda: mixture_of(dist.Uniform(torch.zeros(2, 5), 3.0).to_event(1)), (5,)),
    ],
    ids=["normal", "gamma", "beta", "dirichlet", "uniform"],
)
def test_potential_and_starts(make: Any, shape: tuple[int, ...]) -> None:
    law = make()
    target = DistributionTarget(law)
    assert target.sites["x"].shape == shape
    values = target.start(7)
    x = target.constrain(values)["x"]
    assert x.shape == (7, *law.event_shape) and bool(law.support.check(x).all())
    transform = target.sites["x"].transform.inv
    jacobian = transform.log_abs_det_jacobian(values["x"], x).reshape(7, -1).sum(-1)
    torch.testing.assert_close(target.potential(values), -law.log_prob(x) - jacobian)


def test_starts_are_draws_lest_the_weights_of_the_modes_be_the_cube_s() -> None:
    chains = run(RandomWalk(apart(), compile=False), 1, 20, 1000, progress=False)
    share = (chains.samples["x"] > 0).double().mean()
    assert abs(share - 0.8) < 4 * (0.16 / 1000) ** 0.5


def test_discrete_ones_are_listed() -> None:
    law = mixture_of(dist.Binomial(3, torch.tensor([0.2, 0.9])))
    values = DistributionTarget(law).sites["x"].values
    assert values is not None and values.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_site_of_a_model() -> None:
    def model() -> None:
        pyro.sample("rate", mixture_of(dist.Gamma(torch.tensor([2.0, 9.0]), 1.0)))
        pyro.sample("y", mixture_of(dist.Normal(torch.tensor([0.0, 1.0]), 1.0)), obs=torch.ones(()))

    target = ModelTarget(model)
    assert bool((target.constrain(target.start(9))["rate"] > 0).all())
    assert bool(target.potential(target.start(9)).isfinite().all())


def test_components_with_supports_of_their_own_are_refused() -> None:
    law = mixture_of(dist.Uniform(0.0, torch.tensor([1.0, 2.0])))
    with pytest.raises(ValueError, match=r"MixtureSameFamily.*components have supports of their"):
        DistributionTarget(law)
    with pytest.raises(NotImplementedError, match="supports of their own"):
        biject_to(law.support)
