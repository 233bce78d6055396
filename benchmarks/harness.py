# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""One piece of work, several contestants: check that they do the same, then time them in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3
NOISE_DRAWS, STANDARD_DEVIATIONS = 20, 5.0


class DifferentWorkError(RuntimeError):
    """A contestant that computes something else than the first one."""


class NotHereError(RuntimeError):
    """A contestant that cannot run here: its library or its device is missing."""


class Measurable(Protocol):
    """What has a table in the README."""

    @property
    def title(self) -> str:
        """What is measured, for a person."""

    def report(self, rounds: int) -> str:
        """Measure in so many rounds at most, and write a table and how many they were."""


@dataclass(frozen=True)
class Contestant:
    """A way of doing a case's work.

    Args:
        run: takes so many training steps and returns the last loss, as a number: it has waited
            for the device. In a case that does not train, evaluates so often.
        evaluate: loss, and its gradient for every parameter, where the random draws are made
            from the given standard normal noise. In a case that does not train, the mean of the
            result, and the result.
        parameters: the present parameters, in the order and layout of the case.
        compared: what must be as the first contestant has it. ``"all"``: parameters, loss and
            gradients. ``"loss"``: the loss, where one function has its parameters in another form.
            ``"size"``: the number of parameters and results, where the function itself is another.
    """

    run: Callable[[int], float]
    evaluate: Callable[[Sequence[Array]], tuple[float, list[Array]]]
    parameters: Callable[[], list[Array]]
    compared: Literal["all", "loss", "size"] = "all"


@dataclass(frozen=True)
class Case:
    """What is computed, and who computes it.

    Args:
        name: name of the case's table in the README.
        title: what is computed, for a person.
        steps: training steps in one sample of the time.
        noise_shapes: shape of the noise of every random site.
        contestants: makes each contestant; the others are measured against the first.
        trains: whether a step changes the parameters.
    """

    name: str
    title: str
    steps: int
    noise_shapes: tuple[tuple[int, ...], ...]
    contestants: Mapping[str, Callable[[], Contestant]]
    trains: bool = True

    def report(self, rounds: int) -> str:
        """Measure, and write a table and how many rounds it took."""
        from .tables import table

        return f"{table(measure(self, rounds))}\n\n{rounds} rounds of {self.steps} steps"


@dataclass
class Result:
    """What was measured.

    Args:
        samples: milliseconds a step of every contestant, one number a round.
        processor: the same of processor time, summed over threads. A busy machine lengthens it
            little; more than the elapsed time shows a second thread.
        first: seconds of the first two steps, compilation included: ours compiles in the second.
        missing: why a contestant did not run.
    """

    case: Case
    samples: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def quantiles(self, name: str) -> tuple[float, float, float, float]:
        """Fastest sample, lower quartile, median and upper quartile, in milliseconds."""
        low, middle, high = _quartiles(self.samples[name])
        return min(self.samples[name]), low, middle, high

    def ratio(self, name: str) -> tuple[float, float, float]:
        """Quartiles of the time relative to the first contestant's in the same round."""
        return self._ratio(self.samples, name)

    def processor_ratio(self, name: str) -> float:
        """Median of the processor time relative to the first contestant's in the same round."""
        return self._ratio(self.processor, name)[1]

    def _ratio(self, times: dict[str, list[float]], name: str) -> tuple[float, float, float]:
        reference = times[next(iter(self.case.contestants))]
        return _quartiles([a / b for a, b in zip(times[name], reference, strict=True)])


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def make_contestants(case: Case) -> tuple[dict[str, Contestant], dict[str, str]]:
    """Those that can run here, and why the others cannot."""
    made, missing = {}, {}
    for name, make in case.contestants.items():
        try:
            made[name] = make()
        except (NotHereError, ModuleNotFoundError) as reason:
            missing[name] = str(reason)
    return made, missing


def draw_noise(case: Case, seed: int) -> list[Array]:
    """Standard normal noise for every random site of a case."""
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(s, dtype=np.float32) for s in case.noise_shapes]


def check_same_loss(case: Case, contestants: Mapping[str, Contestant]) -> None:
    """Refuse contestants whose parameters, loss or gradients differ for the same noise.

    Of a contestant that computes another function only the size is compared.

    Raises:
        DifferentWorkError: naming the contestant and the difference.
    """
    noise = draw_noise(case, 0)
    names = list(contestants)
    first = contestants[names[0]]
    start = first.parameters()
    loss, gradients = first.evaluate(noise)
    for name in names[1:]:
        other_loss, other_gradients = contestants[name].evaluate(noise)
        compared = contestants[name].compared
        if compared == "size":
            parameters = contestants[name].parameters()
            sizes = [_size(start), _size(gradients)]
            other_sizes = [_size(parameters), _size(other_gradients)]
            if sizes != other_sizes or not np.isfinite(other_loss):
                raise DifferentWorkError(
                    f"{case.name}: {name!r} has {other_sizes} parameters and results, and a loss "
                    f"of {other_loss:.8g}; {names[0]!r} has {sizes}"
                )
            continue
        if abs(other_loss - loss) > LOSS_TOLERANCE * abs(loss):
            raise DifferentWorkError(
                f"{case.name}: for the same noise the loss of {name!r} is {other_loss:.8g}, that "
                f"of {names[0]!r} {loss:.8g}"
            )
        if compared == "loss":
            continue
        pairs = zip(start, contestants[name].parameters(), strict=True)
        if not all(a.shape == b.shape and np.array_equal(a, b) for a, b in pairs):
            raise DifferentWorkError(f"{case.name}: {name!r} starts at other parameters")
        for i, (ours, other) in enumerate(zip(gradients, other_gradients, strict=True)):
            size = float(np.linalg.norm(ours))
            distance = float(np.linalg.norm(ours - other))
            if distance > GRADIENT_TOLERANCE * size:
                raise DifferentWorkError(
                    f"{case.name}: the gradient of {name!r} for parameter {i} is {distance:.3g} "
                    f"away from that of {names[0]!r}, whose norm is {size:.3g}"
                )


def _size(arrays: Sequence[Array]) -> int:
    return sum(a.size for a in arrays)


def check_first_steps(
    case: Case,
    losses: Mapping[str, float],
    spread: Sequence[float],
    moved: Mapping[str, float],
) -> None:
    """Refuse contestants whose timed steps compute another loss, or another update.

    Args:
        case: the case.
        losses: loss of each contestant's first step, with its own random draws.
        spread: losses of the first contestant for several draws, all at the first parameters.
        moved: largest change of a parameter in the first two steps.

    Raises:
        DifferentWorkError: naming the contestant and the difference.
    """
    mean = statistics.fmean(spread)
    # Summing in single precision moves a loss too, where the noise hardly does.
    tolerance = STANDARD_DEVIATIONS * statistics.stdev(spread) + LOSS_TOLERANCE * abs(mean)
    first = next(iter(moved))
    for name, loss in losses.items():
        if abs(loss - mean) > tolerance:
            raise DifferentWorkError(
                f"{case.name}: the first step of {name!r} has the loss {loss:.8g}, and that of "
                f"{first!r} is {mean:.8g} within {tolerance:.3g}"
            )
        if moved[name] <= 0 or abs(moved[name] / moved[first] - 1) > 0.02:
            raise DifferentWorkError(
                f"{case.name}: the first two steps of {name!r} move a parameter by at most "
                f"{moved[name]:.4g}, that of {first!r} by {moved[first]:.4g}"
            )


def measure(case: Case, rounds: int) -> Result:
    """Check the contestants of a case, warm them up, and time them in turn."""
    contestants, missing = make_contestants(case)
    result = Result(case, missing=missing)
    if next(iter(case.contestants)) in missing:
        return result
    if case.trains:
        check_same_loss(case, contestants)
        reference = next(iter(contestants.values()))
        spread = [reference.evaluate(draw_noise(case, 1 + i))[0] for i in range(NOISE_DRAWS)]
    losses, moved = {}, {}
    for name, contestant in contestants.items():
        before = contestant.parameters()
        start = time.perf_counter()
        losses[name] = contestant.run(1)
        contestant.run(1)
        result.first[name] = time.perf_counter() - start
        after = contestant.parameters()
        moved[name] = max(float(abs(b - a).max()) for a, b in zip(before, after, strict=True))
    if case.trains:
        same = [name for name in contestants if contestants[name].compared != "size"]
        check_first_steps(case, {name: losses[name] for name in same}, spread, moved)
    else:  # what is timed is itself what is compared, compiled by now
        check_same_loss(case, contestants)
    for contestant in contestants.values():
        contestant.run(case.steps)
    names = list(contestants)
    result.samples = {name: [] for name in names}
    result.processor = {name: [] for name in names}
    for i in range(rounds):
        # Each round starts with another contestant, so that none always follows the same one.
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start, processor_start = time.perf_counter(), time.process_time()
            contestants[name].run(case.steps)
            seconds = time.perf_counter() - start
            processor_seconds = time.process_time() - processor_start
            result.samples[name].append(1e3 * seconds / case.steps)
            result.processor[name].append(1e3 * processor_seconds / case.steps)
    return result
