# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The cases with autoregressive distributions: contestants do the same work, in small."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import autoregressive
from benchmarks.cases import CASES
from benchmarks.flows_contestants import Operation, contestant
from benchmarks.harness import Case, Contestant, DifferentWorkError, check_same_loss, measure
from benchmarks.harness import make_contestants as make
from benchmarks.tables import rewrite, table

PAGE = Path(autoregressive.__file__).with_name("README.md")
NAIVE = "ours, a pass of the whole network for each variable"
BY_HAND = "PyTorch by hand, variable by variable"
PYRO = "Pyro's `AutoRegressiveNN`"


def small(family: str) -> autoregressive.Family:
    return replace(autoregressive.FAMILIES[family], dims=6, hidden=8)


def here(case: Case) -> tuple[Case, dict[str, Contestant]]:
    """Leave out what needs a compiler, and the libraries that are missing."""
    names = {n: c for n, c in case.contestants.items() if n != "ours, compiled"}
    case = replace(case, contestants=names)
    return case, make(case)[0]


@pytest.mark.parametrize(
    ("family", "operation", "others"),
    [
        ("made", "density", {PYRO}),
        ("made", "training", {PYRO}),
        ("made", "sampling", {PYRO, NAIVE}),
        ("nade", "density", {BY_HAND}),
        ("nade", "training", {BY_HAND}),
        ("nade", "sampling", {BY_HAND, NAIVE}),
        ("rnade", "sampling", {NAIVE}),
    ],
)
def test_who_is_here_does_the_same_work(
    family: str, operation: Operation, others: set[str]
) -> None:
    case, contestants = here(autoregressive.case("a", small(family), operation, 1, batch=5))
    assert {"ours", *others} <= set(contestants)
    check_same_loss(case, contestants)
    for made in contestants.values():
        assert np.isfinite(made.run(1))


@pytest.mark.parametrize("operation", ["density", "sampling", "training"])
def test_a_model_with_another_number_is_refused(operation: Operation) -> None:
    kind = small("nade")
    x = torch.bernoulli(torch.full((40, 6), 0.3), generator=torch.Generator().manual_seed(1))

    def other() -> Contestant:
        model = autoregressive.our_model(kind)
        with torch.no_grad():
            next(p for n, p in model.named_parameters() if n == "out_bias").add_(0.5)
        return contestant(autoregressive.ours(model), operation, x)

    case, _ = here(autoregressive.case("a", kind, operation, 1, batch=40))
    case = replace(case, contestants={"ours": case.contestants["ours"], "other": other})
    with pytest.raises(DifferentWorkError, match="'other'"):
        check_same_loss(case, make(case)[0])


@pytest.mark.parametrize("family", ["made", "nade"])
def test_ours_in_svi_has_the_loss_and_gradient_of_ours(family: str) -> None:
    kind = small(family)
    x = torch.bernoulli(torch.full((5, 6), 0.3), generator=torch.Generator().manual_seed(1))

    def in_svi() -> Contestant:
        made: Callable[..., Contestant] = autoregressive.ours_in_svi
        return made(autoregressive.our_model(kind), "training", x)

    case, _ = here(autoregressive.case("a", kind, "training", 1, batch=5))
    case = replace(case, contestants={"ours": case.contestants["ours"], "in SVI": in_svi})
    check_same_loss(case, make(case)[0])


def test_the_page_has_a_place_for_every_case() -> None:
    page = PAGE.read_text(encoding="utf8")
    for name in autoregressive.cases():
        assert name in CASES
        assert "here" in rewrite(page, name, "here")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_its_rows_say_so() -> None:
    case = autoregressive.cases()["autoregressive-made-training-gpu"]()
    rows = table(measure(case, rounds=1)).splitlines()[2:]
    assert len(rows) == 4
    assert all("not run: no CUDA device" in row for row in rows[:1])
    assert all("not run" in row for row in rows)
