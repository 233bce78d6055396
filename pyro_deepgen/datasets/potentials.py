# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Two-dimensional densities with a formula, as targets of variational inference and MCMC."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Potential:
    r"""An unnormalised log density :math:`-U(z)` of :math:`z \in \mathbb{R}^2`, with its log Z.

    Calling it gives :math:`-U(z)`; ``log_prob`` gives :math:`-U(z) - \log Z`.

    Args:
        name: The name of the density.
        energy: :math:`U`, from shape ``(..., 2)`` to ``(...)``.
        bounds: The lower and upper end of the interesting part of each coordinate.
        log_normalizer: :math:`\log Z`, where :math:`Z` integrates :math:`e^{-U}` over
            :math:`|z_1| \le` ``z1_limit``.
        z1_limit: Where the density is cut off, if it has an infinite integral otherwise.

    Raises:
        ValueError: If called with a tensor whose last dimension is not 2.

    Example:
        >>> banana = potential("banana")
        >>> z = torch.randn(3, 2)
        >>> torch.allclose(banana(z) - banana.log_normalizer, banana.log_prob(z))
        True
    """

    name: str
    energy: Callable[[Tensor], Tensor]
    bounds: tuple[tuple[float, float], tuple[float, float]]
    log_normalizer: float
    z1_limit: float = math.inf

    def __call__(self, z: Tensor) -> Tensor:
        """The unnormalised log density, of shape ``(...)``, at ``z`` of shape ``(..., 2)``."""
        if z.shape[-1:] != (2,):
            raise ValueError(
                f"{self.name} is a density of points of shape (..., 2), got {tuple(z.shape)}"
            )
        return -self.energy(z)

    def log_prob(self, z: Tensor) -> Tensor:
        """The log density, of shape ``(...)``, at ``z`` of shape ``(..., 2)``."""
        value = self(z) - self.log_normalizer
        if math.isinf(self.z1_limit):
            return value
        return value.masked_fill(z[..., 0].abs() > self.z1_limit, -math.inf)


def potential(name: str) -> Potential:
    r"""A two-dimensional density by its name.

    - ``"U1"``: :math:`\frac12 ((\|z\| - 2) / 0.4)^2 - \log(e^{-\frac12 ((z_1 - 2) / 0.6)^2} +
      e^{-\frac12 ((z_1 + 2) / 0.6)^2})`, two parts of a ring;
    - ``"U2"``: :math:`\frac12 ((z_2 - w_1) / 0.4)^2`, a wave;
    - ``"U3"``: :math:`-\log(e^{-\frac12 ((z_2 - w_1) / 0.35)^2} +
      e^{-\frac12 ((z_2 - w_1 + w_2) / 0.35)^2})`, a wave that splits and joins again;
    - ``"U4"``: :math:`-\log(e^{-\frac12 ((z_2 - w_1) / 0.4)^2} +
      e^{-\frac12 ((z_2 - w_1 + w_3) / 0.35)^2})`, a wave that splits;
    - ``"banana"``: :math:`z_1 \sim N(0, 1)`, :math:`z_2 \sim N(z_1^2 - 1, 0.5^2)`;
    - ``"funnel"``: :math:`z_1 \sim N(0, 3^2)`, :math:`z_2 \sim N(0, e^{z_1})`,

    with :math:`w_1 = \sin(\pi z_1 / 2)`, :math:`w_2 = 3 e^{-\frac12 ((z_1 - 1) / 0.6)^2}` and
    :math:`w_3 = 3 / (1 + e^{-(z_1 - 1) / 0.3})`. The waves U2, U3 and U4 go on for ever, so their
    integral over the plane is infinite; they are normalised over :math:`|z_1| \le 4`, the part
    that the paper draws, and ``log_prob`` is minus infinity outside. A variational fit to the
    bare energy has no optimum: it spreads out along the wave.

    Args:
        name: One of the names above.

    Returns:
        The density.

    Raises:
        ValueError: If the name is unknown.

    References:
        Variational inference with normalizing flows, Danilo Rezende and Shakir Mohamed, 2015,
        arXiv:1505.05770 (table 1: U1 to U4); Slice sampling, Radford Neal, 2003 (funnel); Adaptive
        proposal distribution for random walk Metropolis algorithm, Heikki Haario, Eero Saksman and
        Johanna Tamminen, 1999 (banana).

    Example:
        >>> z1 = z2 = torch.linspace(-6, 6, 601)
        >>> z = torch.cartesian_prod(z1, z2)
        >>> bool((potential("U1").log_prob(z).exp().sum() * 0.02**2 - 1).abs() < 1e-3)
        True
    """
    if name not in _POTENTIALS:
        raise ValueError(f"unknown potential {name!r}: expected one of {', '.join(_POTENTIALS)}")
    return _POTENTIALS[name]


def _half_square(x: Tensor, scale: float) -> Tensor:
    return 0.5 * (x / scale).square()


def _wave(z: Tensor) -> Tensor:
    return torch.sin(math.pi / 2 * z[..., 0])


def _ring(z: Tensor) -> Tensor:
    z1 = z[..., 0]
    parts = torch.logaddexp(-_half_square(z1 - 2, 0.6), -_half_square(z1 + 2, 0.6))
    return _half_square(torch.linalg.vector_norm(z, dim=-1) - 2, 0.4) - parts


def _single_wave(z: Tensor) -> Tensor:
    return _half_square(z[..., 1] - _wave(z), 0.4)


def _split_and_joined_wave(z: Tensor) -> Tensor:
    distance = z[..., 1] - _wave(z)
    shift = 3 * torch.exp(-_half_square(z[..., 0] - 1, 0.6))
    return -torch.logaddexp(-_half_square(distance, 0.35), -_half_square(distance + shift, 0.35))


def _split_wave(z: Tensor) -> Tensor:
    distance = z[..., 1] - _wave(z)
    shift = 3 * torch.sigmoid((z[..., 0] - 1) / 0.3)
    return -torch.logaddexp(-_half_square(distance, 0.4), -_half_square(distance + shift, 0.35))


def _banana(z: Tensor) -> Tensor:
    z1, z2 = z.unbind(-1)
    return _half_square(z1, 1.0) + _half_square(z2 - z1.square() + 1, 0.5)


def _funnel(z: Tensor) -> Tensor:
    z1, z2 = z.unbind(-1)
    # The spread of z2 depends on z1, so its logarithm belongs to the energy.
    return _half_square(z1, 3.0) + 0.5 * (z2.square() * torch.exp(-z1) + z1)


_SQUARE = ((-4.0, 4.0), (-4.0, 4.0))
_LOG_2PI = math.log(2 * math.pi)
# U1 has no closed form: the value is a quadrature in polar coordinates. For U2 to U4 the integral
# over z2 is that of one or two Gaussians whatever z1 is, and z1 runs over an interval of 8.
_POTENTIALS = {
    "U1": Potential("U1", _ring, _SQUARE, 1.8775016261),
    "U2": Potential("U2", _single_wave, _SQUARE, 0.5 * _LOG_2PI + math.log(8 * 0.4), 4.0),
    "U3": Potential(
        "U3", _split_and_joined_wave, _SQUARE, 0.5 * _LOG_2PI + math.log(8 * (0.35 + 0.35)), 4.0
    ),
    "U4": Potential(
        "U4",
        _split_wave,
        ((-4.0, 4.0), (-5.5, 3.0)),
        0.5 * _LOG_2PI + math.log(8 * (0.4 + 0.35)),
        4.0,
    ),
    "banana": Potential("banana", _banana, ((-3.0, 3.0), (-2.5, 6.5)), _LOG_2PI + math.log(0.5)),
    "funnel": Potential("funnel", _funnel, ((-8.0, 8.0), (-8.0, 8.0)), _LOG_2PI + math.log(3.0)),
}
POTENTIALS = tuple(_POTENTIALS)
