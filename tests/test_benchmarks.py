# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The benchmark harness: it refuses contestants that do other work, and keeps the page."""

import doctest
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyro
import pytest
import torch

from benchmarks import chorales, deep_markov, flows, iwae, logistic_regression, tables, vae
from benchmarks.cases import CASES
from benchmarks.flows_contestants import Operation, Sizes, contestant, ours
from benchmarks.harness import (
    Case,
    Contestant,
    DifferentWorkError,
    NotHereError,
    check_first_steps,
    check_same_loss,
    make_contestants,
    measure,
)
from benchmarks.tables import rewrite, table

PAGE = Path(vae.__file__).with_name("README.md")


def toy(
    *,
    loss_factor: float = 1.0,
    gradient_sign: float = 1.0,
    timed_offset: float = 0.0,
    rate: float = 0.1,
    start: float = 1.0,
    compared: Literal["all", "loss", "size"] = "all",
    results: int = 3,
) -> Contestant:
    """Descend on |parameter| + noise; the arguments plant faults."""
    rng = np.random.default_rng(0)
    parameter = np.full(3, start, dtype=np.float32)

    def loss(noise: np.ndarray) -> float:
        return loss_factor * float(np.abs(parameter).sum() + 0.1 * noise.sum())

    def run(steps: int) -> float:
        value = 0.0
        for _ in range(steps):
            value = loss(rng.standard_normal(3)) + timed_offset
            parameter[:] -= rate * np.sign(parameter)
        return value

    def evaluate(noise: Sequence[np.ndarray]) -> tuple[float, list[np.ndarray]]:
        return loss(noise[0]), [np.resize(gradient_sign * np.sign(parameter), results)]

    return Contestant(run, evaluate, lambda: [parameter.copy()], compared)


def toy_case(**others: Callable[[], Contestant]) -> Case:
    return Case("toy", "toy", 2, ((3,),), {"ours": toy, **others})


def absent() -> Contestant:
    raise NotHereError("no such device")


def test_equal_contestants_are_measured_in_every_round() -> None:
    result = measure(toy_case(peer=toy), rounds=5)
    assert {name: len(times) for name, times in result.samples.items()} == {"ours": 5, "peer": 5}
    assert set(result.first) == {"ours", "peer"}
    fastest, low, median, high = result.quantiles("peer")
    assert 0 < fastest <= low <= median <= high
    assert result.ratio("ours") == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"loss_factor": 1.001}, "the loss of 'peer'"),
        ({"gradient_sign": -1.0}, "the gradient of 'peer'"),
        ({"start": -1.0}, "starts at other parameters"),
        ({"timed_offset": 5.0}, "the first step of 'peer' has the loss"),
        ({"rate": 0.2}, "the first two steps of 'peer' move"),
        ({"rate": 0.05}, "the first two steps of 'peer' move"),
        ({"rate": 0.0}, "the first two steps of 'peer' move"),
    ],
)
def test_a_contestant_that_does_other_work_is_refused(fault: dict[str, float], said: str) -> None:
    with pytest.raises(DifferentWorkError, match=said):
        measure(toy_case(peer=lambda: toy(**fault)), rounds=1)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"compared": "size", "results": 4}, r"\[3, 4\] parameters and results"),
        ({"compared": "size", "loss_factor": np.inf}, "a loss of"),
        ({"compared": "loss", "loss_factor": 1.001}, "the loss of 'peer'"),
        ({"results": 3, "gradient_sign": 1.01}, "the gradient of 'peer'"),
    ],
)
def test_an_evaluation_that_does_other_work_is_refused(fault: dict[str, float], said: str) -> None:
    case = replace(toy_case(peer=lambda: toy(**fault)), trains=False)
    with pytest.raises(DifferentWorkError, match=said):
        measure(case, rounds=1)


def test_a_contestant_is_compared_in_what_it_has_in_common() -> None:
    other = {"loss_factor": 2.0, "start": 2.0, "compared": "size"}
    form = {"gradient_sign": -1.0, "compared": "loss"}
    case = toy_case(size=lambda: toy(**other), form=lambda: toy(**form))
    assert set(measure(case, rounds=1).samples) == {"ours", "size", "form"}


def test_a_first_contestant_that_does_not_move_is_refused() -> None:
    with pytest.raises(DifferentWorkError, match="'ours' move"):
        check_first_steps(toy_case(), {"ours": 3.0}, [2.9, 3.0, 3.1], {"ours": 0.0})


def test_the_ratio_compares_samples_of_the_same_round() -> None:
    result = measure(toy_case(peer=toy), rounds=3)
    # A machine that slows down by a hundred in the middle changes no ratio.
    result.samples = {"ours": [1.0, 100.0, 10.0], "peer": [3.0, 300.0, 30.0]}
    result.processor = {"ours": [1.0, 1.0, 2.0], "peer": [2.0, 2.0, 4.0]}
    assert result.ratio("peer") == (3.0, 3.0, 3.0)
    assert result.processor_ratio("peer") == 2.0
    assert result.quantiles("peer") == (3.0, 16.5, 30.0, 165.0)


def test_a_missing_peer_is_a_row_that_says_so() -> None:
    result = measure(toy_case(peer=absent), rounds=2)
    assert "| peer | not run: no such device |" in table(result)
    assert list(result.samples) == ["ours"]


def test_a_case_that_cannot_run_here_is_measured_for_nobody() -> None:
    case = Case("toy", "toy", 2, ((3,),), {"ours": absent, "peer": toy})
    rows = table(measure(case, rounds=2)).splitlines()[2:]
    assert [row.split("|")[2].strip() for row in rows] == ["not run: no such device", "not run"]


def test_only_the_text_between_the_markers_changes() -> None:
    other = "<!-- begin b -->\nkept\n<!-- end b -->\n"
    page = f"top\n<!-- begin a -->\nold\n<!-- end a -->\n{other}"
    once = rewrite(page, "a", r"new \1 | row")
    assert once == "top\n<!-- begin a -->\nnew \\1 | row\n<!-- end a -->\n" + other
    assert rewrite(once, "a", "old") == page
    with pytest.raises(ValueError, match=r"add\s+them where"):
        rewrite(page, "c", "new")
    with pytest.raises(ValueError, match="once"):
        rewrite(page + page, "a", "new")


def test_the_page_has_a_place_for_every_case() -> None:
    page = PAGE.read_text(encoding="utf8")
    for name in CASES:
        assert "here" in rewrite(page, name, "here")


def test_the_examples_of_the_tables_run() -> None:
    found = doctest.testmod(tables)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(lambda: vae.case("a", (6, 4, 2), batch=5, steps=1), id="vae"),
        pytest.param(lambda: iwae.case("b", particles=4, batch=3, steps=1), id="iwae"),
        pytest.param(
            lambda: logistic_regression.case("c", size=20, dim=3, steps=1), id="regression"
        ),
    ],
)
def test_the_contestants_that_are_here_have_the_same_loss_and_gradient(
    case: Callable[[], Case],
) -> None:
    with pyro.validation_enabled(False):
        small = case()
        contestants, _ = make_contestants(small)
        assert {"CompiledSVI", "Pyro SVI", "PyTorch by hand"} <= set(contestants)
        check_same_loss(small, contestants)


def test_the_deep_markov_contestants_have_the_same_loss_and_gradient(
    data_file: Callable[[str], Path],
) -> None:
    data_file(chorales.FILE)
    with pyro.validation_enabled(False):
        small = deep_markov.case("d", batch=2, chunk=3, longest=5, steps=1)
        contestants, _ = make_contestants(small)
        ours = [name for name in contestants if name.startswith("CompiledFunction")]
        assert len(ours) == 2
        assert {"Pyro SVI", "PyTorch by hand"} <= set(contestants)
        check_same_loss(small, contestants)


def test_the_chorales_are_padded_and_reversed_within_their_lengths(
    data_file: Callable[[str], Path],
) -> None:
    lengths = np.load(data_file(chorales.FILE))["train_lengths"][:20]
    x, mask, backwards, _ = chorales.chorales(20, 4)
    assert x.shape == (20, lengths.max() + -lengths.max() % 4, 88)
    assert mask.sum(1).tolist() == lengths.tolist()
    assert not x[~mask].any()
    for row, length in enumerate(lengths):
        assert x[row, : int(length)].any(-1).float().mean() > 0.5
        assert backwards[row, : int(length)].flip(0).equal(x[row, : int(length)])


def test_a_case_without_its_data_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in (None, str(tmp_path)):
        monkeypatch.delenv("PYRO_DEEPGEN_DATA", raising=False)
        if folder is not None:
            monkeypatch.setenv("PYRO_DEEPGEN_DATA", folder)
        result = measure(CASES["deep-markov"](), rounds=1)
        assert not result.samples
        assert "jsb_chorales.npz is not in the folder" in next(iter(result.missing.values()))


TINY = Sizes(dims=6, layers=3, hidden=(8, 8), batch=5, bins=4)
FLOW_CASES = [
    (family, operation)
    for family, kind in flows.FAMILIES.items()
    for operation in (
        ("drawing", "fitting") if family == "planar" else ("density", "sampling", "training")
    )
]


def here(case: Case) -> tuple[Case, dict[str, Contestant]]:
    """Leave out what needs a compiler, and the libraries that are missing."""
    names = {n: c for n, c in case.contestants.items() if n != "ours, compiled"}
    case = replace(case, contestants=names)
    return case, make_contestants(case)[0]


@pytest.mark.parametrize(("family", "operation"), FLOW_CASES)
def test_flows_that_are_here_do_the_same_work(family: str, operation: Operation) -> None:
    case, contestants = here(flows.case("f", family, operation, 1, sizes=TINY))
    assert {"ours", "Pyro"} <= set(contestants)
    check_same_loss(case, contestants)
    for made in contestants.values():
        assert np.isfinite(made.run(1))


@pytest.mark.parametrize("operation", ["density", "sampling", "training"])
def test_glow_runs(operation: Operation) -> None:
    case, contestants = here(flows.glow_case("g", operation, 1, batch=4))
    check_same_loss(case, contestants)
    assert np.isfinite(contestants["ours"].run(1))


@pytest.mark.parametrize("operation", ["density", "sampling", "training"])
def test_a_flow_with_another_number_is_refused(operation: Operation) -> None:
    def other() -> Contestant:
        flow = flows.our_flow(flows.FAMILIES["real_nvp"], TINY)
        with torch.no_grad():
            next(p for n, p in flow.named_parameters() if n.endswith("4.bias")).add_(0.01)
        return contestant(ours(flow), operation, x)

    x = torch.randn(TINY.batch, TINY.dims, generator=torch.Generator().manual_seed(1))
    case, _ = here(flows.case("f", "real_nvp", operation, 1, sizes=TINY))
    case = replace(case, contestants={"ours": case.contestants["ours"], "other": other})
    with pytest.raises(DifferentWorkError, match="'other'"):
        check_same_loss(case, make_contestants(case)[0])


@pytest.mark.parametrize("operation", ["training", "fitting"])
def test_a_flow_in_svi_has_the_loss_and_gradient_of_the_flow(operation: Operation) -> None:
    def in_svi() -> Contestant:
        return flows.ours_in_svi(flows.our_flow(flows.FAMILIES["planar"], TINY), operation, x)

    x = torch.randn(TINY.batch, TINY.dims, generator=torch.Generator().manual_seed(1))
    case, _ = here(flows.case("f", "planar", operation, 1, sizes=TINY))
    case = replace(case, contestants={"ours": case.contestants["ours"], "in SVI": in_svi})
    check_same_loss(case, make_contestants(case)[0])
