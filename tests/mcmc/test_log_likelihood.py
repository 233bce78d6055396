# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The annealed likelihood of decoder models against that of a linear one."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_deepgen.mcmc.ais import ais
from pyro_deepgen.mcmc.data_target import DataTarget
from pyro_deepgen.mcmc.hmc import HMC
from pyro_deepgen.mcmc.kernel import Kernel
from pyro_deepgen.mcmc.log_likelihood import annealed_log_likelihood

pytestmark = pytest.mark.usefixtures("float64")
NOISE = 0.3


def hmc(target: Any) -> Kernel:
    return HMC(target, compile=False)


class Linear(nn.Module):
    """p(z) = N(0, I), p(x | z) = N(W z + b, 0.09 I), with five observed and three latent units."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> None:
        pyro.module("linear", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), NOISE).to_event(1), obs=x)

    def exact(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.decoder.weight.detach(), self.decoder.bias.detach()
        covariance = weight @ weight.T + NOISE**2 * torch.eye(5)
        return dist.MultivariateNormal(bias, covariance).log_prob(x)


def test_linear_decoder_has_its_likelihood() -> None:
    model, x = Linear(), torch.randn(50, 5)
    result = annealed_log_likelihood(
        model, x, kernel=hmc, num_steps=60, num_chains=16, batch_size=25
    )
    error = (result.log_prob - model.exact(x)) / result.standard_error
    assert result.log_prob.shape == (50,)
    # Of 16 chains, the standard error is itself uncertain: Student's t with 15 degrees of freedom.
    assert int((error.abs() < 4).sum()) >= 48
    total = result.log_prob.mean() - model.exact(x).mean()
    bias = result.standard_error.square().mean() / 2  # of a logarithm
    assert (total + bias).abs() < 4 * result.standard_error.square().mean().sqrt() / 50**0.5
    assert result.ess.mean() > 8


def test_each_datum_has_its_own_chains() -> None:
    """A datum far away does not change the estimates of the others."""
    model = Linear()
    x = torch.randn(4, 5)
    x[3] *= 4
    result = annealed_log_likelihood(model, x, kernel=hmc, num_steps=100)
    assert ((result.log_prob - model.exact(x)).abs() < 5 * result.standard_error + 0.05).all()


def test_simulated_data_are_bounded_from_both_sides() -> None:
    """A latent value and the datum drawn from it: an exact draw from that datum's posterior."""
    model = Linear()
    z = torch.randn(60, 3)
    x = model.decoder(z).detach() + NOISE * torch.randn(60, 5)
    target = DataTarget(model, [x], num_chains=4)
    result = ais(
        target, kernel=hmc, num_chains=4, groups=60, num_steps=10,
        reverse_from=z.repeat_interleave(4, 0),
    )  # fmt: skip
    exact = model.exact(x)
    assert result.upper is not None
    low, high = (result.lower - exact), (result.upper - exact)
    # Four reverse chains of a datum start from one draw: the data are what is independent.
    assert low.mean() < 4 * low.std() / 60**0.5 and high.mean() > -4 * high.std() / 60**0.5
    assert low.mean() < 0 < high.mean()


def test_a_prior_left_out_of_the_target_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Linear(), torch.randn(5, 5)
    potential = DataTarget.potential

    def likelihood_alone(self: DataTarget, values: Any) -> torch.Tensor:
        of_prior = 0.5 * values["z"].square().sum(-1) if self.model is model else 0.0
        return potential(self, values) - of_prior

    monkeypatch.setattr(DataTarget, "potential", likelihood_alone)
    result = annealed_log_likelihood(model, x, kernel=hmc, num_steps=20)
    assert ((result.log_prob - model.exact(x)).abs() > 4 * result.standard_error).sum() >= 3


def shared(x: torch.Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def discrete(x: torch.Tensor) -> None:
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(k, 1.0), obs=x)


def without_latents(x: torch.Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (shared, "'loc' is not in a plate"),
        (discrete, "'k' is discrete"),
        (without_latents, "no lat"),
    ],
)
def test_wrong_models_are_told(model: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        annealed_log_likelihood(model, torch.zeros(4), kernel=hmc, num_steps=2)


def test_wrong_data_are_told() -> None:
    with pytest.raises(ValueError, match="batches of one length"):
        DataTarget(Linear(), [torch.zeros(4), torch.zeros(3)], num_chains=2)
    with pytest.raises(ValueError, match="expected batches of data"):
        DataTarget(Linear(), [], num_chains=2)
    target = DataTarget(Linear(), [torch.zeros(4, 5)], num_chains=2)
    with pytest.raises(ValueError, match="expected 2 chains for each of 4 data"):
        target.start(3)
