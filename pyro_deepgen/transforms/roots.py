# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Roots of increasing functions, without a look at the values."""

from __future__ import annotations

from collections.abc import Callable

import torch


def increasing_root(
    function: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    low: torch.Tensor,
    high: torch.Tensor,
    start: torch.Tensor | None = None,
    *,
    num_steps: int | None = None,
) -> torch.Tensor:
    r"""Find :math:`t` with :math:`f(t) = 0` for every element of a bracket.

    .. math:: t \leftarrow t - f(t) / f'(t)

    Newton's step is taken where it stays inside the bracket and is at most half of the step before;
    elsewhere the bracket is halved. The number of steps is fixed, so that nothing waits for the
    device and the whole can be compiled. The default reaches machine precision also where Newton's
    steps alone would not converge (plateaus, waves, a root at which :math:`f' = 0`); for a smooth
    function with :math:`f' > 0` and a good start a handful is enough.

    The search carries no gradient. Two of Newton's steps at the root, which do, give the
    derivatives of the implicit function :math:`t(\theta)`, with respect to whatever ``function``
    closes over, exactly to the third order: each doubles the order that is right.

    Args:
        function: gives :math:`f(t)` and :math:`f'(t)`, elementwise.
        low: a point at or below the root.
        high: a point at or above the root; its shape broadcasts with that of ``low``, to the shape
            of the root.
        start: where to start, inside the bracket; its middle by default.
        num_steps: number of steps; by default one for each bit of the data type, and five.

    Returns:
        The roots.

    References:
        Press et al., Numerical Recipes, 3rd edition, 2007, section 9.4.

    Example:
        >>> import torch
        >>> s = torch.tensor([0.1, 8.0, 1000.0], requires_grad=True)
        >>> t = increasing_root(lambda t: (t**3 + t - s, 3 * t**2 + 1), torch.zeros(3), s.detach())
        >>> torch.allclose(t**3 + t, s)
        True
        >>> (slope,) = torch.autograd.grad(t.sum(), s)
        >>> torch.allclose(slope, 1 / (3 * t**2 + 1))
        True
    """
    with torch.no_grad():
        low, high = torch.broadcast_tensors(low.detach(), high.detach())
        root = (low + high) / 2 if start is None else start.detach().expand_as(low)
        last = high - low
        # Below this any of Newton's steps is taken: at the root they are rounding errors.
        least = 4 * torch.finfo(root.dtype).eps * torch.maximum(low.abs(), high.abs())
        steps = _bits(root.dtype) + 5 if num_steps is None else num_steps
        for _ in range(steps):
            value, slope = function(root)
            below = value < 0
            low, high = torch.where(below, root, low), torch.where(below, high, root)
            newton = root - value / slope
            step = (newton - root).abs()
            good = (newton >= low) & (newton <= high) & (step <= torch.maximum(last / 2, least))
            new = torch.where(good, newton, (low + high) / 2)
            last, root = (new - root).abs(), new
    return polish(function, root.detach())


def polish(
    function: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]], root: torch.Tensor
) -> torch.Tensor:
    r"""Give a root the derivatives of the implicit function that it is a value of.

    Args:
        function: gives :math:`f(t)` and :math:`f'(t)`, elementwise.
        root: roots of any shape, without gradients.

    Returns:
        The roots, with derivatives with respect to what ``function`` closes over that are exact to
        the third order.

    Example:
        >>> import torch
        >>> s = torch.tensor(9.0, requires_grad=True)
        >>> t = polish(lambda t: (t**2 - s, 2 * t), torch.tensor(3.0))
        >>> (first,) = torch.autograd.grad(t, s, create_graph=True)
        >>> (second,) = torch.autograd.grad(first, s)
        >>> torch.allclose(second, torch.tensor(-1 / 108))  # of the square root: -s^(-3/2) / 4
        True
    """
    for _ in range(2):
        value, slope = function(root)
        root = root - value / slope
    return root


def tanh_root(one_plus_c: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    r"""Solve :math:`a + c \tanh a = s` for :math:`a`, for any :math:`c > -1`.

    For :math:`s > 0` the root is positive, where the left side is convex (:math:`c < 0`) or concave
    (:math:`c > 0`). So Newton's steps from the far end of a bracket (convex), or from the near end
    (concave), approach the root from one side and need no safeguard. The brackets come from
    :math:`\tanh a \leq \min(a, 1)` and, for :math:`a \leq 1`,
    :math:`a - \tanh a \geq a^3 / 5`, which keeps the number of steps small where
    :math:`c` is near -1 and the slope at 0 near 0. Derivatives are those of :func:`polish`.

    Args:
        one_plus_c: positive numbers :math:`1 + c`, given so because they may be much smaller
            than 1.
        s: right sides; the shapes broadcast.

    Returns:
        The roots, to machine precision, of the broadcast shape.

    Example:
        >>> import torch
        >>> one_plus_c, s = torch.tensor([1e-6, 0.5, 30.0]), torch.tensor([1e-3, -8.0, 25.0])
        >>> a = tanh_root(one_plus_c, s)
        >>> torch.allclose(a + (one_plus_c - 1) * a.tanh(), s, rtol=1e-4)
        True
    """

    def residual(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = a.tanh()
        return a + (one_plus_c - 1) * h - s, one_plus_c + (1 - one_plus_c) * (h * h)

    with torch.no_grad():
        c, size = one_plus_c - 1, s.abs()
        slope_bound, level_bound = size / one_plus_c, size - c
        cubic = (5 * size / c.abs()).pow(1 / 3)
        right = torch.minimum(slope_bound, level_bound)
        right = torch.where(cubic < 1, torch.minimum(right, cubic), right)
        root = torch.where(c < 0, right, torch.maximum(slope_bound, level_bound))
        for _ in range(_TANH_STEPS):
            h = root.tanh()
            value = torch.addcmul(root - size, c, h)
            slope = torch.addcmul(one_plus_c, c, h * h, value=-1)
            root = torch.addcdiv(root, value, slope, value=-1)
        root = torch.copysign(root, s)
    return polish(residual, root.detach())


def tanh_log_slope(one_plus_c: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    r"""Return the logarithm of the derivative of :math:`a + c \tanh a`, for any :math:`c > -1`.

    .. math:: \log\left(1 + c\, (1 - h^2)\right), \qquad h = \tanh a

    It is taken of a mean of :math:`1 + c` and 1, so that nothing cancels: neither where the
    derivative is small, nor where it is 1 because :math:`h^2` is.

    Args:
        one_plus_c: positive numbers :math:`1 + c`.
        h: hyperbolic tangents; the shapes broadcast.

    Returns:
        The logarithms, of the broadcast shape.

    Example:
        >>> import torch
        >>> one_plus_c, h = torch.tensor([1e-6, 1e6]), torch.tensor([0.0, 1.0])
        >>> torch.allclose(tanh_log_slope(one_plus_c, h).exp(), torch.tensor([1e-6, 1.0]))
        True
    """
    return torch.log(torch.lerp(one_plus_c, torch.ones_like(one_plus_c), h * h))


# With the two of `polish` enough for 1e-8 <= 1 + c <= 1e4 and any s, in either precision.
_TANH_STEPS = 11


def _bits(dtype: torch.dtype) -> int:
    return 53 if dtype == torch.float64 else 24
