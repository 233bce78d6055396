# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Posterior moments by a long run of Pyro's NUTS, against which the kernels of `mcmc` are tested.

    python benchmarks/reproduce/mcmc_references.py
    python benchmarks/reproduce/mcmc_references.py --models funnel --draws 20000

takes some minutes on one CPU core, in float64, and writes ``tests/mcmc/references.json``: of every
site of each model the means and standard deviations with their Monte Carlo standard errors (by
ArviZ, from the autocorrelation of the one chain), the settings, and the seconds that it took. The
models' data are made without random numbers, so that every version of PyTorch has the same. The
mixture's components have the order of their priors, as the means show: other orders are 10^-6 times
as probable or less, but a chain that began in one would stay there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, config_enumerate
from pyro.infer.reparam import LocScaleReparam

FILE = Path(__file__).parents[2] / "tests" / "mcmc" / "references.json"
PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23)
EFFECTS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)


def uniform(size: int, prime: int) -> torch.Tensor:
    """Evenly spread numbers in (0, 1), those of different primes unrelated; multiples of a root."""
    return (torch.arange(1, size + 1, dtype=torch.float64) * prime**0.5) % 1.0


def normal(size: int, prime: int) -> torch.Tensor:
    """Numbers spread as those of a standard normal law are."""
    law = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    return law.icdf(uniform(size, prime))


def eight_schools() -> None:
    """Effects of coaching in eight schools, non-centred."""
    effects, errors = torch.tensor(EFFECTS), torch.tensor(ERRORS)
    mu = pyro.sample("mu", dist.Normal(torch.tensor(0.0), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(5.0)))
    with pyro.plate("schools", 8):
        eta = pyro.sample("eta", dist.Normal(torch.tensor(0.0), 1.0))
        pyro.sample("y", dist.Normal(mu + tau * eta, errors), obs=effects)


@poutine.reparam(config={"x": LocScaleReparam(0.0)})  # type: ignore[untyped-decorator]
def funnel() -> None:
    """Neal's funnel, non-centred."""
    v = pyro.sample("v", dist.Normal(torch.tensor(0.0), 3.0))
    with pyro.plate("n", 9):
        pyro.sample("x", dist.Normal(torch.tensor(0.0), (v / 2).exp()))


def logistic_regression() -> None:
    """Eight correlated covariates, one of them without an effect, of 200 data."""
    size, columns = 200, [normal(200, prime) for prime in PRIMES[:8]]
    x = torch.stack([columns[0], *(0.6 * a + 0.8 * b for a, b in pairwise(columns))], -1)
    slopes = torch.linspace(-1.0, 1.33, 8, dtype=torch.float64)
    y = uniform(size, PRIMES[8]) < torch.sigmoid(x @ slopes - 0.5)
    dtype = torch.get_default_dtype()
    intercept = pyro.sample("intercept", dist.Normal(torch.tensor(0.0), 5.0))
    weights = pyro.sample("weights", dist.Normal(torch.zeros(8), 2.0).to_event(1))
    with pyro.plate("data", size):
        logits = x.to(dtype) @ weights + intercept
        pyro.sample("y", dist.Bernoulli(logits=logits), obs=y.to(dtype))


@config_enumerate  # type: ignore[untyped-decorator]
def mixture() -> None:
    """Three components of known spread, which their priors tell apart, with a label a datum."""
    dtype = torch.get_default_dtype()
    x = torch.cat([-4 + normal(12, 2), normal(9, 3), 3.5 + normal(15, 5)]).to(dtype)
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((3,), 2.0)))
    with pyro.plate("components", 3):
        loc = pyro.sample("loc", dist.Normal(torch.tensor([-4.0, 0.0, 4.0]), 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


MODELS: dict[str, Callable[[], Any]] = {
    "eight_schools": eight_schools,
    "funnel": funnel,
    "logistic_regression": logistic_regression,
    "mixture": mixture,
}


def moments(draws: dict[str, np.ndarray]) -> dict[str, dict[str, list[float]]]:
    """Means, standard deviations and their standard errors.

    Args:
        draws: of every site ``(C, N, *shape)``.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for name, values in draws.items():
        flat = {"x": values.reshape(*values.shape[:2], -1)}
        own = {
            "mean": flat["x"].mean((0, 1)),
            "sd": flat["x"].std((0, 1), ddof=1),
            "mcse_mean": az.mcse(flat, method="mean")["x"].values,
            "mcse_sd": az.mcse(flat, method="sd")["x"].values,
        }
        found[name] = {key: [float(f"{x:.6g}") for x in value] for key, value in own.items()}
    return found


def reference(name: str, warmup_steps: int, num_draws: int) -> dict[str, Any]:
    """Run Pyro's NUTS on a model for one chain."""
    pyro.set_rng_seed(0)
    begun = time.process_time()
    kernel = NUTS(MODELS[name], jit_compile=True, ignore_jit_warnings=True)
    mcmc = MCMC(kernel, num_samples=num_draws, warmup_steps=warmup_steps, disable_progbar=True)
    mcmc.run()
    draws = {key: v.numpy() for key, v in mcmc.get_samples(group_by_chain=True).items()}
    settings = {"pyro": pyro.__version__, "torch": torch.__version__.partition("+")[0]}
    sizes = {"warmup_steps": warmup_steps, "draws": num_draws}
    seconds = round(time.process_time() - begun)
    return {**settings, **sizes, "seconds": seconds, "sites": moments(draws)}


def main(arguments: list[str] | None = None) -> None:
    """Run the models that were asked for, and write their moments beside those of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--warmup-steps", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--file", type=Path, default=FILE)
    options = parser.parse_args(arguments)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    found = json.loads(options.file.read_text()) if options.file.exists() else {}
    for name in options.models:
        found[name] = reference(name, options.warmup_steps, options.draws)
        print(f"{name}: {found[name]['seconds']} s")
        options.file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
