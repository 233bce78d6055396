# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Where a flow starts as a guide: near enough to wide and narrow posteriors, and without overflow.

The bound of a model without data is minus the divergence from its prior, 0 at best.
"""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_deepgen.infer import AutoFlow
from pyro_deepgen.transforms import cholesky_affine, iaf, planar, real_nvp
from tests.infer.auto_flows import data, regression, train


def losses_of(program: object, guide: AutoFlow, num_steps: int, rate: float) -> torch.Tensor:
    """Train, and return the loss of every step."""
    elbo = Trace_ELBO(num_particles=32, vectorize_particles=True, max_plate_nesting=1)
    loss = elbo(program, guide)
    loss()
    optim = torch.optim.Adam(guide.parameters(), rate)
    losses = []

    def step() -> None:
        optim.zero_grad()
        losses.append(loss())
        losses[-1].backward()
        optim.step()

    with pyro.validation_enabled(False):
        train(step, num_steps)
    return torch.stack(losses).detach()


@pytest.mark.parametrize("spread", [0.2, 8.0])
def test_the_scales_start_between_narrow_and_wide(spread: float) -> None:
    """Each is reached in 90 steps of .02, the wide one not from a tenth of the start."""

    def program() -> None:
        pyro.sample("z", dist.Normal(torch.zeros(4), spread).to_event(1))

    gap = losses_of(program, AutoFlow(program, cholesky_affine), 90, 0.02)[-10:].mean()
    assert gap < 0.5
    if spread > 1:
        narrow = AutoFlow(program, cholesky_affine, init_scale=0.1)
        assert losses_of(program, narrow, 90, 0.02)[-10:].mean() > 1


EFFECTS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)


def centred() -> None:
    """Eight schools: the density of the effects has no finite gradient where their scale is 0."""
    mu = pyro.sample("mu", dist.Normal(torch.tensor(0.0), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(5.0)))
    with pyro.plate("schools", 8):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, torch.tensor(ERRORS)), obs=torch.tensor(EFFECTS))


@pytest.mark.parametrize("flow", [real_nvp, iaf])
def test_a_centred_hierarchy_stays_finite_in_single_precision(flow: object) -> None:
    """From a start of 0.1 the RealNVP draws scales that underflow, within some ten steps."""
    torch.set_default_dtype(torch.float32)
    for seed in range(3):
        pyro.set_rng_seed(seed)
        guide = AutoFlow(centred, partial(flow, num_layers=6, hidden_dims=(32, 32)))  # type: ignore[call-overload]
        losses = losses_of(centred, guide, 80, 0.01)
        assert losses.isfinite().all()
        assert all(parameter.isfinite().all() for parameter in guide.parameters())
        assert losses[-20:].median() < losses[:20].median()


def test_a_guide_that_overflowed_says_what_to_do() -> None:
    guide = AutoFlow(regression, planar)
    guide(data())
    with torch.no_grad():
        guide.flow.transform.parts[1].loc[0] = torch.nan  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="at a lower learning rate, with an init_scale nearer"):
        guide.median(data())
