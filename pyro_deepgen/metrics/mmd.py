# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The maximum mean discrepancy of two samples."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .samples import as_vectors, squared_distances

Kernel = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _require_positive(bandwidth: float | torch.Tensor) -> None:
    # One that is a tensor stays on its device: looking at it would wait for it.
    if not isinstance(bandwidth, torch.Tensor) and not bandwidth > 0:
        raise ValueError(
            f"expected a positive bandwidth, in the units of the data, got {bandwidth}"
        )


def gaussian_kernel(bandwidth: float | torch.Tensor) -> Kernel:
    r"""The kernel :math:`k(x, y) = e^{-\|x - y\|^2 / 2 \sigma^2}`, which is characteristic.

    Args:
        bandwidth: :math:`\sigma`, in the units of the data.

    Returns:
        A function from ``(n, d)`` and ``(m, d)`` to ``(n, m)``.

    Raises:
        ValueError: if the bandwidth is a number that is not positive.

    Example:
        >>> import torch
        >>> k = gaussian_kernel(1.0)
        >>> float(k(torch.zeros(1, 2), torch.zeros(1, 2)))
        1.0
    """
    _require_positive(bandwidth)
    return lambda x, y: torch.exp(-squared_distances(x, y) / (2 * bandwidth**2))


def inverse_multiquadric_kernel(bandwidth: float | torch.Tensor) -> Kernel:
    r"""The kernel :math:`k(x, y) = (1 + \|x - y\|^2 / \sigma^2)^{-1}`: characteristic, heavy tails.

    Args:
        bandwidth: :math:`\sigma`, in the units of the data.

    Returns:
        A function from ``(n, d)`` and ``(m, d)`` to ``(n, m)``.

    Raises:
        ValueError: if the bandwidth is a number that is not positive.

    Example:
        >>> import torch
        >>> k = inverse_multiquadric_kernel(1.0)
        >>> float(k(torch.zeros(1, 1), torch.ones(1, 1)))
        0.5
    """
    _require_positive(bandwidth)
    return lambda x, y: 1 / (1 + squared_distances(x, y) / bandwidth**2)


def polynomial_kernel(degree: int = 2) -> Kernel:
    r"""The kernel :math:`k(x, y) = (1 + x^\top y)^p`, which is **not** characteristic.

    Its discrepancy only compares moments up to order :math:`p`: a Gaussian and two coins with the
    same mean and variance have discrepancy 0 for :math:`p = 2`. It is here to show that.

    Args:
        degree: :math:`p`.

    Returns:
        A function from ``(n, d)`` and ``(m, d)`` to ``(n, m)``.

    Example:
        >>> import torch
        >>> float(polynomial_kernel(2)(torch.ones(1, 1), torch.ones(1, 1)))
        4.0
    """
    return lambda x, y: (1 + x @ y.T) ** degree


def median_bandwidth(x: torch.Tensor, y: torch.Tensor, max_data: int = 1000) -> torch.Tensor:
    """The median distance between data of two samples, a usual bandwidth.

    Args:
        x: sample of shape ``(n, ...)``.
        y: sample of shape ``(m, ...)``.
        max_data: how many of each sample are looked at.

    Returns:
        A tensor without dimensions.

    Raises:
        ValueError: if the samples are not of one floating-point dtype.

    Example:
        >>> import torch
        >>> float(median_bandwidth(torch.zeros(3, 1), torch.ones(3, 1)))
        1.0
    """
    x, y = as_vectors(x[:max_data], y[:max_data])
    return squared_distances(x, y).sqrt().median()


def mmd(
    x: torch.Tensor, y: torch.Tensor, kernel: Kernel | None = None, *, block: int = 2000
) -> torch.Tensor:
    r"""The unbiased estimate of the squared maximum mean discrepancy of two samples.

    .. math::
        \mathrm{MMD}^2 = \mathbb E[k(x, x')] + \mathbb E[k(y, y')] - 2 \mathbb E[k(x, y)]

    with independent :math:`x, x' \sim p` and :math:`y, y' \sim q`, pairs of the same index left
    out. With a *characteristic* kernel (Gaussian, inverse multiquadric) it is 0 only if
    :math:`p = q`; with another it compares some moments and calls different distributions equal.
    The estimate can be negative where the samples agree.

    Args:
        x: sample of shape ``(n, ...)``, flattened to vectors.
        y: sample of shape ``(m, ...)``.
        kernel: a function from ``(n, d)`` and ``(m, d)`` to ``(n, m)``; default: Gaussian with
            :func:`median_bandwidth`.
        block: rows of the kernel matrix that are held at once.

    Returns:
        A tensor without dimensions.

    Raises:
        ValueError: if a sample has fewer than two data, their shapes or dtypes differ, they are
            not floating-point, or the median distance is 0 and no kernel is given.

    References:
        A Kernel Two-Sample Test, Gretton, Borgwardt, Rasch, Schoelkopf, Smola, 2012 (JMLR 13).

    Example:
        >>> import torch
        >>> x, y = torch.randn(500, 2), torch.randn(500, 2) + 1
        >>> bool(mmd(x, y) > mmd(x, torch.randn(500, 2)))
        True
    """
    x, y = as_vectors(x, y)
    if min(len(x), len(y)) < 2 or x.shape[1] != y.shape[1]:
        raise ValueError(
            "expected two samples of at least 2 data with the same number of dimensions, got "
            f"shapes {tuple(x.shape)} and {tuple(y.shape)} (flattened)"
        )
    kernel = kernel or gaussian_kernel(_default_bandwidth(x, y))
    n, m = len(x), len(y)

    def total(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.stack([kernel(part, b).sum() for part in a.split(block)]).sum()

    def diagonal(a: torch.Tensor) -> torch.Tensor:
        return torch.stack([kernel(part, part).diagonal().sum() for part in a.split(block)]).sum()

    within_x = (total(x, x) - diagonal(x)) / (n * (n - 1))
    within_y = (total(y, y) - diagonal(y)) / (m * (m - 1))
    return within_x + within_y - 2 * total(x, y) / (n * m)


def _default_bandwidth(x: torch.Tensor, y: torch.Tensor) -> float:
    bandwidth = float(median_bandwidth(x, y))
    if not bandwidth > 0:
        raise ValueError(
            "expected samples whose median distance is positive and so a bandwidth, got "
            f"{bandwidth}: most data are the same (or NaN); give kernel=gaussian_kernel(bandwidth)"
        )
    return bandwidth
