# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Distributions, energies and potential functions as targets, and `as_target`."""

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions import constraints

from pyro_deepgen.mcmc.as_target import as_target
from pyro_deepgen.mcmc.distribution_target import DistributionTarget
from pyro_deepgen.mcmc.model_target import ModelTarget
from pyro_deepgen.mcmc.potential_target import PotentialTarget
from pyro_deepgen.mcmc.starts import check_starts
from pyro_deepgen.mcmc.target import Target

from .models import data, mixture, schools

pytestmark = pytest.mark.usefixtures("float64")


def make(program: Any, *args: Any, before: Any = None) -> Target:
    return as_target(program, args, {}, kernel=None, before=before)


class Ising(nn.Module):
    """A machine of signs over bits."""

    event_shape, support = torch.Size([4]), constraints.independent(constraints.boolean, 1)

    def __init__(self) -> None:
        super().__init__()
        self.couplings = nn.Parameter(torch.randn(4, 4))

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("...i,ij,...j->...", x, self.couplings, x)


@pytest.mark.parametrize(
    "distribution",
    [
        dist.Normal(1.0, torch.tensor([1.0, 2.0])),
        dist.Gamma(2.0, torch.ones(3, 2)).to_event(1),
        dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])).expand([2]),
        dist.LKJCholesky(3, 2.0),
    ],
    ids=["normal", "gamma", "dirichlet", "lkj"],
)
def test_density_of_a_distribution_integrates_its_jacobian(distribution: Any) -> None:
    """The potential is minus the log-density of the transformed distribution."""
    target = DistributionTarget(distribution)
    q = target.start(5)
    x = target.constrain(q)["x"]
    assert x.shape == (5, *distribution.batch_shape, *distribution.event_shape)
    transform = target.sites["x"].transform
    log_det = transform.log_abs_det_jacobian(x, q["x"]).reshape(5, -1).sum(-1)
    expected = distribution.log_prob(x).reshape(5, -1).sum(-1) - log_det
    assert torch.allclose(target.potential(q), -expected, rtol=1e-10)


def test_a_density_over_the_unconstrained_line_has_total_one() -> None:
    target = DistributionTarget(dist.Beta(2.0, 3.0))
    q = torch.linspace(-30.0, 30.0, 20001)
    total = torch.trapezoid((-target.potential({"x": q})).exp(), q)
    assert abs(float(total) - 1) < 1e-9


def test_an_energy_over_bits_has_known_values() -> None:
    ising = Ising()
    target = DistributionTarget(ising)
    site = target.sites["x"]
    assert site.is_discrete and site.values is not None and site.values.tolist() == [0.0, 1.0]
    x = target.start(50)["x"]
    assert x.shape == (50, 4) and set(x.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(target.potential({"x": x}), ising.energy(x))


@pytest.mark.parametrize(
    ("distribution", "shape", "values"),
    [
        (dist.Categorical(torch.ones(2, 3) / 3), (2,), [0, 1, 2]),
        (dist.Binomial(2, torch.tensor(0.3)), (), [0, 1, 2]),
        (dist.OneHotCategorical(torch.ones(2) / 2), (2,), [[1, 0], [0, 1]]),
        (dist.Poisson(2.0), (), None),
    ],
)
def test_discrete_distributions(distribution: Any, shape: Any, values: Any) -> None:
    target = DistributionTarget(distribution)
    site = target.sites["x"]
    assert site.shape == shape and target.start(6)["x"].shape == (6, *shape)
    assert (None if site.values is None else site.values.tolist()) == values


def test_a_potential_function_runs_for_all_chains() -> None:
    def potential_fn(q: Any) -> torch.Tensor:
        assert q["a"].shape == (2,)
        return q["a"].square().sum() / 2 + q["b"].exp()

    target = PotentialTarget(potential_fn, {"a": torch.zeros(2), "b": torch.tensor(0.0)})
    values = {"a": torch.randn(9, 2), "b": torch.randn(9)}
    potential, gradient = target.potential_and_gradient(values, ["b", "a"])
    assert torch.allclose(potential, values["a"].square().sum(-1) / 2 + values["b"].exp())
    assert torch.allclose(gradient, torch.cat([values["b"].exp()[:, None], values["a"]], -1))
    with pytest.raises(ValueError, match=r"initial_params.*\['a', 'b'\]"):
        target.start(3)


def test_a_flat_density_has_a_gradient() -> None:
    target = PotentialTarget(lambda q: torch.zeros(()), {"a": torch.zeros(2)})
    potential, gradient = target.potential_and_gradient({"a": torch.ones(3, 2)}, ["a"])
    assert potential.tolist() == [0.0] * 3 and gradient.tolist() == [[0.0, 0.0]] * 3


def test_what_as_target_makes() -> None:
    assert isinstance(make(schools, data()), ModelTarget)
    normal = make(dist.Normal(0.0, 1.0))
    assert isinstance(normal, DistributionTarget)
    assert make(normal) is normal
    assert make(normal.distribution, before=normal) is normal
    ising = Ising()
    target = make(ising)
    assert isinstance(target, DistributionTarget)
    with torch.no_grad():
        ising.couplings.mul_(2.0)
    assert make(ising, before=target) is target
    ising.couplings = nn.Parameter(torch.zeros(4, 4))
    assert make(ising, before=target) is not target


def test_a_kernel_says_what_is_kept_and_what_is_a_potential() -> None:
    class Some:
        potential_fn: Any = None

        def discrete_sites(self) -> Any:
            return ("z",)

    kernel = Some()
    target = as_target(mixture, (data(),), {}, kernel=kernel, before=None)
    assert set(target.sites) == {"weights", "loc", "z"}
    kernel.potential_fn = lambda q: q["a"].square()
    with pytest.raises(ValueError, match="initial_params"):
        as_target(kernel.potential_fn, (), {}, kernel=kernel, before=None)
    example = {"a": torch.tensor(1.0)}
    first = as_target(kernel.potential_fn, (), {}, kernel=kernel, before=None, example=example)
    again = as_target(kernel.potential_fn, (), {}, kernel=kernel, before=first, example=example)
    assert isinstance(first, PotentialTarget) and again is first
    wider = {"a": torch.zeros(2)}
    other = as_target(kernel.potential_fn, (), {}, kernel=kernel, before=first, example=wider)
    assert other is not first


@pytest.mark.parametrize(
    ("program", "args", "message"),
    [
        (3, (), "expected a Pyro model"),
        (dist.Normal(0.0, 1.0), (data(),), "takes arguments"),
        (dist.Stable(1.5, 0.0), (), None),
        (dist.ProjectedNormal(torch.ones(3)), (), "no bijection"),
    ],
)
def test_programs_that_are_no_target(program: Any, args: Any, message: str | None) -> None:
    if message is None:
        assert isinstance(make(program, *args), DistributionTarget)
        return
    with pytest.raises(ValueError, match=message):
        make(program, *args)


def test_an_energy_says_what_its_values_look_like() -> None:
    class Bare:
        def energy(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum()

    with pytest.raises(ValueError, match="event_shape"):
        make(Bare())


def test_one_number_a_chain_is_expected() -> None:
    ising = Ising()
    target = DistributionTarget(ising)
    ising.energy = lambda x: x.sum()  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="one energy or log_prob for each of the 5 chains"):
        target.start(5)
    scalars = PotentialTarget(lambda q: q["a"], {"a": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"scalar for one chain, got the shape \(2,\)"):
        scalars.potential({"a": torch.zeros(3, 2)})


def test_one_chains_energy_may_differ_from_anothers() -> None:
    target = DistributionTarget(dist.Normal(torch.zeros(2), 1.0).to_event(1))
    scales = torch.tensor([1.0, 2.0, 3.0])
    wider = dist.Normal(torch.zeros(2), scales[:, None]).to_event(1)
    q = {"x": torch.randn(3, 2)}
    assert torch.allclose(target.potential_of(wider, q), -wider.log_prob(q["x"]))


def test_starts_of_a_user_for_discrete_values() -> None:
    target = DistributionTarget(Ising())
    good = {"x": torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0]])}
    assert check_starts(target, good, 2)["x"].dtype == torch.float64
    bad = {"x": torch.tensor([[0, 1, 1, 0], [1, 2, 0, 0]])}
    with pytest.raises(ValueError, match="site 'x' has in chain 1 a value outside"):
        check_starts(target, bad, 2)
    hot = DistributionTarget(dist.OneHotCategorical(torch.ones(2, 2) / 2))
    rows = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert torch.equal(check_starts(hot, {"x": rows}, 1)["x"], rows)
    with pytest.raises(ValueError, match="chain 0"):
        check_starts(hot, {"x": torch.ones(1, 2, 2)}, 1)
