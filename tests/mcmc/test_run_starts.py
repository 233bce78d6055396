# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Where the chains of a run start."""

from typing import Any

import pyro
import pytest
import torch
from pyro.infer.autoguide.initialization import (
    init_to_mean,
    init_to_sample,
    init_to_uniform,
    init_to_value,
)

from pyro_deepgen.mcmc.kernel import Kernel
from pyro_deepgen.mcmc.state import Info, State, Values
from tests.mcmc.test_run import quietly, walk
from tests.mcmc.walk import Walk, model


class Still(Walk):
    """Stays where it started."""

    def step(self, state: State) -> tuple[State, Info]:
        return state, {}


def test_initial_params_are_where_the_chains_start() -> None:
    initial = {"loc": torch.arange(5.0), "rate": torch.zeros(5), "parts": torch.zeros(5, 2)}
    chains = quietly(Still(model, compile=False), 2, 0, initial_params=initial)
    assert chains.num_chains == 5
    assert chains.samples["loc"].tolist() == [[float(i)] * 2 for i in range(5)]
    assert bool((chains.samples["rate"] == 1).all())  # exp(0): the values are unconstrained
    assert chains.info == {}


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        ({"loc": torch.zeros(5)}, "rate"),
        ({"loc": torch.zeros(5), "rate": torch.zeros(5), "parts": torch.zeros(5, 3)}, "parts"),
        ({"loc": torch.tensor(0.0), "rate": torch.zeros(()), "parts": torch.zeros(2)}, "'loc'"),
        ({"loc": torch.zeros(5) / 0, "rate": torch.zeros(5), "parts": torch.zeros(5, 2)}, "loc"),
    ],
)
def test_bad_starts_name_the_site(initial: Values, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quietly(walk(), 2, 0, initial_params=initial)


@pytest.mark.parametrize("seen", [True, False])
def test_a_strategy_is_where_the_chains_of_a_run_start(seen: bool) -> None:
    def starts(kernel: Kernel, **kwargs: Any) -> Values:
        return quietly(kernel, 1, 0, 2000, **kwargs).get_samples()

    kernel = Still(model, compile=False)
    if seen:  # the target of another run stays, and with it the graphs
        starts(kernel)
    before = getattr(kernel, "target", None)
    assert len(starts(kernel, init_strategy=init_to_mean)["rate"].unique()) == 1
    from_prior = starts(kernel, init_strategy=init_to_sample)["rate"]
    assert abs(float(from_prior.mean()) - 1.5) < 4 * (3 / 4 / 2000) ** 0.5  # Gamma(3, 2)
    given = starts(kernel, init_strategy=init_to_value(values={"loc": torch.tensor(7.0)}))["loc"]
    assert bool((given == 7).all())
    near = starts(kernel, init_strategy=init_to_uniform(radius=0.1))["rate"].log().abs().max()
    assert 0.09 < float(near) <= 0.1
    # By default, as always: uniform in (-2, 2), unconstrained.
    default = starts(kernel)["rate"].log()
    assert abs(float(default.var()) - 4 / 3) < 4 * (16 / 5 - 16 / 9) ** 0.5 / 2000**0.5
    assert before is None or kernel.target is before


def test_only_models_have_a_strategy() -> None:
    kernel = Walk(pyro.distributions.Normal(0.0, 1.0), compile=False)
    with pytest.raises(ValueError, match="only a model takes an init_strategy, not a Normal"):
        quietly(kernel, 2, 0, init_strategy=init_to_sample)
    with pytest.raises(ValueError, match="expected no init_strategy with resume"):
        quietly(walk(), 3, resume=quietly(walk(), 3, 0), init_strategy=init_to_sample)
