# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A flow as a guide: ways to train it, amortised and in NeuTra."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.reparam import NeuTraReparam
from torch import nn

from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.infer import AutoFlow, CompiledSVI
from pyro_deepgen.transforms import cholesky_affine
from tests.infer.auto_flows import (
    DESIGN,
    NOISE,
    affine_and_planar,
    contextual,
    data,
    posterior,
    regression,
    train,
)


def by_svi(guide: AutoFlow, x: torch.Tensor) -> Callable[[], Any]:
    svi = SVI(regression, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    return lambda: svi.step(x)


def by_torch(guide: AutoFlow, x: torch.Tensor) -> Callable[[], Any]:
    loss = Trace_ELBO()(regression, guide)
    optim = torch.optim.Adam(loss.parameters(), lr=0.01)

    def step() -> None:
        optim.zero_grad()
        loss(x).backward()
        optim.step()

    return step


@pytest.mark.parametrize("route", [by_svi, by_torch])
def test_all_parameters_move(route: Any) -> None:
    """For a second guide in the same process, too."""
    x = data()
    pyro.settings.set(module_local_params=route is by_torch)
    for _ in range(2):
        pyro.clear_param_store()
        guide = AutoFlow(regression, affine_and_planar)
        guide(x)
        before = copy.deepcopy(guide.state_dict())
        train(route(guide, x), 3)
        after = guide.state_dict()
        names = [name for name, _ in guide.named_parameters()]
        assert len(names) == 8
        assert all(not torch.equal(after[name], before[name]) for name in names)


def test_a_guide_is_saved_and_copied() -> None:
    x = data()
    guide, restored = (AutoFlow(regression, affine_and_planar) for _ in range(2))
    draws = []
    for other in (guide, restored):
        other(x)
    restored.load_state_dict(guide.state_dict())
    for other in (guide, restored, copy.deepcopy(guide)):
        torch.manual_seed(0)
        draws.append(other(x)["first"])
    assert draws[0] == draws[1] == draws[2]


def run(kind: Any, context: bool) -> tuple[list[float], list[torch.Tensor]]:
    pyro.clear_param_store()
    torch.manual_seed(1)
    x = data()
    guide = contextual() if context else AutoFlow(regression, affine_and_planar)
    guide(x)
    optim = pyro.optim.Adam({"lr": 0.01})
    options = {"backend": None} if kind is CompiledSVI else {}
    svi = kind(regression, guide, optim, Trace_ELBO(num_particles=2), **options)
    torch.manual_seed(2)
    losses = [float(svi.step(x)) for _ in range(5)]
    return losses, [p.detach().clone() for p in guide.parameters()]


@pytest.mark.parametrize("context", [False, True])
def test_compiled_steps_are_those_of_svi(context: bool) -> None:
    """And the graph has no inverse, which a planar flow has to search for."""
    expected, parameters = run(SVI, context)
    losses, ours = run(CompiledSVI, context)
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected))
    for one, other in zip(ours, parameters, strict=True):
        torch.testing.assert_close(one, other)


def test_a_context_makes_one_guide_of_many_posteriors() -> None:
    """A linear network of the data is enough: the posterior's mean is linear in them."""

    def simulated() -> torch.Tensor:
        with torch.no_grad():
            return (
                poutine.trace(poutine.uncondition(regression)).get_trace(data()).nodes["x"]["value"]
            )

    guide = AutoFlow(
        regression,
        partial(cholesky_affine, context_dim=3, hidden_dims=()),
        context=nn.Identity(),
        init_scale=0.5,
    )
    optim = pyro.optim.ClippedAdam({"lr": 0.04, "lrd": 0.02 ** (1 / 600)})
    svi = SVI(regression, guide, optim, Trace_ELBO(num_particles=4, vectorize_particles=True))
    train(lambda: svi.step(simulated()), 600)
    for _ in range(3):
        x = simulated()
        draws = guide.get_posterior(x).sample((4000,))
        known = posterior(x)
        torch.testing.assert_close(draws.mean(0), known.mean, atol=0.15, rtol=0)
        torch.testing.assert_close(draws.T.cov(), known.covariance_matrix, atol=0.05, rtol=0)


def test_a_flow_learns_a_posterior_from_simulated_pairs() -> None:
    """Maximum likelihood on pairs, in a plate: no density of the simulator is needed."""
    base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    flow = FlowDistribution(base, cholesky_affine(2, context_dim=3, hidden_dims=()))
    num = 4000
    theta = torch.randn(num, 2) * torch.tensor([1.0, 2.0])
    x = theta @ DESIGN.to(theta).T + NOISE * torch.randn(num, 3)

    def program(theta: torch.Tensor, x: torch.Tensor) -> None:
        pyro.module("flow", flow)
        with pyro.plate("data", num, subsample_size=100) as index:
            pyro.sample("theta", flow.condition(x[index]), obs=theta[index])

    optim = pyro.optim.ClippedAdam({"lr": 0.03, "lrd": 0.01 ** (1 / 400)})
    svi = SVI(program, lambda theta, x: None, optim, Trace_ELBO())
    train(lambda: svi.step(theta, x), 400)
    known, drawn = posterior(data()), flow.condition(data()).sample((20_000,))
    torch.testing.assert_close(drawn.mean(0), known.mean, atol=0.1, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), known.covariance_matrix, atol=0.03, rtol=0)


def funnel() -> None:
    width = pyro.sample("width", dist.Normal(torch.tensor(0.0), 1.0))
    pyro.sample("place", dist.Normal(torch.zeros(()), (width / 2).exp()))


def test_neutra_samples_a_funnel() -> None:
    guide = AutoFlow(funnel, affine_and_planar, init_scale=1.0)
    optim = pyro.optim.ClippedAdam({"lr": 0.02})
    svi = SVI(funnel, guide, optim, Trace_ELBO(num_particles=4, vectorize_particles=True))
    train(svi.step, 200)
    neutra = NeuTraReparam(guide)
    mcmc = MCMC(NUTS(neutra.reparam(funnel)), 200, 60, disable_progbar=True)
    mcmc.run()
    draws = neutra.transform_sample(next(iter(mcmc.get_samples().values())))
    width, whitened = draws["width"], draws["place"] * (-draws["width"] / 2).exp()
    size = next(iter(mcmc.diagnostics().values()))["n_eff"].min()
    for values in (width, whitened):  # both standard normal
        assert values.mean().abs() < 4 / size**0.5
        assert (values.square().mean() - 1).abs() < 4 * (2 / size) ** 0.5


def test_neutra_refuses_a_guide_with_a_context() -> None:
    guide = contextual()
    guide(data())
    with pytest.raises(ValueError, match="does not depend on"):
        poutine.trace(NeuTraReparam(guide).reparam(regression)).get_trace(data())
