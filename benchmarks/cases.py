# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The cases, each with the name of its table in the README."""

from __future__ import annotations

from collections.abc import Callable

from . import (
    autoregressive,
    boltzmann,
    deep_markov,
    flows,
    iwae,
    logistic_regression,
    mcmc,
    pixel_sampling,
    vae,
)
from .harness import Measurable

SMALL, LARGE = (20, 32, 5), (784, 400, 20)

CASES: dict[str, Callable[[], Measurable]] = {
    "vae-small": lambda: vae.case("vae-small", SMALL, steps=50),
    "vae-large": lambda: vae.case("vae-large", LARGE, steps=10),
    "iwae": lambda: iwae.case("iwae", steps=2),
    "logistic-regression": lambda: logistic_regression.case("logistic-regression", steps=20),
    "deep-markov": lambda: deep_markov.case("deep-markov", steps=1),
    "vae-small-gpu": lambda: vae.case("vae-small-gpu", SMALL, steps=50, device="cuda"),
    **flows.cases(),
    **autoregressive.cases(),
    **pixel_sampling.CASES,
    **mcmc.CASES,
    **boltzmann.CASES,
}
