# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Samples of two-dimensional distributions that are hard in one way each."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def toy(
    name: str, num_samples: int, seed: int = 0, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    r"""Independent samples of a two-dimensional distribution, most of it within [-4, 4]^2.

    - ``"two_moons"``: two interleaved half circles of radius 2, with noise of 0.2;
    - ``"pinwheel"``: five arms, bent by an angle that grows with the distance from the centre;
    - ``"eight_gaussians"``: means on a circle of radius 3, standard deviation 0.3;
    - ``"checkerboard"``: uniform on the 8 black squares, of side 2, of a board on [-4, 4]^2;
    - ``"spirals"``: two arms that turn one and a half times, with noise of 0.1;
    - ``"rings"``: circles of radius 1, 2 and 3, equally likely, with noise of 0.1.

    Args:
        name: One of the names above.
        num_samples: The number of samples.
        seed: The seed; the draws are made on the CPU.
        dtype: The dtype of the samples.

    Returns:
        Samples, shape ``(num_samples, 2)``.

    Raises:
        ValueError: If the name is unknown or ``num_samples`` is not positive.

    Example:
        >>> x = toy("checkerboard", 1000)
        >>> column, row = ((x + 4) / 2).floor().unbind(-1)
        >>> bool(((column + row) % 2 == 0).all())
        True
    """
    if name not in _SAMPLERS:
        raise ValueError(f"unknown toy {name!r}: expected one of {', '.join(_SAMPLERS)}")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    return _SAMPLERS[name](num_samples, torch.Generator().manual_seed(seed)).to(dtype)


# Drawn in double precision and rounded last, so that a seed means the same sample in each dtype.
def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _choice(generator: torch.Generator, num_choices: int, num_samples: int) -> Tensor:
    return torch.randint(num_choices, (num_samples,), generator=generator)


def _on_circle(radius: Tensor, angle: Tensor) -> Tensor:
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1)


def _two_moons(n: int, generator: torch.Generator) -> Tensor:
    upper = _choice(generator, 2, n).bool().unsqueeze(-1)
    moon = _on_circle(torch.ones(n, dtype=torch.float64), math.pi * _uniform(generator, n))
    # The lower moon is the upper one turned by half a turn about (1/2, 1/4).
    turned = torch.tensor([1.0, 0.5], dtype=torch.float64) - moon
    centre = torch.tensor([0.5, 0.25], dtype=torch.float64)
    return 2 * (torch.where(upper, moon, turned) - centre) + 0.2 * _normal(generator, n, 2)


def _pinwheel(n: int, generator: torch.Generator) -> Tensor:
    arm = 2 * math.pi / 5 * _choice(generator, 5, n)
    along = 1 + 0.3 * _normal(generator, n)
    across = 0.05 * _normal(generator, n)
    angle = arm + 0.25 * along.exp()
    return 2 * (_on_circle(along, angle) + _on_circle(across, angle + math.pi / 2))


def _eight_gaussians(n: int, generator: torch.Generator) -> Tensor:
    angle = math.pi / 4 * _choice(generator, 8, n)
    centre = _on_circle(torch.full((n,), 3.0, dtype=torch.float64), angle)
    return centre + 0.3 * _normal(generator, n, 2)


def _checkerboard(n: int, generator: torch.Generator) -> Tensor:
    row = _choice(generator, 4, n)
    column = 2 * _choice(generator, 2, n) + row % 2
    return 2 * (torch.stack([column, row], -1) + _uniform(generator, n, 2)) - 4


def _spirals(n: int, generator: torch.Generator) -> Tensor:
    arm = math.pi * _choice(generator, 2, n)
    # The square root spreads the samples evenly along the arm, whose length grows as its square.
    turn = _uniform(generator, n).sqrt()
    return _on_circle(3.5 * turn, 3 * math.pi * turn + arm) + 0.1 * _normal(generator, n, 2)


def _rings(n: int, generator: torch.Generator) -> Tensor:
    radius = 1.0 + _choice(generator, 3, n)
    return _on_circle(radius, 2 * math.pi * _uniform(generator, n)) + 0.1 * _normal(generator, n, 2)


_SAMPLERS: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "two_moons": _two_moons,
    "pinwheel": _pinwheel,
    "eight_gaussians": _eight_gaussians,
    "checkerboard": _checkerboard,
    "spirals": _spirals,
    "rings": _rings,
}
TOYS = tuple(_SAMPLERS)
