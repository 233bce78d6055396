# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The script of PixelCNN and PixelRNN runs, is read back, and names what has not been run."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.reproduce import pixel_mnist
from benchmarks.reproduce.runs.binary_mnist import load, nats
from pyro_deepgen.autoregressive import PixelCNN


def test_it_trains_once_and_then_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_file: Callable[[str], Path]
) -> None:
    data_file("mnist.npz")
    call = ["--preset", "short", "--device", "cpu", "--folder", str(tmp_path / "runs")]
    call += ["--results", str(tmp_path)]
    pixel_mnist.main(call)
    page = tmp_path / "pixel_mnist-short.md"
    written = page.read_text()
    assert "not run" not in written
    assert "nan" not in written
    assert written.count("exact draws") == 2  # the upper halves come before the lower ones
    assert page.with_suffix(".json").is_file()
    assert len(list((tmp_path / "runs" / "short").glob("*.row.json"))) == 2
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 4
    assert all(f"({picture.name})" in written for picture in pictures)
    columns = {line.count("|") for line in written.splitlines() if line.startswith("|")}
    assert len(columns) == 1
    monkeypatch.delattr(pixel_mnist, "train")
    pixel_mnist.main(call)
    assert page.read_text() == written


def test_the_page_names_the_published_sizes_as_not_run() -> None:
    lines = pixel_mnist.table({}, SimpleNamespace(preset="reproduction"))  # type: ignore[arg-type]
    rows = [line for line in lines if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert [row.split("|")[1].strip() for row in rows[2:]] == [
        "PixelCNN",
        "PixelRNN",
        "PixelCNN, `--preset paper`",
        "PixelRNN, `--preset paper`",
    ]
    assert all(row.split("|")[3].strip() == "not run" for row in rows[2:])
    assert "7 layers, 16 units" in rows[-1]
    assert "79.20" in rows[-1]


@pytest.mark.parametrize("preset", pixel_mnist.PRESETS)
@pytest.mark.parametrize("name", pixel_mnist.CLASSES)
def test_networks_have_the_sizes_that_the_page_names(name: str, preset: str) -> None:
    learning = pixel_mnist.PRESETS[preset].rows[name]
    model = pixel_mnist.make(name, learning)
    layers = model.blocks if name == "PixelCNN" else model.recurrent
    sizes = list(learning.sizes.values())
    assert len(layers) == sizes[0]
    width = len(model.first.out_labels if name == "PixelCNN" else layers[0].out_labels)
    assert width == sizes[1]


def test_the_rate_falls_at_each_step_and_goes_on_where_it_was() -> None:
    def made() -> torch.optim.Adam:
        parameter = torch.nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.Adam([parameter], 0.1)
        pixel_mnist.fall_to_zero(optimizer, 4)
        return optimizer

    def rates(optimizer: torch.optim.Adam, steps: int) -> list[float]:
        found = []
        for _ in range(steps):
            optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
            optimizer.step()
            found.append(optimizer.param_groups[0]["lr"])
        return found

    first, second = made(), made()
    found = rates(first, 2)
    second.load_state_dict(first.state_dict())
    wave = [0.05 * (1 + math.cos(math.pi * step / 4)) for step in range(5)]
    assert found + rates(second, 3) == pytest.approx(wave)


def test_completions_are_exact_and_drawn(tmp_path: Path) -> None:
    asked: list[torch.Tensor] = []

    class Watched(PixelCNN):
        def impute(self, x: torch.Tensor, mask: torch.Tensor, num_particles: int = 100) -> Any:
            asked.append(mask)
            return super().impute(x, mask, num_particles)

    model = Watched((1, 28, 28), num_blocks=1, num_channels=4).eval()
    x = torch.bernoulli(torch.full((2, 1, 28, 28), 0.3))
    path = tmp_path / "halves.png"
    assert pixel_mnist.draw_completions(model, x, path, count=1) == "exact"
    assert path.stat().st_size > 0
    (mask,) = asked
    assert mask.sum(1).tolist() == [28] * 14 + [0] * 14


def test_the_split_is_the_same_whatever_its_numbers(data_file: Callable[[str], Path]) -> None:
    data_file("mnist.npz")
    cpu = torch.device("cpu")
    x, valid, test = load(300, 200, 100, cpu)
    fewer = load(300, 100, 50, cpu)
    assert x.shape == (300, 784)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(fewer[0], x)
    assert (len(valid), len(test), len(fewer[1]), len(fewer[2])) == (200, 100, 100, 50)


def test_nats_are_minus_the_log_probability() -> None:
    model = PixelCNN((1, 2, 3), num_blocks=1, num_channels=4).eval()
    x = model.enumerate_support()[:40].repeat(7, 1, 1, 1)
    assert torch.allclose(nats(model, x), -model.log_prob(x).double())
