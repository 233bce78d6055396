# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The case that draws images pixel by pixel: its draws are those of passes, and it has a place."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import pixel_sampling
from benchmarks.cases import CASES
from benchmarks.harness import DifferentWorkError
from benchmarks.pixel_sampling import PixelSampling, drawn_as_by_passes
from benchmarks.tables import rewrite
from pyro_deepgen.autoregressive import (
    CategoricalOutput,
    GatedPixelCNN,
    LogisticMixtureOutput,
    PixelCNN,
    PixelRNN,
)
from pyro_deepgen.autoregressive.pixel_walk import ConvolutionSteps

PAGE = Path(pixel_sampling.__file__).with_name("README.md")
MODELS: dict[str, Any] = {
    "cnn": lambda: PixelCNN((1, 5, 5), num_channels=8),
    "classes": lambda: PixelCNN((2, 4, 4), CategoricalOutput(3), num_channels=8),
    "mixture": lambda: GatedPixelCNN((3, 4, 4), LogisticMixtureOutput(2), num_channels=6),
    "rnn": lambda: PixelRNN((1, 5, 4), num_units=4),
}


@pytest.mark.parametrize("name", MODELS)
def test_draws_are_those_of_passes(name: str) -> None:
    model = MODELS[name]().eval().requires_grad_(False)
    assert drawn_as_by_passes(name, model, 30).shape == (30, *model.event_shape)


def test_other_draws_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConvolutionSteps, "new_row", lambda self: self.current.zero_())
    model = MODELS["cnn"]().eval().requires_grad_(False)
    with pytest.raises(DifferentWorkError, match="cnn: passes of the whole network draw"):
        drawn_as_by_passes("cnn", model, 30)


def test_the_table_has_a_row_for_each_model_and_number_of_images() -> None:
    few = {name: MODELS[name] for name in ("cnn", "mixture")}
    rows = PixelSampling("p", few, images=(1, 2)).report(1).splitlines()
    assert [row.split("|")[1:4] for row in rows[2:6]] == [
        [f" {name} ", f" {size} ", f" {num} "]
        for name, size in (("cnn", 25), ("mixture", 48))
        for num in (1, 2)
    ]
    assert rows[-1] == "1 rounds"


def test_the_page_has_a_place() -> None:
    page = PAGE.read_text(encoding="utf8")
    for name in pixel_sampling.CASES:
        assert name in CASES
        assert "here" in rewrite(page, name, "here")
