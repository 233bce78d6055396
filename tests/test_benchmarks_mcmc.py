# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of samplers: who draws from something else is refused, and rates are counted."""

import doctest
import time
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks import mcmc, mcmc_tables
from benchmarks.harness import DifferentWorkError, NotHereError
from benchmarks.mcmc_growth import Growth
from benchmarks.mcmc_harness import (
    Draws,
    Measured,
    Posterior,
    Run,
    Sampler,
    check_same_posterior,
    diagnose,
    measure,
    pooled,
)
from benchmarks.mcmc_memory import Memory
from benchmarks.mcmc_samplers import Length
from benchmarks.mcmc_tables import table

NAMES = ["NUTS", "HMC", "ChEES"]


def toy(
    *,
    mean: float = 0.0,
    scale: float = 1.0,
    correlation: float = 0.0,
    dim: int = 2,
    chains: int = 8,
    compiles: bool = True,
    rounds: int = 1000,
) -> Sampler:
    """Draw from a normal distribution, each chain an autoregression; the arguments plant faults."""

    def run(seed: int) -> Draws:
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((chains, 400, dim))
        for i in range(1, x.shape[1]):
            x[:, i] = correlation * x[:, i - 1] + np.sqrt(1 - correlation**2) * x[:, i]
        return Draws({"x": mean + scale * x, "a": rng.standard_normal((chains, 400))}, 0.0)

    return Sampler(run, compiles, rounds)


def toy_case(**others: Callable[[], Sampler]) -> Posterior:
    return Posterior("toy", "toy", {"ours": toy, **others})


def run_of(seconds: float, bulk: float = 100.0) -> Run:
    return Run(
        seconds, 2 * seconds, seconds / 2, bulk, bulk, 1.0, np.zeros((2, 1)), np.ones((2, 1))
    )


def test_equal_samplers_are_measured_in_every_round() -> None:
    few = {"few": lambda: toy(rounds=1, compiles=False, chains=1)}
    result = measure(toy_case(peer=lambda: toy(correlation=0.9), **few), rounds=3)
    assert {name: len(runs) for name, runs in result.runs.items()} == {
        "ours": 3,
        "peer": 3,
        "few": 1,
    }
    assert set(result.first) == {"ours", "peer"}
    row = table(result).splitlines()[-1]
    assert row.startswith("| few | ")
    assert row.endswith("| one chain | none |")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"mean": 0.2}, "the posterior mean of value [12] is .* by 'peer'"),
        ({"scale": 1.1}, "the posterior standard deviation of value [12] is .* by 'peer'"),
        ({"mean": np.nan}, "standard errors apart"),
        ({"dim": 3}, "'peer' draws 4 values, and 'ours' 3"),
    ],
)
def test_a_sampler_of_another_posterior_is_refused(fault: dict[str, float], said: str) -> None:
    with pytest.raises(DifferentWorkError, match=said):
        measure(toy_case(peer=lambda: toy(**fault)), rounds=2)


def test_a_slow_sampler_may_be_as_far_away_as_its_standard_error_says() -> None:
    # The shift that is refused above is within the error of these few effective draws.
    slow = lambda: toy(mean=0.2, correlation=0.98)  # noqa: E731
    assert "peer" in measure(toy_case(peer=slow), rounds=1).runs


def test_effective_draws_are_those_of_the_slowest_value() -> None:
    rng = np.random.default_rng(0)
    slow = toy(correlation=0.9).run(0).samples["x"]
    found = diagnose({"fast": rng.standard_normal((8, 400, 5)), "slow": slow})
    n = slow.shape[0] * slow.shape[1]
    # An autoregression has (1 - r) / (1 + r) effective draws a draw, about 1 in 19 here.
    assert 0.6 < found["bulk"] / (n * 0.1 / 1.9) < 1.6
    assert found["moments"].shape == found["errors"].shape == (2, 7)
    expected = 1 / np.sqrt(n)
    assert 0.7 * expected < found["errors"][0, 0] < 1.4 * expected


def test_pooling_runs_narrows_the_error() -> None:
    moments, errors = pooled([run_of(1.0)] * 4)
    assert moments.tolist() == [[0.0], [0.0]]
    assert errors.tolist() == [[0.5], [0.5]]
    check_same_posterior(toy_case(), {"ours": [run_of(1.0)]})


def test_the_ratio_compares_runs_of_the_same_round() -> None:
    # A machine that slows down by a hundred in the middle changes no ratio, nor does a sampler
    # that has left before.
    ours = [run_of(1.0), run_of(100.0), run_of(10.0)]
    peer = [run_of(3.0), run_of(300.0)]
    result = Measured(toy_case(peer=toy), {"ours": ours, "peer": peer})
    assert result.ratio("ours") == 1.0
    assert [result.ratio("peer", kind) for kind in ("seconds", "processor", "drawing")] == [3.0] * 3


def test_the_time_of_the_draws_begins_after_the_warm_up() -> None:
    def run(seed: int) -> Draws:
        time.sleep(0.02)
        end = time.perf_counter()
        return Draws(toy().run(seed).samples, end)

    (only,) = measure(Posterior("toy", "toy", {"ours": lambda: Sampler(run)}), 1).runs["ours"]
    assert only.drawing <= only.seconds - 0.02
    assert only.rate("drawing") > only.rate()


def absent() -> Sampler:
    raise NotHereError("no such device")


def test_a_missing_peer_is_a_row_that_says_so() -> None:
    rows = toy_case(peer=absent).report(1).splitlines()
    assert rows[3].startswith("| peer | not run: no such device |")
    assert len({row.count("|") for row in rows[:4]}) == 1
    assert rows[-1] == "1 rounds"
    nobody = Posterior("toy", "toy", {"ours": absent, "peer": toy}).report(1).splitlines()
    assert [row.split("|")[2].strip() for row in nobody[2:4]] == [
        "not run: no such device",
        "not run",
    ]


def test_the_examples_of_the_tables_run() -> None:
    found = doctest.testmod(mcmc_tables)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [
        pytest.param(mcmc.eight_schools, id="schools"),
        pytest.param(lambda: mcmc.logistic_regression(50, 2), id="regression"),
    ],
)
def test_the_samplers_that_are_here_draw_from_the_same(
    program: Callable[[], mcmc.Program],
) -> None:
    case = mcmc.posterior("a", program(), Length(8, 60, 60), compile=False)
    chosen = {name: case.samplers[name] for name in ("HMC", "Pyro NUTS, one chain")}
    result = measure(Posterior("a", case.title, chosen), rounds=1)
    assert all(
        len(runs) == 1 and runs[0].drawing < runs[0].seconds for runs in result.runs.values()
    )


def test_all_samplers_have_a_row_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    case = mcmc.CASES["mcmc-eight-schools-gpu"]()
    text = case.report(1)
    assert all(f"| {name} | not run: no CUDA device |" in text for name in NAMES)


def test_a_leapfrog_step_of_more_chains_takes_more_time_but_not_for_each() -> None:
    program = mcmc.eight_schools()
    growth = Growth("g", program.in_pyro, program.data, (1, 2000), draws=2, compile=False)
    one, many = (growth.microseconds(chains, 2)[0] for chains in growth.chains)
    assert min(many) < 1000 * max(one)
    rows = Growth("g", program.in_pyro, program.data, (1,), 2, 1, False).report(5).splitlines()
    assert rows[2].startswith("| 1 | ")
    assert rows[-1] == "1 rounds of 2 draws"


def test_the_memory_is_measured_in_a_process_of_its_own() -> None:
    memory = Memory("m", chains=2000, draws=1000, dim=10, kernels=("MALA",), compile=False)
    before, kept = memory.peak("MALA", "kept")
    draws = 4 * memory.chains * memory.draws * memory.dim
    assert draws < kept - before < 4 * draws
    before, streamed = memory.peak("MALA", "streamed")
    assert streamed - before < draws
    with pytest.raises(RuntimeError, match="NoSuch"):
        memory.peak("NoSuch", "kept")
