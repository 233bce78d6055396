# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The equation of rational-quadratic splines."""

from __future__ import annotations

from math import expm1, log

import torch
from torch.nn.functional import softplus

from ..nn import as_size
from .equation import Equation
from .rational_quadratic_piece import Piece, root_and_log_slope, value_and_log_slope


class RationalQuadratic(Equation):
    r"""A monotone spline of every variable on :math:`[-B, B]`, and the identity outside.

    Between the knots :math:`(x_k, y_k)` and :math:`(x_{k+1}, y_{k+1})`, with slopes
    :math:`\delta_k` and :math:`\delta_{k+1}` there, with
    :math:`s = (y_{k+1} - y_k) / (x_{k+1} - x_k)`,
    :math:`\xi = (x - x_k) / (x_{k+1} - x_k)` and :math:`\bar\xi = 1 - \xi`,

    .. math:: y = y_k + (y_{k+1} - y_k)
        \frac{s \xi^2 + \delta_k \xi \bar\xi}{s + (\delta_k + \delta_{k+1} - 2 s) \xi \bar\xi},
        \qquad \frac{\partial y}{\partial x} = \frac{
            s^2 (\delta_{k+1} \xi^2 + 2 s \xi \bar\xi + \delta_k \bar\xi^2)
        }{(s + (\delta_k + \delta_{k+1} - 2 s) \xi \bar\xi)^2}

    The slopes at :math:`\pm B` are 1. The inverse solves a quadratic. With
    :math:`\eta = (y - y_k) / (y_{k+1} - y_k)`, :math:`\bar\eta = 1 - \eta` and
    :math:`u = \delta_k \bar\eta - \delta_{k+1} \eta` its discriminant is
    :math:`u^2 + 4 s^2 \eta \bar\eta`, a sum of terms that are not negative, and the root is

    .. math:: \xi = \frac{2 s \eta}{2 s \eta + q} \text{ for } u \geq 0, \qquad
        \xi = \frac{q}{q + 2 s \bar\eta} \text{ for } u < 0, \qquad
        q = |u| + \sqrt{u^2 + 4 s^2 \eta \bar\eta}

    in which nothing cancels. The parameters of a variable are :math:`K` numbers whose softmax gives
    the widths of the bins, :math:`K` for the heights, and :math:`K - 1` for the slopes at the inner
    knots; zeros are the identity.

    Args:
        num_bins: number of bins :math:`K`.
        bound: the bound :math:`B`.
        min_size: least width and height of a bin, as a fraction of :math:`2 B`.
        min_slope: least slope at a knot.

    Raises:
        ValueError: if ``num_bins`` is not a positive whole number, ``bound`` is not positive,
            ``min_size`` is not between 0 and :math:`1 / K`, or ``min_slope`` not between 0 and 1.

    References:
        Durkan, Bekasov, Murray and Papamakarios, Neural spline flows, 2019, arXiv:1906.04032.

    Example:
        >>> import torch
        >>> spline, x = RationalQuadratic(num_bins=4, bound=3.0), torch.linspace(-5, 5, 101)
        >>> y, log_slope = spline.forward_and_log_slope(x, torch.randn(11))
        >>> bool((y.diff() > 0).all()), torch.equal(y[x.abs() > 3], x[x.abs() > 3])
        (True, True)
        >>> torch.allclose(spline.forward_and_log_slope(x, torch.zeros(11))[0], x, atol=1e-5)
        True
    """

    def __init__(
        self,
        num_bins: int = 8,
        *,
        bound: float = 5.0,
        min_size: float = 1e-3,
        min_slope: float = 1e-3,
    ) -> None:
        super().__init__()
        self.num_bins = as_size(num_bins, "num_bins")
        if not bound > 0:
            raise ValueError(f"expected a positive bound of the spline, got {bound}")
        if not 0 < min_size * num_bins < 1:
            raise ValueError(
                f"expected min_size above 0 and below 1 / num_bins = {1 / num_bins:g}, got "
                f"{min_size}; use fewer bins, or a smaller min_size"
            )
        if not 0 < min_slope < 1:
            raise ValueError(f"expected min_slope above 0 and below 1, got {min_slope}")
        self.bound, self.min_size, self.min_slope = float(bound), float(min_size), float(min_slope)
        self.num_parameters = 3 * self.num_bins - 1
        self._slope_shift = log(expm1(1 - min_slope))  # softplus of it is 1 - min_slope

    def _piece(self, points: torch.Tensor, parameters: torch.Tensor, axis: int) -> Piece:
        """Find the piece that holds each point of an axis, 0 for x and 1 for y.

        Knots are the first dimension: the softmax and the sum run over few large slices.
        """
        num, size = self.num_bins, 2 * self.bound
        raw = parameters.movedim(-1, 0)
        raw = raw.reshape((len(raw), *[1] * (points.dim() + 1 - raw.dim()), *raw.shape[1:]))
        sizes, slopes = raw.split([2 * num, num - 1])
        # The inner knots of both axes, (2, K - 1, ...).
        cumulated = sizes.unflatten(0, (2, num)).softmax(1)[:, :-1].cumsum(1)
        steps = torch.arange(1, num, dtype=raw.dtype, device=raw.device)
        steps = steps.reshape((-1, *[1] * (raw.dim() - 1)))
        start = (self.min_size * size) * steps - self.bound
        inner = torch.add(start, cumulated, alpha=size * (1 - num * self.min_size))
        end = torch.full_like(sizes[:2], self.bound).unsqueeze(1)
        knots = torch.cat([-end, inner, end], 1)
        level = torch.zeros_like(sizes[:1])  # which gives a slope of 1 at both ends
        slopes = torch.cat([level, slopes, level])
        first = (points >= inner[axis]).sum(0)
        index = torch.stack([first, first + 1])
        batch = torch.broadcast_shapes(first.shape, raw.shape[1:])
        index = index.expand((2, *batch))
        knots = knots.expand((2, num + 1, *batch)).gather(1, index.expand((2, 2, *batch)))
        slopes = slopes.expand((num + 1, *batch)).gather(0, index)
        left, right = softplus(slopes + self._slope_shift) + self.min_slope
        (x, y), (width, height) = knots[:, 0], knots[:, 1] - knots[:, 0]
        return Piece(x, y, width, height, left, right)

    def forward_and_log_slope(
        self, x: torch.Tensor, parameters: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Evaluate the rational function of the bin that the point is in."""
        near = x.clamp(-self.bound, self.bound)
        y, log_slope = value_and_log_slope(self._piece(near, parameters, 0), near)
        inside = near == x
        return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)

    def inverse_and_log_slope(
        self, y: torch.Tensor, parameters: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Solve the quadratic of the bin that the point is in."""
        near = y.clamp(-self.bound, self.bound)
        x, log_slope = root_and_log_slope(self._piece(near, parameters, 1), near)
        inside = near == y
        return torch.where(inside, x, y), torch.where(inside, log_slope, 0.0)

    def extra_repr(self) -> str:
        """Name the number of bins and the bound in the printed form."""
        return f"num_bins={self.num_bins}, bound={self.bound}"
