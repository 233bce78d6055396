# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Noise that gives whole numbers a density."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn
from torch.distributions import constraints

from ..nn import apply_batched, as_shape, as_size


class Dequantize(nn.Module):
    r"""Makes whole numbers of points of the unit cube, and back by noise: the last part of a flow.

    .. math:: k = \lfloor K y \rfloor, \qquad y = (k + u) / K, \quad u \sim q(u \mid k)

    This is no bijection, and no :class:`Transform`: all points of a cell become the same levels
    :math:`k`, and the way back draws one of them. With

    .. math:: \log P(k) \ge \mathrm{E}_{q(u \mid k)}
        [\log p(y) - D \log K - \log q(u \mid k)]

    the "log-determinant" of the way back is the sum of the last two terms. So as the last part of a
    ``FlowDistribution``, ``log_prob(k)`` is random: one draw of the right-hand side, a lower bound
    of the log-probability on average, whose exponential is the probability on average. It is made
    anew in each call. Points outside of the unit cube go to the nearest level; the bound leaves
    them out. Scores of levels that a flow has drawn itself must come from this pass too, since the
    noise that a draw happens to have is not from :math:`q`.

    Args:
        event_shape: shape of an event, or its number of dimensions, :math:`D` in all.
        num_levels: number of levels :math:`K`; they are 0, ..., ``num_levels - 1``, as
            floating-point numbers.
        noise: the distribution :math:`q` on the unit cube, of the same event shape, with
            ``rsample``; without one, it is uniform. A conditional one (a ``FlowDistribution`` with
            ``context_dim``) gets as context what the network makes of the levels: variational
            dequantisation.
        network: a function from ``(N, *event_shape)`` levels, scaled into the unit interval, to
            ``(N, context_dim)``; an attribute ``broadcasts = True`` says that it takes any batch
            shapes.

    Raises:
        ValueError: if a size is not a positive whole number, ``num_levels`` is 1, the noise is of
            another event shape, or a network is given without conditional noise or the reverse; in
            a pass, if an event has the wrong shape.

    References:
        Uria, Murray and Larochelle, RNADE: The real-valued neural autoregressive density-estimator,
        2013, arXiv:1306.0186.

        Ho, Chen, Srinivas, Duan and Abbeel, Flow++: Improving flow-based generative models with
        variational dequantization and architecture design, 2019, arXiv:1902.00275.

    Example:
        >>> import torch
        >>> dequantize, levels = Dequantize((1, 4, 4), 8), torch.randint(8, (5, 1, 4, 4)).float()
        >>> y, log_det = dequantize.inverse_and_log_det(levels)
        >>> torch.equal(dequantize.forward_and_log_det(y)[0], levels)
        True
        >>> torch.allclose(log_det.exp(), torch.tensor(8.0**-16))
        True
    """

    bijective = False
    context_dim = 0
    inverse_is_fast = False

    def __init__(
        self,
        event_shape: int | Sequence[int],
        num_levels: int = 256,
        *,
        noise: TorchDistributionMixin | None = None,
        network: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.event_shape = as_shape(event_shape)
        self.num_levels = as_size(num_levels, "num_levels")
        if self.num_levels == 1:
            raise ValueError("expected two levels or more, got num_levels=1")
        conditional = bool(getattr(noise, "context_dim", 0))
        if conditional != (network is not None):
            raise ValueError(
                "expected noise with context_dim and a network that makes the context of the "
                f"levels, or neither, got {type(noise).__name__} with context_dim "
                f"{getattr(noise, 'context_dim', 0)} and {type(network).__name__}"
            )
        if noise is not None and tuple(noise.event_shape) != self.event_shape:
            raise ValueError(
                f"expected noise of event_shape {self.event_shape}, got {tuple(noise.event_shape)}"
            )
        self.noise = noise
        self.network = network
        dims = len(self.event_shape)
        self.domain = constraints.independent(constraints.real, dims)
        levels = constraints.integer_interval(0, self.num_levels - 1)
        self.codomain = constraints.independent(levels, dims)
        self._log_volume = torch.Size(self.event_shape).numel() * log(self.num_levels)

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Return the levels, and the logarithm :math:`D \log K` of the scaling before rounding.

        Args:
            x: points of shape ``(*batch, *event_shape)``.
            context: none.
        """
        levels = (self.num_levels * x).floor().clamp(0, self.num_levels - 1)
        batch = self.forward_shape(x.shape)[: x.dim() - len(self.event_shape)]
        return levels, x.new_full(batch, self._log_volume)

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Return points with these levels, and :math:`-D \log K - \log q(u \mid k)`.

        Args:
            y: levels of shape ``(*batch, *event_shape)``.
            context: none.
        """
        batch = self.inverse_shape(y.shape)[: y.dim() - len(self.event_shape)]
        if self.noise is None:
            u, log_q = torch.rand_like(y), y.new_zeros(batch)
        else:
            q = self._noise_for(y, batch)
            u = q.rsample()
            log_q = q.log_prob(u)
        # Rounding must not carry a point into the next cell.
        margin = 2 * self.num_levels * torch.finfo(y.dtype).eps
        return (y + u.clamp(margin, 1 - margin)) / self.num_levels, -log_q - self._log_volume

    def _noise_for(self, levels: torch.Tensor, batch: torch.Size) -> TorchDistributionMixin:
        assert self.noise is not None
        if self.network is None:
            return self.noise.expand(batch)
        scaled = (levels + 0.5) / self.num_levels
        context = apply_batched(self.network, scaled, len(self.event_shape))
        noise: TorchDistributionMixin = self.noise.condition(context)
        return noise

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the same shape, if it ends in that of an event."""
        return self._same(shape)

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the same shape, if it ends in that of an event."""
        return self._same(shape)

    def _same(self, shape: Sequence[int]) -> torch.Size:
        if tuple(shape[max(0, len(shape) - len(self.event_shape)) :]) != self.event_shape:
            raise ValueError(
                f"Dequantize expected a tensor whose last dimensions are {self.event_shape}, got "
                f"shape {tuple(shape)}; make it for that shape"
            )
        return torch.Size(shape)

    def extra_repr(self) -> str:
        """Name the shape and the number of levels in the printed form."""
        return f"{self.event_shape}, num_levels={self.num_levels}"
