# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Data that cannot come from their distribution are told when a kernel is bound to a model."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_deepgen.mcmc.hmc import HMC
from pyro_deepgen.mcmc.model_target import ModelTarget
from tests.mcmc.models import MODELS, data

GOOD, NAN = torch.tensor([0.5, 1.5, 2.0]), torch.nan


def observed(law: Callable[[torch.Tensor], Any], y: torch.Tensor) -> None:
    """One positive latent site, and data in a plate."""
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", law(scale), obs=y)


def masked(y: torch.Tensor) -> None:
    with poutine.mask(mask=y > 0):
        observed(dist.Exponential, y)


def partly(y: torch.Tensor) -> None:
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Exponential(scale), obs=y, obs_mask=~y.isnan())


def counted(y: torch.Tensor) -> None:
    """The number of trials is latent: each number has another support."""
    with pyro.plate("data", len(y)):
        number = pyro.sample("number", dist.Poisson(1.0))
        pyro.sample("y", dist.Binomial(number, 0.5), obs=y)


CASES: list[tuple[Any, torch.Tensor, str | None]] = [
    (partial(observed, dist.Exponential), GOOD, None),
    (partial(observed, dist.Exponential), -GOOD, "'y'.*Exponential.* in 3 of 3 .* is -0.5"),
    (
        partial(observed, lambda s: dist.Normal(0.0, s)),
        torch.tensor([0.0, NAN]),
        "1 of 2 .* is nan",
    ),
    (partial(observed, lambda s: dist.Normal(0.0, s)), torch.tensor([0.0, -9.0]), None),
    (partial(observed, dist.Poisson), GOOD, "Poisson.*2 of 3 .* is 0.5"),
    (partial(observed, lambda s: dist.Bernoulli(s / (1 + s))), GOOD, "Bernoulli.*3 of 3"),
    (
        partial(observed, lambda s: dist.Bernoulli(s / (1 + s), validate_args=False)),
        GOOD,
        None,
    ),
    (
        partial(observed, lambda s: dist.Bernoulli(s / (1 + s), validate_args=False).mask(True)),
        GOOD,
        None,
    ),
    (partial(observed, lambda s: dist.Gamma(s, 1.0).mask(False)), -GOOD, None),
    (partial(observed, lambda s: dist.LogNormal(0.0, s)), torch.tensor([1.0, 0.0]), "1 of 2"),
    # What a latent site bounds may be possible at another value.
    (partial(observed, lambda s: dist.Uniform(0.0, s)), 50 * GOOD, None),
    (partial(observed, lambda s: dist.Uniform(0.0, 1.0 + 0 * s.detach())), -GOOD, None),
    (masked, torch.tensor([1.0, -1.0]), None),
    (partly, torch.tensor([1.0, NAN]), None),
    (partly, torch.tensor([1.0, -1.0]), "'y_observed'.*1 of 2 .* is -1.0"),
]


@pytest.mark.parametrize(("model", "y", "message"), CASES)
def test_data_outside_of_the_support_name_their_site(
    model: Any, y: torch.Tensor, message: str | None
) -> None:
    if message is None:
        ModelTarget(model, (y,))
        return
    with pytest.raises(ValueError, match=message):
        ModelTarget(model, (y,))


def test_events_are_checked_whole() -> None:
    def model(y: torch.Tensor) -> None:
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Exponential(scale.expand(2)).to_event(1), obs=y)
            shares = torch.cat([y, 1 - y.sum(-1, keepdim=True)], -1)
            pyro.sample("shares", dist.Dirichlet(scale * torch.ones(3)), obs=shares)

    y = torch.tensor([[0.125, 0.25], [0.75, 0.125]])
    ModelTarget(model, (y,))
    with pytest.raises(ValueError, match=r"'y'.*in 1 of 2 .* is \[0.75, -0.125\]"):
        ModelTarget(model, (y * torch.tensor([[1.0, 1.0], [1.0, -1.0]]),))
    with pytest.raises(ValueError, match=r"'shares'.*Dirichlet.*in 1 of 2"):
        ModelTarget(model, (y * torch.tensor([[1.0], [2.0]]),))


def test_a_latent_number_of_trials_bounds_nothing() -> None:
    ModelTarget(counted, (torch.tensor([9.0, 30.0]),), keep=None)
    with pytest.raises(ValueError, match="no finite list"):
        ModelTarget(counted, (torch.tensor([9.0, 30.0]),))


def test_new_data_for_a_kernel_are_checked_too() -> None:
    kernel = HMC(partial(observed, dist.Exponential), compile=False)
    kernel.setup(0, GOOD)
    with pytest.raises(ValueError, match="'y'"):
        kernel.setup(0, -GOOD)


@pytest.mark.parametrize("name", list(MODELS))
def test_good_data_pass(name: str) -> None:
    ModelTarget(MODELS[name], (data(4),), keep=None)
