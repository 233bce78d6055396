# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The scripts of published flow figures run, resume, and judge differences as they say."""

from argparse import Namespace
from collections.abc import Callable
from math import log
from pathlib import Path

import pytest
import torch

from benchmarks.reproduce import flow_density, flow_images
from pyro_deepgen.datasets import dequantize, dequantized_scale
from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.metrics import bits_per_dimension


def judged(ours: list[float], zukos: list[float]) -> str:
    """Return the row of one flow in the table, given log-likelihoods for each seed."""
    libraries = {"ours": ours, "zuko": zukos}
    runs = {
        ("two_moons", "MAF", name): [flow_density.Run(v, v, 10, 20, 1.0) for v in values]
        for name, values in libraries.items()
    }
    args = Namespace(
        preset="smoke",
        libraries=["ours"],  # zuko's version is not asked for, so it need not be there
        data=("two_moons",),
        rate=1e-3,
        threads=1,
        device=torch.device("cpu"),
    )
    (row,) = [line for line in flow_density.table(runs, args).splitlines() if "| MAF |" in line]
    return row


def test_differences_are_paired_and_judged_by_two_standard_errors() -> None:
    zukos = [-3.0, -5.0, -4.0, -6.0]
    # The seeds differ by far more than the libraries, which only pairs can see.
    assert "| below |" in judged([v - d for v, d in zip(zukos, [1, 2, 1, 2], strict=True)], zukos)
    assert "| above |" in judged([v + d for v, d in zip(zukos, [1, 2, 1, 2], strict=True)], zukos)
    same = [v + d for v, d in zip(zukos, [1, -2, -1, 2], strict=True)]
    assert "+0.000 +- 0.913 | +0.0 | not below |" in judged(same, zukos)
    # A mean of -1 with a standard error of 1 / sqrt(3): 1.7 of them.
    near = [v + d for v, d in zip(zukos, [-2, 0, -2, 0], strict=True)]
    assert "-1.000 +- 0.577 | -1.7 | not below |" in judged(near, zukos)


def test_densities_are_trained_once_and_then_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ["--preset", "smoke", "--libraries", "ours", "--folder", str(tmp_path / "runs")]
    call += ["--results", str(tmp_path)]
    flow_density.main(call)
    page = tmp_path / "flow-density-smoke.md"
    written = page.read_text()
    assert all(f"| two_moons | {flow} |" in written for flow in flow_density.FLOWS)
    monkeypatch.delattr(flow_density, "fit")
    flow_density.main(call)
    assert page.read_text() == written


def test_a_split_has_no_datum_twice() -> None:
    split = flow_density.load("two_moons", 0, 100)
    assert [len(part) for part in split] == [100, 20, 180]
    assert len(torch.cat(split).unique(dim=0)) == 300


@pytest.mark.parametrize("num_dims", [2, 5])
@pytest.mark.parametrize("flow", flow_density.FLOWS)
def test_both_libraries_have_the_same_architecture(flow: str, num_dims: int) -> None:
    pytest.importorskip("zuko", reason="the environment of the benchmarks has it")
    preset = flow_density.PRESETS["smoke"]
    sizes = [
        sorted(tuple(p.shape) for p in make(flow, num_dims, preset).parameters())
        for make in flow_density.LIBRARIES.values()
    ]
    assert sizes[0] == sizes[1]


def test_bits_of_levels_that_are_all_equally_likely() -> None:
    figure = flow_images.bits(torch.full((2,), -784 * log(256)))
    assert figure.value == pytest.approx(8.0)


def test_bits_are_those_of_the_density_of_dequantised_images() -> None:
    flow = flow_images.make_flow("glow", flow_images.PRESETS["smoke"].sizes["glow"])
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    flow.eval()
    until_noise = FlowDistribution(flow.base, list(flow.transform.parts)[:-1])
    levels = torch.randint(256, (10, *flow_images.SHAPE)).float()
    with torch.random.fork_rng():
        figure = flow_images.bits(flow_images.log_likelihood(flow, levels))
    y = dequantize(levels / 255, 256)  # the same noise, from the same place of the stream
    with torch.no_grad():
        width = dequantized_scale(256).bin_width
        bits = bits_per_dimension(until_noise.log_prob(y), 784, width)
    assert figure.value == pytest.approx(float(bits.mean()), abs=1e-3)


def test_images_are_trained_once_and_then_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_file: Callable[[str], Path]
) -> None:
    data_file("mnist.npz")
    call = ["--preset", "smoke", "--device", "cpu", "--folder", str(tmp_path / "runs")]
    call += ["--results", str(tmp_path)]
    flow_images.main(call)
    page = tmp_path / "flow-images-smoke.md"
    written = page.read_text()
    for model in flow_images.PUBLISHED:
        assert f"| {model} |" in written
        assert (tmp_path / f"flow-images-smoke-{model}.png").stat().st_size > 1000
    monkeypatch.delattr(flow_images, "fit")
    flow_images.main(call)
    assert page.read_text() == written
