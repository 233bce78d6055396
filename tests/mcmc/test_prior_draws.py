# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Where annealed chains begin: a program's own draws, for all chains at once where it can."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_deepgen.mcmc.base import ProgramDraws
from pyro_deepgen.mcmc.model_target import ModelTarget
from pyro_deepgen.mcmc.state import Values

pytestmark = pytest.mark.usefixtures("float64")
NUM_CHAINS = 2000


class Prior:
    """A location, and counts, labels and values that depend on it; counts its runs."""

    runs = 0

    def __init__(self, scale: dist.TorchDistribution) -> None:
        self.scale = scale

    def __call__(self) -> None:
        self.runs += 1
        loc = pyro.sample("loc", dist.Normal(1.0, 2.0))
        scale = pyro.sample("scale", self.scale)
        with pyro.plate("n", 3):
            label = pyro.sample("label", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
            pyro.sample("x", dist.Normal(loc + label, scale))


def drawn(program: Prior) -> tuple[Values, int]:
    """Draws in the program's terms, and how often it ran for them."""
    target = ModelTarget(program, keep=None)
    before = program.runs
    values = ProgramDraws(program, (), {}, target)(NUM_CHAINS)
    return target.constrain(values), program.runs - before


@pytest.mark.parametrize(
    ("scale", "most_runs"),
    [(dist.LogNormal(0.0, 0.5), 1), (dist.HalfNormal(1.0), 1), (dist.Exponential(1.0), None)],
    ids=["lognormal", "halfnormal", "exponential"],
)
def test_every_chain_has_a_draw_of_its_own(
    scale: dist.TorchDistribution, most_runs: int | None
) -> None:
    values, runs = drawn(Prior(scale))
    # Exponential draws cannot be batched by vmap: then one chain after another, after one attempt.
    assert runs == (most_runs or NUM_CHAINS + 1)
    assert {n: v.shape[1:] for n, v in values.items()} == {
        "loc": (), "scale": (), "label": (3,), "x": (3,)
    }  # fmt: skip
    assert len(values["loc"].unique()) == len(values["scale"].unique()) == NUM_CHAINS
    assert len(values["x"].unique()) == 3 * NUM_CHAINS
    shares = values["label"].flatten().bincount() / (3 * NUM_CHAINS)
    exact = torch.tensor([0.2, 0.3, 0.5])
    assert ((shares - exact).abs() < 4 * (exact * (1 - exact) / (3 * NUM_CHAINS)).sqrt()).all()
    noise = values["x"] - values["loc"][:, None] - values["label"]
    noise = noise / values["scale"][:, None]
    for numbers, mean, sd in ((values["loc"], 1.0, 2.0), (noise.mean(1), 0.0, 3**-0.5)):
        assert abs(numbers.mean() - mean) < 4 * sd / NUM_CHAINS**0.5
        assert abs(numbers.var() / sd**2 - 1) < 4 * (2 / NUM_CHAINS) ** 0.5
