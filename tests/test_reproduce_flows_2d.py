# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The script of the two-dimensional energies: its targets, its figures of merit, a short run."""

import math
import sys
from pathlib import Path

import pyro.distributions as dist
import pytest
import torch

from benchmarks.reproduce import flows_2d, flows_2d_layers
from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.transforms import cholesky_affine

DRAWS, SCALE = 20_000, 1.5


class Normal:
    """The standard normal density, with its log Z, as a target."""

    log_normalizer = math.log(2 * math.pi)

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        return -0.5 * z.square().sum(-1)


def wide_normal(shift: float = 0.0) -> flows_2d.Fit:
    base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    flow = FlowDistribution(base, [cholesky_affine(2)])
    values = {"loc": [shift, 0.0], "log_diagonal": [math.log(SCALE)] * 2, "below": [0.0]}
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            parameter.copy_(torch.tensor(values[name.rsplit(".", 1)[1]]))
    return flows_2d.Fit(flow.double(), 5, 0.0, 0.0)


@pytest.mark.parametrize("energy", flows_2d.ENERGIES)
def test_log_z_with_the_walls_is_that_of_a_quadrature(energy: str) -> None:
    target = flows_2d.Target(energy)
    points = flows_2d.grid(0.05)
    assert float(target(points).logsumexp(0)) + 2 * math.log(0.05) == pytest.approx(
        target.log_normalizer, abs=1e-6
    )
    inside = points[points[:, 0].abs() < 4]
    assert torch.equal(target(inside), target.energy(inside))


def test_figures_of_merit_are_the_closed_forms_of_two_normals() -> None:
    fit = wide_normal()
    flows_2d.assess(fit, Normal(), DRAWS, 0.05)
    square = SCALE**2
    assert fit.kl_grid == pytest.approx(square - 1 - math.log(square), abs=1e-3)
    assert abs(fit.kl - (square - 1 - math.log(square))) < 4 * fit.error
    assert fit.forward_kl == pytest.approx(1 / square - 1 + math.log(square), abs=1e-6)
    assert fit.mass == pytest.approx(1, abs=1e-4)
    # E w^2 = s^4 / (2 s^2 - 1); weights are at most s^2, which bounds the spread of w^2 and of w.
    second = square**2 / (2 * square - 1)
    spread = math.hypot(0.5 * square**2 / second, 2 * math.sqrt(second - 1)) / math.sqrt(DRAWS)
    assert fit.ess == pytest.approx(100 / second, rel=4 * spread)
    assert abs(fit.apart) < 4
    assert abs(fit.log_z) < 4 * math.sqrt((second - 1) / DRAWS)


def test_a_shifted_flow_is_told_from_one_in_its_place() -> None:
    fit = wide_normal(shift=1.0)
    flows_2d.assess(fit, Normal(), DRAWS, 0.05)
    square = SCALE**2
    assert abs(fit.kl - (square - 1 - math.log(square))) > 20 * fit.error
    assert abs(fit.kl - (square - 0.5 - math.log(square))) < 4 * fit.error


def test_a_short_run_writes_the_page_and_the_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    few = {name: flows_2d.FLOWS[name] for name in ("Gaussian", "planar, K = 2")}
    monkeypatch.setattr(flows_2d, "FLOWS", few)
    options = "--preset quick --steps 40 --rate 0.1 --draws 1000 --spacing 0.2 --device cpu"
    monkeypatch.setattr(sys, "argv", ["flows_2d.py", *options.split(), "--folder", str(tmp_path)])
    flows_2d.main()
    page = (tmp_path / "flows_2d-quick.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| Gaussian")]
    # From the standard normal the divergences are above 3.3 nats.
    assert all(float(cell.split(" +- ")[0]) < 3.2 for cell in rows[0][4:9:2])
    assert "nan" not in page
    assert (tmp_path / "flows_2d-quick.png").stat().st_size < 300_000


def test_the_picture_of_the_layers_is_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["layers.py", "--points", "20", "--folder", str(tmp_path)])
    flows_2d_layers.main()
    assert (tmp_path / "flows_2d_layers.png").read_bytes().startswith(b"\x89PNG")


def test_the_layers_keep_the_mass_of_the_base() -> None:
    axis = torch.linspace(-14.97, 14.97, 500)
    points = torch.cartesian_prod(axis, axis).double()
    base = dist.Normal(torch.zeros(2).double(), 1.0).to_event(1)
    for layers in flows_2d_layers.random_layers(1).values():
        flow = FlowDistribution(base, layers[:2]).double()
        mass = float(flow.log_prob(points).detach().exp().sum() * (axis[1] - axis[0]) ** 2)
        assert mass == pytest.approx(1, abs=2e-3)
