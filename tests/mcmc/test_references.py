# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Posterior moments against those of a long run of Pyro's NUTS.

`benchmarks/reproduce/mcmc_references.py` has the models and wrote the references.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.reproduce import mcmc_references as script
from pyro_deepgen.mcmc.chees import ChEES
from pyro_deepgen.mcmc.discrete_gibbs import DiscreteGibbs
from pyro_deepgen.mcmc.gibbs import Gibbs
from pyro_deepgen.mcmc.hmc import HMC
from pyro_deepgen.mcmc.kernel import Kernel
from pyro_deepgen.mcmc.nuts import NUTS
from pyro_deepgen.mcmc.run import run

pytestmark = pytest.mark.usefixtures("float64")
REFERENCES = json.loads((Path(__file__).parent / "references.json").read_text())


def largest_difference(name: str, draws: Mapping[str, torch.Tensor]) -> float:
    """By how many standard errors, of both runs, a mean or standard deviation differs at most."""
    reference, found = (
        REFERENCES[name]["sites"],
        script.moments({site: draws[site].numpy() for site in REFERENCES[name]["sites"]}),
    )
    differences = []
    for site, expected in reference.items():
        for moment in ("mean", "sd"):
            errors = [np.array(x[f"mcse_{moment}"]) for x in (expected, found[site])]
            apart = np.abs(np.array(expected[moment]) - np.array(found[site][moment]))
            differences.append((apart / np.hypot(*errors)).max())
    return float(max(differences))


def hmc_within_gibbs(program: Any) -> Gibbs:
    continuous = HMC(program, compile="recorded")
    labels = DiscreteGibbs(program, compile="recorded")
    return Gibbs([(continuous, ["weights", "loc"]), (labels, "z")])


def recorded(cls: Callable[..., Kernel], **options: Any) -> Callable[[Any], Kernel]:
    return lambda program: cls(program, compile="recorded", **options)


CASES: dict[str, tuple[str, Callable[[Any], Kernel]]] = {
    "eight_schools-nuts": ("eight_schools", recorded(NUTS)),
    "eight_schools-chees": ("eight_schools", recorded(ChEES)),
    "funnel-nuts": ("funnel", recorded(NUTS)),
    "logistic_regression": ("logistic_regression", recorded(HMC, full_mass=True)),
    "mixture-enumerated": ("mixture", recorded(HMC)),
    "mixture-gibbs": ("mixture", hmc_within_gibbs),
}


def moments_differ(name: str, kernel: Kernel) -> float:
    """By how many standard errors a run of 50 chains differs from the reference."""
    kernel.setup(0)
    start = kernel.target.start(50)
    if name == "mixture":
        # Modes with exchanged labels have no weight, and hold chains that start near them.
        start["loc"] = torch.tensor([-4.0, 0.0, 4.0]) + 0.3 * torch.randn(50, 3)
    draws = 120 if isinstance(kernel, Gibbs) else 60
    chains = run(kernel, draws, 60, initial_params=start, progress=False)
    return largest_difference(name, chains.samples)


@pytest.mark.parametrize(("name", "make"), CASES.values(), ids=list(CASES))
def test_moments_are_those_of_a_long_run_of_pyro(name: str, make: Callable[[Any], Kernel]) -> None:
    assert moments_differ(name, make(script.MODELS[name])) < 4


def test_another_posterior_is_found() -> None:
    """If the data count for less, a moment differs by more."""

    def tempered() -> None:
        script.poutine.scale(script.eight_schools, 0.6)()

    assert moments_differ("eight_schools", HMC(tempered, compile="recorded")) > 4


def test_the_references_are_of_the_models_as_they_are() -> None:
    assert set(REFERENCES) == set(script.MODELS)
    sites = REFERENCES["funnel"]["sites"]  # the one that is known
    for site, sd in (("v", 3.0), ("x_decentered", 1.0)):
        mean, error = (np.array(sites[site][key]) for key in ("mean", "mcse_mean"))
        assert (np.abs(mean) < 4 * error).all()
        spread, error = (np.array(sites[site][key]) for key in ("sd", "mcse_sd"))
        assert (np.abs(spread - sd) < 4 * error).all()


def test_the_script_writes_what_it_was_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "references.json"
    sizes = ["--warmup-steps=10", "--draws=20", "--models", "funnel", "--file", str(file)]
    script.main(sizes)
    found = json.loads(file.read_text())
    assert list(found) == ["funnel"] and found["funnel"]["draws"] == 20
    assert len(found["funnel"]["sites"]["x_decentered"]["mcse_sd"]) == 9
