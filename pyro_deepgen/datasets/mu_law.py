# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""The mu-law: amplitudes of sound as a few levels, finer where it is quiet."""

from __future__ import annotations

from dataclasses import dataclass
from math import log1p

import torch
from torch import Tensor


@dataclass(frozen=True)
class MuLaw:
    r"""A quantiser of amplitudes in [-1, 1], with its inverse.

    .. math:: f(x) = \mathrm{sign}(x) \frac{\ln(1 + \mu |x|)}{\ln(1 + \mu)}, \qquad \mu = K - 1

    The level :math:`k = 0, \dots, K - 1` of an amplitude is that of the nearest of the values
    :math:`2 k / (K - 1) - 1` to :math:`f(x)`. So the levels lie close together near 0, and the
    error of an amplitude is nearly in proportion to it.

    Args:
        num_levels: :math:`K`, 256 for eight bits.

    Raises:
        ValueError: if ``num_levels`` is below 2.

    References:
        ITU-T, Recommendation G.711: Pulse code modulation (PCM) of voice frequencies, 1988.

        van den Oord, Dieleman, Zen, Simonyan, Vinyals, Graves, Kalchbrenner, Senior and
        Kavukcuoglu, WaveNet: A generative model for raw audio, 2016, arXiv:1609.03499.

    Example:
        >>> import torch
        >>> law, levels = MuLaw(), torch.arange(256)
        >>> torch.equal(law.quantize(law.restore(levels)), levels)
        True
        >>> law.quantize(torch.tensor([-1.0, -0.01, 0.01, 1.0])).tolist()
        [0, 98, 157, 255]
    """

    num_levels: int = 256

    def __post_init__(self) -> None:
        if self.num_levels < 2:
            raise ValueError(f"num_levels must be at least 2, got {self.num_levels}")

    def compress(self, x: Tensor) -> Tensor:
        """The function :math:`f` of amplitudes of any shape."""
        mu = self.num_levels - 1
        return x.sign() * torch.log1p(mu * x.abs()) / log1p(mu)

    def expand(self, y: Tensor) -> Tensor:
        """The inverse of :math:`f`, of values of any shape."""
        mu = self.num_levels - 1
        return y.sign() * torch.expm1(y.abs() * log1p(mu)) / mu

    def quantize(self, x: Tensor) -> Tensor:
        """The levels of amplitudes.

        Args:
            x: floating-point amplitudes of any shape; those outside of [-1, 1] go to the end
                levels.

        Returns:
            Whole numbers from 0 to :math:`K - 1`, with the shape of ``x``.

        Raises:
            ValueError: if ``x`` is not floating-point; divide samples of 16 bits by 32,768.
        """
        if not x.is_floating_point():
            raise ValueError(
                f"expected floating-point amplitudes in [-1, 1], got {x.dtype}; divide samples of "
                "16 bits by 32768"
            )
        position = (self.compress(x) + 1) / 2 * (self.num_levels - 1)
        return position.round().clamp(0, self.num_levels - 1).long()

    def restore(self, levels: Tensor) -> Tensor:
        """The amplitudes of levels.

        Args:
            levels: whole numbers from 0 to :math:`K - 1`, any shape and dtype.

        Returns:
            Amplitudes in [-1, 1], with the shape of ``levels``; of its dtype if that is a
            floating-point one, else of the default one.
        """
        dtype = levels.dtype if levels.is_floating_point() else torch.get_default_dtype()
        return self.expand(2 * levels.to(dtype) / (self.num_levels - 1) - 1)

    def edges(self, like: Tensor | None = None) -> Tensor:
        """The amplitudes between neighbouring levels, rising.

        The probability of the level :math:`k` under a distribution of amplitudes is its mass from
        edge :math:`k - 1` to edge :math:`k`; the first and the last level have all that is beyond.

        Args:
            like: a tensor that gives the dtype and device, by default the default ones.

        Returns:
            The amplitudes, of shape :math:`(K - 1,)`.
        """
        like = torch.zeros(()) if like is None else like
        between = torch.arange(self.num_levels - 1, dtype=like.dtype, device=like.device) + 0.5
        return self.expand(2 * between / (self.num_levels - 1) - 1)
