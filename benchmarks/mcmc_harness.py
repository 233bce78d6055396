# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""One posterior, several samplers: check that they draw from the same, and count what they draw."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import arviz
import numpy as np
from numpy.typing import NDArray

from .harness import DifferentWorkError, NotHereError

Floats = NDArray[np.floating[Any]]
STANDARD_ERRORS = 5.0


@dataclass(frozen=True)
class Draws:
    """What a sampler gives.

    Args:
        samples: draws ``(C, N, *shape)`` of every site, constrained.
        warmed_up: ``time.perf_counter()`` at the end of the warm-up.
    """

    samples: Mapping[str, Floats]
    warmed_up: float


@dataclass(frozen=True)
class Sampler:
    """A way of drawing from a posterior.

    Args:
        run: takes a seed, warms up, draws, and waits for the device.
        compiles: whether the first run compiles, and is then not one of those that count.
        rounds: in how many rounds it takes part at most.
    """

    run: Callable[[int], Draws]
    compiles: bool = True
    rounds: int = 1000


@dataclass(frozen=True)
class Posterior:
    """What is drawn from, and who draws.

    Args:
        name: name of the table in the README.
        title: the posterior, for a person.
        samplers: makes each sampler; the others are measured against the first.
        rounds: how many rounds are enough.
    """

    name: str
    title: str
    samplers: Mapping[str, Callable[[], Sampler]]
    rounds: int = 10

    def report(self, rounds: int) -> str:
        """Measure, and write a table and how many rounds it took."""
        from .mcmc_tables import table

        rounds = min(rounds, self.rounds)
        return f"{table(measure(self, rounds))}\n\n{rounds} rounds"


@dataclass(frozen=True)
class Run:
    """One run of a sampler.

    Args:
        seconds: with the warm-up.
        processor: the same of processor time, summed over threads.
        drawing: seconds without the warm-up.
        bulk: the least bulk ESS of all values of all sites.
        tail: the least tail ESS.
        r_hat: the largest rank-normalised R-hat, NaN for one chain.
        moments: mean, and standard deviation, of every value of every site ``(2, D)``.
        errors: their Monte Carlo standard errors ``(2, D)``.
    """

    seconds: float
    processor: float
    drawing: float
    bulk: float
    tail: float
    r_hat: float
    moments: Floats
    errors: Floats

    def rate(self, kind: str = "seconds") -> float:
        """Effective draws a second: of a run, of its processor time, of its draws alone."""
        seconds: float = getattr(self, kind)
        return self.bulk / seconds


@dataclass
class Measured:
    """What was measured.

    Args:
        runs: of every sampler, one a round.
        first: seconds of the first run of those that compile.
        missing: why a sampler did not run.
    """

    posterior: Posterior
    runs: dict[str, list[Run]] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def ratio(self, name: str, kind: str = "seconds") -> float:
        """Median of how many times a sampler's rate the first one's is in the same round."""
        first = self.runs[next(iter(self.posterior.samplers))]
        pairs = zip(first, self.runs[name], strict=False)  # some leave after a few rounds
        return statistics.median(a.rate(kind) / b.rate(kind) for a, b in pairs)


def diagnose(samples: Mapping[str, Floats]) -> dict[str, Any]:
    """The part of a :class:`Run` that its draws tell, by ArviZ."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "More chains")  # thousands of short chains are meant
        data = arviz.from_dict(posterior={name: samples[name] for name in sorted(samples)})

    def values(found: Any) -> Floats:
        flat: Floats = np.concatenate([np.ravel(v) for v in found.data_vars.values()])
        return flat

    posterior = data["posterior"]
    moments = [posterior.mean(("chain", "draw")), posterior.std(("chain", "draw"))]
    errors = [arviz.mcse(data, method=method) for method in ("mean", "sd")]
    several = posterior.sizes["chain"] > 1
    return {
        "bulk": float(values(arviz.ess(data, method="bulk")).min()),
        "tail": float(values(arviz.ess(data, method="tail")).min()),
        "r_hat": float(values(arviz.rhat(data)).max()) if several else math.nan,
        "moments": np.stack([values(m) for m in moments]),
        "errors": np.stack([values(e) for e in errors]),
    }


def pooled(runs: Sequence[Run]) -> tuple[Floats, Floats]:
    """Moments over several runs, and their standard errors."""
    moments = np.mean([run.moments for run in runs], axis=0)
    errors = np.sqrt(np.sum([run.errors**2 for run in runs], axis=0)) / len(runs)
    return moments, errors


def check_same_posterior(posterior: Posterior, runs: Mapping[str, Sequence[Run]]) -> None:
    """Refuse samplers whose means or standard deviations differ by more than chance.

    Raises:
        DifferentWorkError: naming the sampler and the difference.
    """
    first, *others = runs
    moments, errors = pooled(runs[first])
    for name in others:
        other_moments, other_errors = pooled(runs[name])
        if moments.shape != other_moments.shape:
            raise DifferentWorkError(
                f"{posterior.name}: {name!r} draws {other_moments.shape[1]} values, and "
                f"{first!r} {moments.shape[1]}"
            )
        apart = abs(moments - other_moments) / np.hypot(errors, other_errors)
        if not (apart <= STANDARD_ERRORS).all():  # false for NaN too
            kind, place = np.unravel_index(np.argmax(apart), apart.shape)
            raise DifferentWorkError(
                f"{posterior.name}: the posterior {('mean', 'standard deviation')[kind]} of value "
                f"{place} is {other_moments[kind, place]:.5g} by {name!r} and "
                f"{moments[kind, place]:.5g} by {first!r}, {apart[kind, place]:.1f} standard "
                "errors apart"
            )


def timed(sampler: Sampler, seed: int) -> tuple[Draws, float, float, float]:
    """A run with its seconds, its processor time, and the seconds without the warm-up."""
    start, processor = time.perf_counter(), time.process_time()
    draws = sampler.run(seed)
    end, processor_end = time.perf_counter(), time.process_time()
    return draws, end - start, processor_end - processor, end - draws.warmed_up


def measure(posterior: Posterior, rounds: int) -> Measured:
    """Let the samplers of a posterior compile, take turns, and compare what they drew."""
    result = Measured(posterior)
    samplers: dict[str, Sampler] = {}
    for name, make in posterior.samplers.items():
        try:
            samplers[name] = make()
        except (NotHereError, ModuleNotFoundError) as reason:
            result.missing[name] = str(reason)
    if next(iter(posterior.samplers)) in result.missing:
        return result
    for name, sampler in samplers.items():
        result.runs[name] = []
        if sampler.compiles:
            result.first[name] = timed(sampler, 0)[1]
    names = list(samplers)
    for i in range(rounds):
        # Each round starts with another sampler, so that none always follows the same one.
        for name in names[i % len(names) :] + names[: i % len(names)]:
            if i < samplers[name].rounds:
                draws, seconds, processor, drawing = timed(samplers[name], 1 + i)
                found = diagnose(draws.samples)
                result.runs[name].append(Run(seconds, processor, drawing, **found))
    check_same_posterior(posterior, result.runs)
    return result
