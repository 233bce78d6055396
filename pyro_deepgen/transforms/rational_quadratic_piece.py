# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""One piece of a rational-quadratic spline, in forms in which nothing cancels."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Piece(NamedTuple):
    """The part of a spline between two knots; all tensors broadcast."""

    x: torch.Tensor
    y: torch.Tensor
    width: torch.Tensor
    height: torch.Tensor
    left: torch.Tensor  # slope at the first knot
    right: torch.Tensor  # slope at the second knot


def value_and_log_slope(piece: Piece, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the value of the piece and the logarithm of its slope at points between its knots."""
    s = piece.height / piece.width
    xi = (x - piece.x) / piece.width
    rest = 1 - xi
    near, both, far = xi * xi, xi * rest, rest * rest
    # s + (left + right - 2 s) xi rest as a sum of terms that are not negative.
    scale = 1 / torch.addcmul((piece.left + piece.right) * both, s, near + far)
    top = torch.addcmul(s * near, piece.left, both)
    y = torch.addcmul(piece.y, piece.height, top * scale)
    return y, _log_slope(piece, s, scale, near, both, far)


def root_and_log_slope(piece: Piece, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where the piece has given values, and minus the logarithm of its slope there."""
    s = piece.height / piece.width
    eta = (y - piece.y) / piece.height
    rest = 1 - eta
    u = piece.left * rest - piece.right * eta
    before, after = 2 * s * eta, 2 * s * rest
    q = u.abs() + torch.sqrt(torch.addcmul(u * u, before, after))
    up = u >= 0
    before, after = torch.where(up, before, q), torch.where(up, q, after)
    total = 1 / (before + after)
    xi, rest = before * total, after * total
    x = torch.addcmul(piece.x, piece.width, xi)
    near, both, far = xi * xi, xi * rest, rest * rest
    scale = 1 / torch.addcmul((piece.left + piece.right) * both, s, near + far)
    return x, -_log_slope(piece, s, scale, near, both, far)


def _log_slope(
    piece: Piece,
    s: torch.Tensor,
    scale: torch.Tensor,
    near: torch.Tensor,
    both: torch.Tensor,
    far: torch.Tensor,
) -> torch.Tensor:
    ratio = s * scale
    top = torch.addcmul(piece.right * near + 2 * s * both, piece.left, far)
    return torch.log(top * ratio * ratio)
