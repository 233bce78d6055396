# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of Boltzmann machines: who does something else is refused."""

import doctest
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import boltzmann, boltzmann_harness
from benchmarks.boltzmann_harness import Race, Times, Worker, check_outcomes, measure, table
from benchmarks.boltzmann_peers import ByHand, ByHandFromHidden, by_uniform
from benchmarks.harness import DifferentWorkError, NotHereError

TINY = boltzmann.Size(
    visible=20,
    hidden=12,
    data=60,
    batch=20,
    chains=(5, 40),
    updates=(3, 2),
    annealed=60,
    temperatures=10,
    compile=False,
)


def toy(mean: float = 0.0, dim: int = 3) -> Callable[[], Worker]:
    generator = np.random.default_rng(int(1000 * abs(mean)) + dim)

    def outcome() -> Any:
        return mean + generator.standard_normal((16, dim)).astype(np.float32)

    return lambda: Worker(lambda: None, outcome)


def race(**others: Callable[[], Worker]) -> Race:
    return Race("toy", "toy", "epoch", 2, {"ours": toy(), **others}, rounds=3)


def test_equal_workers_are_timed_in_every_round() -> None:
    times = measure(race(peer=toy(0.001)), 2)
    assert [len(times.seconds[name]) for name in ("ours", "peer")] == [2, 2]
    assert times.ratio("ours") == 1.0 and set(times.first) == {"ours", "peer"}


@pytest.mark.parametrize(
    ("fault", "said"), [((3.0, 3), "standard errors apart"), ((0.001, 2), "comes to")]
)
def test_a_worker_that_does_something_else_is_refused(fault: Any, said: str) -> None:
    with pytest.raises(DifferentWorkError, match=said):
        measure(race(peer=toy(*fault)), 1)


def absent() -> Worker:
    raise NotHereError("no such library")


def test_a_missing_worker_is_a_row_that_says_so() -> None:
    rows = race(peer=absent).report(1).splitlines()
    assert rows[3].startswith("| peer | not run: no such library |")
    assert len({row.count("|") for row in rows[:4]}) == 1
    nobody = Race("toy", "toy", "epoch", 1, {"ours": absent, "peer": toy()}).report(1)
    assert "| peer | not run |" in nobody


def test_the_table_counts_units() -> None:
    seconds = {"a": [1.0, 2.0, 4.0], "b": [2.0, 4.0, 8.0]}
    fast = Race("toy", "toy", "update", 1000, {"a": absent, "b": absent}, per_unit=False)
    first, second = table(Times(fast, seconds, seconds, {"a": 0.0, "b": 0.0})).splitlines()[2:]
    assert first.startswith("| a | 500 | 333 - 667 | 500 | 1.00 |")
    assert second.startswith("| b | 250 | 167 - 333 | 250 | 2.00 |")
    assert doctest.testmod(boltzmann_harness).failed == 0


# ---------------------------------------------------------------- the real ones, tiny


@pytest.mark.parametrize(
    "make", [boltzmann.training, boltzmann.annealing], ids=["training", "annealing"]
)
def test_all_contestants_do_the_same(make: Callable[[boltzmann.Size], Race]) -> None:
    tiny = make(TINY)
    times = measure(tiny, 1)
    here = set(tiny.workers) - set(times.missing)
    assert len(here) >= 4 and set(times.missing) <= {"scikit-learn `BernoulliRBM`", "rbms"}
    assert all(times.processor[name][0] > 0 for name in here)


def test_gibbs_updates_of_all_contestants_have_one_law() -> None:
    text = boltzmann.gibbs(TINY).report(1)
    assert "5 chains:" in text and "40 chains:" in text and text.count("not run") <= 4


class Flipped(ByHand):
    """A planted fault: the negative phase is added."""

    def step(self, v: torch.Tensor) -> None:
        super().step(v)
        negative = torch.sigmoid(self.chains @ self.w + self.c)
        self.w.addmm_(self.chains.T, negative, alpha=2 * self.rate / len(v))


@pytest.mark.parametrize("kind", [Flipped, ByHandFromHidden])
def test_another_gradient_is_found(kind: type[ByHand], monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for name, cls in (("hand", ByHand), ("other", kind)):
        start = boltzmann.start_of(TINY, 0.01)
        rows = []
        for _ in range(boltzmann.REPEATS):
            worker = cls(start, TINY.batch, 0.5, by_uniform)
            for batch in boltzmann.images(TINY).split(TINY.batch):
                worker.step(batch)
            rows.append(boltzmann.summary(start, worker.parameters()))
        found[name] = np.stack(rows)
    if kind is Flipped:
        with pytest.raises(DifferentWorkError):
            check_outcomes(race(), found)
    else:
        check_outcomes(race(), found)


def test_there_is_a_row_for_a_gpu_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    text = boltzmann.training(TINY, "cuda").report(1)
    assert "| CompiledSVI | not run: no CUDA device |" in text
