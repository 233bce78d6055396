# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What 1, 2 and 10 planar or radial layers do to two simple densities.

    python benchmarks/reproduce/flows_2d_layers.py

draws figure 1 of Rezende and Mohamed (2015), arXiv:1505.05770, in some seconds, as
``benchmarks/reproduce/results/flows_2d_layers.png``. Nothing is trained: the parameters are random
numbers, and the K layers are the first K of ten. Each density is that of a ``FlowDistribution``, so
it comes from the inverses of the layers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyro.distributions as dist
import torch
from matplotlib.figure import Figure

from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.plots import density_grid
from pyro_deepgen.transforms import Planar, Radial, planar, radial

HERE = Path(__file__).parent
SIZES = (1, 2, 10)


def random_layers(seed: int) -> dict[str, list[Planar] | list[Radial]]:
    """Ten layers of each kind whose effect is strong enough to see."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    layers = {
        "planar": [planar(2) for _ in range(max(SIZES))],
        "radial": [radial(2) for _ in range(max(SIZES))],
    }
    for layer in layers["planar"]:
        layer.values.load_state_dict({"w": 1.2 * normal(2), "u": normal(2), "b": normal()})
    for layer in layers["radial"]:
        values = {"center": normal(2), "log_alpha": 0.3 * normal() - 0.3, "beta": 0.8 * normal()}
        layer.values.load_state_dict(values)
    return layers


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--points", type=int, default=180, help="along each side of a panel")
    parser.add_argument("--folder", type=Path, default=HERE / "results")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    with torch.device(args.device):
        figure = draw(args.seed, args.points)
    args.folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.folder / "flows_2d_layers.png", dpi=110)


def draw(seed: int, points: int) -> Figure:
    """Return the picture."""
    bases = {
        "Gaussian": dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1),
        # Without validation its density outside is 0.
        "uniform": dist.Uniform(-torch.full((2,), 2.0), 2.0, validate_args=False).to_event(1),
    }
    rows, labels = [], []
    for kind, layers in random_layers(seed).items():
        for name, base in bases.items():
            flows = [FlowDistribution(base, layers[:k]) for k in SIZES]
            rows.append([density.log_prob for density in (base, *flows)])
            labels.append(f"{kind},\n{name}")
    return density_grid(
        rows,
        [((-5.0, 5.0), (-5.0, 5.0))] * len(rows),
        labels,
        ["base", *(f"K = {k}" for k in SIZES)],
        "Planar and radial layers from a Gaussian and a uniform base",
        points,
    )


if __name__ == "__main__":
    main()
