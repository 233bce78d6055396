# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Markov chains: effective draws a second, beside Pyro's and NumPyro's NUTS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch

from pyro_deepgen.mcmc import HMC, NUTS, ChEES, Kernel

from .mcmc_growth import Growth
from .mcmc_harness import Posterior, Sampler
from .mcmc_memory import Memory
from .mcmc_samplers import Length, ours, pyros

EFFECTS = [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]
ERRORS = [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]

KERNELS: dict[str, type[Kernel]] = {"NUTS": NUTS, "HMC": HMC, "ChEES": ChEES}
SAME_LOOP, AGAIN = "NumPyro NUTS in `jax.jit`", "NumPyro NUTS, `MCMC.run` again"
# Where NumPyro compiles in each run, so many of them are enough.
FEW = 3


@dataclass(frozen=True)
class Program:
    """A posterior, written twice.

    Args:
        title: for a person.
        data: arguments of the models.
        in_pyro: a Pyro model.
        in_numpyro: makes a NumPyro model.
    """

    title: str
    data: Sequence[torch.Tensor]
    in_pyro: Callable[..., Any]
    in_numpyro: Callable[[], Callable[..., Any]]


def eight_schools() -> Program:
    """The non-centred hierarchical model of Rubin's eight schools."""

    def model(y: torch.Tensor, sigma: torch.Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(y.new_full((), 5.0)))
        with pyro.plate("school", len(y)):
            theta = pyro.sample("theta", dist.Normal(y.new_zeros(()), 1.0))
            pyro.sample("y", dist.Normal(mu + tau * theta, sigma), obs=y)

    def in_numpyro() -> Callable[..., Any]:
        import numpyro
        import numpyro.distributions as npdist

        def model(y: Any, sigma: Any) -> None:
            mu = numpyro.sample("mu", npdist.Normal(0.0, 5.0))
            tau = numpyro.sample("tau", npdist.HalfCauchy(5.0))
            with numpyro.plate("school", len(y)):
                theta = numpyro.sample("theta", npdist.Normal(0.0, 1.0))
                numpyro.sample("y", npdist.Normal(mu + tau * theta, sigma), obs=y)

        return model

    data = [torch.tensor(EFFECTS), torch.tensor(ERRORS)]
    return Program("Eight schools, not centred", data, model, in_numpyro)


def logistic_regression(size: int = 1000, dim: int = 20) -> Program:
    """Logistic regression on drawn data."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, dim, generator=generator)
    w = torch.randn(dim, generator=generator)
    y = (torch.rand(size, generator=generator) < torch.sigmoid(x @ w)).float()

    def model(x: torch.Tensor, y: torch.Tensor) -> None:
        zeros = x.new_zeros(x.shape[1])
        w = pyro.sample("w", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
        b = pyro.sample("b", dist.Normal(x.new_zeros(()), x.new_ones(())))
        with pyro.plate("data", x.shape[0]):
            pyro.sample("y", dist.Bernoulli(logits=x @ w + b), obs=y)

    def in_numpyro() -> Callable[..., Any]:
        from .logistic_regression import in_numpyro

        model: Callable[..., Any] = in_numpyro()[0]
        return model

    return Program(f"Logistic regression, {size:,} x {dim}", [x, y], model, in_numpyro)


def samplers(
    program: Program, length: Length, device: str = "cpu", *, compile: bool = True
) -> dict[str, Callable[[], Sampler]]:
    """Those of a posterior, ours first; Pyro's one chain is not for a GPU."""

    def own(kind: type[Kernel]) -> Callable[[], Sampler]:
        def make(model: Callable[..., Any]) -> Kernel:
            return kind(model, compile=compile)

        return lambda: ours(make, program.in_pyro, program.data, length, device)

    def numpyro(in_jit: bool) -> Sampler:
        from .mcmc_numpyro import numpyros

        model, rounds = program.in_numpyro(), 1000 if in_jit else FEW
        return numpyros(model, program.data, length, device, in_jit=in_jit, rounds=rounds)

    def pyro(jit: bool) -> Sampler:
        return pyros(program.in_pyro, program.data, length, jit=jit)

    made = {name: own(kind) for name, kind in KERNELS.items()}
    made |= {SAME_LOOP: lambda: numpyro(True), AGAIN: lambda: numpyro(False)}
    if device == "cpu":
        made |= {
            "Pyro NUTS, one chain": lambda: pyro(False),
            "Pyro NUTS, one chain, `jit_compile=True`": lambda: pyro(True),
        }
    return made


def posterior(
    name: str, program: Program, length: Length, device: str = "cpu", *, compile: bool = True
) -> Posterior:
    """A case of some length."""
    where = ", on a GPU" if device == "cuda" else ""
    title = (
        f"{program.title}{where}: {length.chains:,} chains, {length.warmup} + {length.draws} steps"
    )
    return Posterior(name, title, samplers(program, length, device, compile=compile))


SHORT, LONG = Length(64, 500, 500), Length(1024, 200, 200)
MANY = replace(LONG, chains=10_000)

CASES: dict[str, Callable[[], Posterior | Growth | Memory]] = {
    "mcmc-eight-schools": lambda: posterior("mcmc-eight-schools", eight_schools(), SHORT),
    "mcmc-eight-schools-1024": lambda: posterior("mcmc-eight-schools-1024", eight_schools(), LONG),
    "mcmc-logistic": lambda: posterior("mcmc-logistic", logistic_regression(), SHORT),
    "mcmc-eight-schools-gpu": lambda: posterior(
        "mcmc-eight-schools-gpu", eight_schools(), MANY, "cuda"
    ),
    "mcmc-logistic-gpu": lambda: posterior(
        "mcmc-logistic-gpu", logistic_regression(), MANY, "cuda"
    ),
    "mcmc-chains": lambda: Growth(
        "mcmc-chains", eight_schools().in_pyro, eight_schools().data, (1, 10, 100, 1000, 10_000)
    ),
    "mcmc-memory": lambda: Memory("mcmc-memory", chains=10_000, draws=1000, dim=10),
}
