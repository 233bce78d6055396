# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Random work by several contestants: check that what they draw or learn agrees, then time them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

import numpy as np

from .harness import Array, DifferentWorkError, NotHereError

STANDARD_ERRORS = 5.0


@dataclass(frozen=True)
class Worker:
    """A way of doing a race's work.

    Args:
        work: does one sample of it, and waits for the device.
        outcome: what it comes to, ``(repeats, D)``: independent repetitions, with random numbers of
            their own, whose means must agree with the first worker's. Called before any timing.
    """

    work: Callable[[], None]
    outcome: Callable[[], Array]


@dataclass(frozen=True)
class Race:
    """What is done, and who does it.

    Args:
        name: name of the table in the README.
        title: for a person.
        unit: what is counted.
        amount: how many of them one sample is.
        workers: makes each worker; the others are measured against the first.
        rounds: how many rounds are enough.
        per_unit: whether the table says seconds a unit, and not units a second.
    """

    name: str
    title: str
    unit: str
    amount: float
    workers: Mapping[str, Callable[[], Worker]]
    rounds: int = 10
    per_unit: bool = True

    def report(self, rounds: int) -> str:
        """Measure, and write a table and how many rounds it took."""
        rounds = min(rounds, self.rounds)
        return f"{table(measure(self, rounds))}\n\n{rounds} rounds"


@dataclass
class Times:
    """What was measured.

    Args:
        seconds: of every worker, one number a round.
        processor: the same of processor time, summed over threads.
        first: seconds of the first sample, compilation included.
        missing: why a worker did not run.
    """

    race: Race
    seconds: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def ratio(self, name: str) -> float:
        """Median of the processor time relative to the first worker's in the same round."""
        first = self.processor[next(iter(self.race.workers))]
        return median(a / b for a, b in zip(self.processor[name], first, strict=True))


def check_outcomes(race: Race, outcomes: Mapping[str, Array]) -> None:
    """Refuse workers whose mean outcomes differ by more than chance.

    Raises:
        DifferentWorkError: naming the worker and the difference.
    """
    names = list(outcomes)
    first = np.asarray(outcomes[names[0]], dtype=np.float64)
    for name in names[1:]:
        other = np.asarray(outcomes[name], dtype=np.float64)
        if other.shape[1:] != first.shape[1:]:
            raise DifferentWorkError(
                f"{race.name}: {name!r} comes to {other.shape[1:]} numbers, and {names[0]!r} to "
                f"{first.shape[1:]}"
            )
        errors = [o.std(0, ddof=1) / len(o) ** 0.5 for o in (first, other)]
        error = np.hypot(*errors) + 1e-6 * np.abs(first.mean(0)).max()
        apart = abs(first.mean(0) - other.mean(0)) / error
        if not (apart <= STANDARD_ERRORS).all():  # false for NaN too
            place = int(np.argmax(apart))
            raise DifferentWorkError(
                f"{race.name}: number {place} is {other.mean(0)[place]:.5g} by {name!r} and "
                f"{first.mean(0)[place]:.5g} by {names[0]!r}, {apart[place]:.1f} standard errors "
                "apart"
            )


def measure(race: Race, rounds: int) -> Times:
    """Check the workers of a race, warm them up, and time them in turn."""
    result, workers = Times(race), dict[str, Worker]()
    for name, make in race.workers.items():
        try:
            workers[name] = make()
        except (NotHereError, ModuleNotFoundError) as reason:
            result.missing[name] = str(reason)
    if next(iter(race.workers)) in result.missing:
        return result
    check_outcomes(race, {name: worker.outcome() for name, worker in workers.items()})
    for name, worker in workers.items():
        start = time.perf_counter()
        worker.work()
        result.first[name] = time.perf_counter() - start
        result.seconds[name], result.processor[name] = [], []
    names = list(workers)
    for i in range(rounds):
        # Each round starts with another worker, so that none always follows the same one.
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start, processor = time.perf_counter(), time.process_time()
            workers[name].work()
            result.seconds[name].append(time.perf_counter() - start)
            result.processor[name].append(time.process_time() - processor)
    return result


def table(times: Times) -> str:
    """One row a worker.

    Example:
        >>> race = Race("toy", "nothing", "epoch", 2, {"a": print, "b": print})
        >>> seconds = {"a": [1.0, 1.0], "b": [3.0, 3.0]}
        >>> print(table(Times(race, seconds, seconds, {"a": 2.0, "b": 3.0})).splitlines()[-1])
        | b | 1.5 | 1.5 - 1.5 | 1.5 | 3.00 | 3.0 s |
    """
    race = times.race
    article = "an" if race.unit[0] in "aeiou" else "a"
    quantity = f"seconds {article} {race.unit}" if race.per_unit else f"{race.unit}s a second"
    columns = (
        "contestant",
        f"{quantity}: median",
        "quartiles",
        "by processor time",
        "processor time relative to the first row",
        "first sample",
    )
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for name in race.workers:
        if name in times.missing:
            cells = [f"not run: {times.missing[name]}"]
        elif name not in times.seconds:
            cells = ["not run"]
        else:
            samples = times.seconds[name]
            low, _, high = (
                quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else (3 * samples)
            )
            cells = [
                _count(race, median(samples)),
                " - ".join(
                    _count(race, s) for s in ((low, high) if race.per_unit else (high, low))
                ),
                _count(race, median(times.processor[name])),
                f"{times.ratio(name):.2f}",
                f"{times.first[name]:.1f} s",
            ]
        cells += [""] * (len(columns) - 1 - len(cells))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _count(race: Race, seconds: float) -> str:
    """Seconds a unit, or units a second, with three digits."""
    value = seconds / race.amount if race.per_unit else race.amount / seconds
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}"


@dataclass(frozen=True)
class Races:
    """Several races in one table of the README, one after the other.

    Args:
        name: name of the table in the README.
        title: for a person.
        races: each with its title.
    """

    name: str
    title: str
    races: Sequence[Race]

    def report(self, rounds: int) -> str:
        """Measure them, and write a table of each."""
        return "\n\n".join(f"{race.title}:\n\n{race.report(rounds)}" for race in self.races)
