# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Scales and shifts that start from the first batch of data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import distributed, nn
from torch._C import _functorch  # torch.func has no question "is a transform active?"
from torch._subclasses import FakeTensor
from torch.distributions import constraints
from torch.utils._python_dispatch import _disable_current_modes

from ..nn import as_shape
from .transform import Transform


class ActNorm(Transform):
    r"""A scale and a shift of each channel, at first those that normalise the first batch.

    .. math:: y_{c i} = e^{s_c} x_{c i} + t_c, \qquad
        \log |\det \partial y / \partial x| = n \sum_c s_c

    where a channel has :math:`n` variables; the dimensions of a vector are channels of one.

    The first batch of two or more points that it sees in training mode sets :math:`s` and
    :math:`t` such that the result has mean 0 and variance 1 in every channel, whichever the
    direction of that pass: data to base as a rule. (A channel that is constant in the batch is
    shifted only.) From then on they are parameters like others, and ``initialized`` is true, also
    after loading a state that was. Before, and in evaluation mode, it is the identity; a single
    point has no variance, so it passes unchanged and does not count.

    With ``torch.distributed``, moments are those of the batches of all processes together, and
    every process must make that first pass. While a program is recorded for a graph it starts from
    the values of the recording, outside of the graph; ``torch.compile`` leaves its graph for it
    once, and with ``fullgraph=True`` a batch must have been seen before.

    Args:
        event_shape: ``(C, H, W)``, any other shape whose first dimension are the channels, or a
            number of dimensions.

    Raises:
        ValueError: if a size is not a positive whole number; in the first pass, if it is made
            under ``torch.func`` or with fake tensors.

    References:
        Kingma and Dhariwal, Glow: Generative flow with invertible 1x1 convolutions, 2018,
        arXiv:1807.03039.

    Example:
        >>> import torch
        >>> norm, data = ActNorm(2), 5 + 3 * torch.randn(100, 2)
        >>> base = norm.inv(data)
        >>> torch.allclose(base.mean(0), torch.zeros(2), atol=1e-5)
        True
        >>> torch.allclose(base.var(0, correction=0), torch.ones(2), atol=1e-5)
        True
        >>> norm.initialized, torch.equal(norm.inv(data[:50]), base[:50])
        (True, True)
    """

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        super().__init__()
        self.domain_shape = self.codomain_shape = shape = as_shape(event_shape)
        self.domain = self.codomain = constraints.independent(constraints.real, len(shape))
        self.repeats = torch.Size(shape[1:]).numel()
        channels = (shape[0], *(1 for _ in shape[1:]))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        # No buffer: a program may ask for it without waiting for the device.
        self.initialized = False

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale, then shift."""
        self.check_domain(x, context)
        if self.training and not self.initialized:
            self._start(x, data=False)
        log_scale = self.log_scale
        y = torch.addcmul(self.shift, x, log_scale.exp())
        return y, self._log_det(log_scale, x)

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Shift back, then scale back."""
        self.check_codomain(y, context)
        if self.training and not self.initialized:
            self._start(y, data=True)
        log_scale = -self.log_scale
        x = (y - self.shift) * log_scale.exp()
        return x, self._log_det(log_scale, y)

    def _log_det(self, log_scale: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        batch = points.shape[: points.dim() - log_scale.dim()]
        return (self.repeats * log_scale.sum()).expand(batch)

    @torch.compiler.disable(  # type: ignore[untyped-decorator]
        reason="ActNorm sets its parameters by the first batch, outside of any graph: run one "
        "batch in training mode before you compile with fullgraph=True"
    )
    def _start(self, points: torch.Tensor, *, data: bool) -> None:
        """Set the parameters by the moments of a batch, if it has two points or more."""
        # Operations must neither be recorded nor be taken back by whoever watches them.
        with _disable_current_modes(), torch.no_grad():
            if _functorch.maybe_current_level() is not None or isinstance(points, FakeTensor):
                raise ValueError(
                    "ActNorm sets its parameters by the first batch that it sees in training mode, "
                    "and cannot under torch.func or with fake tensors: run one batch before, or "
                    "call eval()"
                )
            moments = _moments(points.detach(), self.log_scale.dim())
            if moments is None:
                return
            mean, log_std = (m.reshape(self.shift.shape) for m in moments)
            self.log_scale.copy_(log_std if data else -log_std)
            self.shift.copy_(mean if data else -mean * (-log_std).exp())
            self.initialized = True

    def get_extra_state(self) -> torch.Tensor:
        """Return whether a batch was seen, for ``state_dict``."""
        return torch.tensor(self.initialized)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Take whether a batch was seen from a ``state_dict``."""
        self.initialized = bool(state)

    def extra_repr(self) -> str:
        """Name the shape in the printed form."""
        return f"{self.domain_shape}, initialized={self.initialized}"


def _moments(points: torch.Tensor, event_dim: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return mean and log standard deviation of each channel, or nothing for a single point.

    Args:
        points: points of shape ``(*batch, *event)``.
        event_dim: number of event dimensions, the first of which are the channels.
    """
    rows = points.reshape(-1, *points.shape[points.dim() - event_dim :]).double()
    num_points = _over_processes(torch.tensor(float(len(rows)), device=rows.device))
    if num_points < 2:
        return None
    rows = rows.movedim(1, 0).flatten(1)
    num = _over_processes(torch.full((), rows.shape[1], dtype=rows.dtype, device=rows.device))
    mean = _over_processes(rows.sum(1)) / num
    variance = _over_processes((rows - mean[:, None]).square().sum(1)) / num
    constant = variance <= 1e-12 * mean.square()
    return mean, torch.where(constant, 1.0, variance).log() / 2


def _over_processes(total: torch.Tensor) -> torch.Tensor:
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(total)
    return total
