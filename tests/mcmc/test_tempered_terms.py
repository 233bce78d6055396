# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Labels of a plate are drawn at once at any temperature, from the law of that temperature."""

from typing import Any
from unittest import mock

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_deepgen.mcmc import tempered_terms
from pyro_deepgen.mcmc.ais import ais
from pyro_deepgen.mcmc.discrete_gibbs import DiscreteGibbs
from pyro_deepgen.mcmc.gibbs import Gibbs
from pyro_deepgen.mcmc.model_target import ModelTarget
from pyro_deepgen.mcmc.parallel_tempering import ParallelTempering
from pyro_deepgen.mcmc.random_walk import RandomWalk

pytestmark = pytest.mark.usefixtures("float64")
X = torch.tensor([-2.0, -1.5, 0.3, 1.0, 2.2, 1.8], dtype=torch.float64)
LABELS = {
    "loc": dist.Normal(torch.tensor(1.0, dtype=torch.float64), 2.0),
    "z": dist.Categorical(torch.tensor([0.7, 0.3], dtype=torch.float64)).expand([6]),
}


def clusters(x: torch.Tensor) -> None:
    """A mixture of two, one of them at 0, as are all labels in the same plate."""
    loc = pyro.sample("loc", dist.Normal(torch.tensor(0.0), 2.0))
    with pyro.plate("n", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.4, 0.6])))
        pyro.sample("x", dist.Normal(loc * z, 0.8), obs=x)


def coupled_base(x: torch.Tensor) -> None:
    pyro.sample("loc", dist.Normal(torch.tensor(0.0), 1.0))
    with pyro.plate("n", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5])))
    pyro.factor("together", 0.3 * (z[..., 1:] == z[..., :-1]).double().sum(-1))


def evidence(x: torch.Tensor) -> torch.Tensor:
    """By a sum over a fine grid of locations, with the labels summed out."""
    loc = torch.linspace(-12.0, 12.0, 4001)
    parts = dist.Normal(loc[:, None, None] * torch.arange(2.0), 0.8).log_prob(x[:, None])
    log_joint = (parts + torch.tensor([0.4, 0.6]).log()).logsumexp(-1).sum(-1)
    log_joint = log_joint + dist.Normal(0.0, 2.0).log_prob(loc)
    return log_joint.logsumexp(0) + torch.log(loc[1] - loc[0])


def gibbs(compile: bool | str = False) -> Gibbs:
    walk = RandomWalk(clusters, compile=compile)
    return Gibbs([(walk, "loc"), (DiscreteGibbs(clusters, compile=compile), "z")])


def tempered(base: Any) -> tuple[ParallelTempering, DiscreteGibbs]:
    """Replicas at three temperatures, and the part that draws labels."""
    inner = gibbs()
    kernel = ParallelTempering(inner, [1.0, 2.0, 5.0], base=base)
    kernel.setup(0, X)
    kernel.step(kernel.init(kernel.target.start(4)))
    labels = inner.kernels[1]
    assert isinstance(labels, DiscreteGibbs)
    return kernel, labels


@pytest.mark.parametrize(
    ("base", "dims"),
    [
        (None, (-1,)),
        ("prior", (-1,)),
        (LABELS, (-1,)),
        ({**LABELS, "z": dist.Categorical(torch.ones(6, 2)).to_event(1)}, ()),
        (coupled_base, ()),
    ],
    ids=["powers", "prior", "distributions", "one event", "coupled"],
)
@torch.no_grad()
def test_the_table_says_what_the_density_does(base: Any, dims: tuple[int, ...]) -> None:
    """Differences between two values of one label, at every temperature and in every chain."""
    kernel, labels = tempered(base)
    assert dict(labels.plates or ()) == {"z": dims}
    if not dims:
        return
    replicas = 12
    values = {"loc": torch.randn(replicas), "z": torch.randint(2, (replicas, len(X)))}
    of_all = {n: v.repeat(2, *[1] * (v.dim() - 1)) for n, v in values.items()}
    of_all["z"] = torch.arange(2).repeat_interleave(replicas)[:, None].expand(-1, len(X))
    table = tempered_terms.plate_terms(kernel.tempered, "z", of_all, dims)
    found = table[replicas:] - table[:replicas]  # as if of 4 chains at 3 temperatures
    for i in range(len(X)):
        other = {**values, "z": values["z"].clone()}
        potentials = []
        for k in range(2):
            other["z"][:, i] = k
            potentials.append(kernel.tempered.potential(other))
        torch.testing.assert_close(found[:, i], potentials[0] - potentials[1])


@torch.no_grad()
def test_labels_cost_two_evaluations_at_a_temperature() -> None:
    """One of the prior and one of the posterior, however many labels there are."""
    inner = gibbs()
    kernel = ParallelTempering(inner, [1.0, 2.0, 5.0], base="prior")
    kernel.setup(0, X.repeat(20))
    state = kernel.init(kernel.target.start(2))
    kernel.step(state)
    view = inner.init(inner.values(kernel.inner(state)))
    own = ModelTarget.trace
    with mock.patch.object(ModelTarget, "trace", autospec=True, side_effect=own) as runs:
        inner.kernels[1].step(inner.values(view))
    assert runs.call_count == 2


@pytest.mark.parametrize("base", [None, LABELS], ids=["prior", "distributions"])
def test_the_evidence_is_that_of_the_sum(base: Any) -> None:
    result = ais(clusters, base, gibbs("recorded"), args=(X,), num_steps=40, num_chains=400)
    assert (result.log_z - evidence(X)).abs() < 4 * result.standard_error
    assert result.standard_error < 0.1


def test_a_base_of_another_shape_is_told() -> None:
    base = {**LABELS, "z": dist.Categorical(torch.ones(2))}
    with pytest.raises(ValueError, match=r"shape \(6,\) for the site 'z', got \(\): expand"):
        ais(clusters, base, gibbs(), args=(X,), num_steps=2, num_chains=4)


def test_a_table_that_forgets_the_temperature_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempered_terms, "weighted", lambda weight, value: value)
    result = ais(clusters, LABELS, gibbs(), args=(X,), num_steps=40, num_chains=400)
    assert (result.log_z - evidence(X)).abs() > 4 * result.standard_error
