# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Annealed importance sampling of machines whose normalising constant is known."""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch

from pyro_deepgen.mcmc.ais import ais
from pyro_deepgen.mcmc.ais_result import AISResult
from pyro_deepgen.mcmc.block_gibbs import BlockGibbs
from pyro_deepgen.mcmc.discrete_gibbs import DiscreteGibbs
from pyro_deepgen.mcmc.path import GeometricPath
from pyro_deepgen.mcmc.tempered_target import TemperedTarget
from tests.mcmc.boltzmann import Machine, RestrictedMachine

# As many independent estimates as there are groups of chains.
SEEDS, CHAINS = 100, 100
pytestmark = pytest.mark.usefixtures("float64")


def machine(**options: Any) -> tuple[AISResult, torch.Tensor]:
    """The geometric path from independent units, by single-site Gibbs sampling."""
    target = Machine(8, 0.6)
    base = dist.Bernoulli(logits=target.bias).to_event(1)
    kernel = DiscreteGibbs(target, compile=False)
    reverse = target.draw(SEEDS * CHAINS)
    result = ais(
        target, base, kernel, num_chains=CHAINS, groups=SEEDS, reverse_from=reverse, **options
    )
    return result, target.log_z()


def restricted(**options: Any) -> tuple[AISResult, torch.Tensor]:
    """The path of the machine itself, by block Gibbs sampling."""
    target = RestrictedMachine(7, 5, 1.0)
    kernel = BlockGibbs(target, target, compile=False)
    reverse = target.draw(SEEDS * CHAINS)
    result = ais(
        target, kernel=kernel, num_chains=CHAINS, groups=SEEDS, reverse_from=reverse, **options
    )
    return result, target.log_z()


def restricted_geometrically(**options: Any) -> tuple[AISResult, torch.Tensor]:
    """The geometric path to the same kind of machine, by single-site Gibbs sampling."""
    target = RestrictedMachine(7, 5, 1.0)
    kernel = DiscreteGibbs(target, compile=False)
    reverse = target.draw(SEEDS * CHAINS)
    base = dist.Bernoulli(torch.full((7,), 0.5)).to_event(1)
    result = ais(
        target, base, kernel, num_chains=CHAINS, groups=SEEDS, reverse_from=reverse, **options
    )
    return result, target.log_z()


CASES = [machine, restricted, restricted_geometrically]
Case = Callable[..., tuple[AISResult, torch.Tensor]]


def within_3_errors(result: AISResult, exact: torch.Tensor) -> int:
    return int(((result.log_z - exact).abs() <= 3 * result.standard_error).sum())


@pytest.mark.parametrize("case", CASES)
def test_at_least_95_of_100_seeds_are_within_3_standard_errors(case: Case) -> None:
    result, exact = case(num_steps=30)
    assert within_3_errors(result, exact) >= 95
    # And the errors are those that there are: the 100 estimates scatter as much as they say.
    scatter = (result.log_z - exact).square().mean().sqrt()
    assert 0.7 < scatter / result.standard_error.square().mean().sqrt() < 1.3


@pytest.mark.parametrize("case", CASES)
def test_forward_and_reverse_bracket_log_z(case: Case) -> None:
    result, exact = case(num_steps=6)
    assert result.upper is not None and result.reverse_log_z is not None
    for low, high in [(result.lower, result.upper), (result.log_z, result.reverse_log_z)]:
        error = 4 * (low.var() / SEEDS).sqrt(), 4 * (high.var() / SEEDS).sqrt()
        assert low.mean() - error[0] < exact < high.mean() + error[1]
    # With few steps the bounds of single chains are apart from it in nearly every seed.
    assert int(((result.lower < exact) & (exact < result.upper)).sum()) >= 95


@pytest.mark.parametrize("case", CASES)
def test_more_steps_bring_the_bounds_together(case: Case) -> None:
    gaps = []
    for num_steps in (4, 40):
        result, _ = case(num_steps=num_steps, schedule="linear")
        assert result.upper is not None
        gaps.append((result.upper - result.lower).mean())
    assert 0 < gaps[1] < gaps[0] / 2


def test_a_base_left_out_of_the_weights_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = GeometricPath.differences

    def without_base(self: GeometricPath, values: Any) -> Any:
        return differences(GeometricPath(None, self.target), values)

    monkeypatch.setattr(GeometricPath, "differences", without_base)
    result, exact = machine(num_steps=15)
    assert within_3_errors(result, exact) < 50


@pytest.mark.parametrize("case", [machine, restricted])
def test_weights_of_the_wrong_sign_are_found(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    difference = TemperedTarget.difference
    monkeypatch.setattr(TemperedTarget, "difference", lambda *args: -difference(*args))
    result, exact = case(num_steps=15)
    assert within_3_errors(result, exact) < 50


@pytest.mark.parametrize("case", [machine, restricted])
def test_a_kernel_of_another_density_is_found(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that stays at the temperature of the target all the way."""
    set_ = TemperedTarget.set
    monkeypatch.setattr(
        TemperedTarget,
        "set",
        lambda self, beta, scale=None: set_(self, torch.ones_like(beta), scale),
    )
    result, exact = case(num_steps=10, schedule="linear", tune=False)
    assert within_3_errors(result, exact) < 50


@pytest.mark.parametrize("case", CASES)
def test_resampled_chains_estimate_the_same(case: Case) -> None:
    result, exact = case(num_steps=6, resample=True)
    # The standard error of resampled chains, from their ancestors, is on the safe side.
    assert within_3_errors(result, exact) >= 95
    z = (result.log_z - exact).exp()
    assert (z.mean() - 1).abs() < 4 * (z.var() / SEEDS).sqrt()
