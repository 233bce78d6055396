# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The metric of Hamiltonian kernels, estimated over all chains."""

from __future__ import annotations

import torch

# Stan's shrinkage: so many draws of variance 1e-3 are added to those seen.
SHRINKAGE, SMALL = 5.0, 1e-3


def metric_tuning(dim: int, full_mass: bool, like: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors that hold a metric and what it is estimated from, at their first values.

    The scale is ``L`` of the inverse mass matrix :math:`M^{-1} = L L^T`, a diagonal ``(D,)`` or a
    lower triangle ``(D, D)``.

    Args:
        dim: ``D``.
        full_mass: whether the matrix is dense.
        like: a tensor of the dtype and device.
    """
    zeros = like.new_zeros(dim)
    return {
        "scale": torch.eye(dim, dtype=like.dtype, device=like.device) if full_mass else zeros + 1,
        "mass_count": like.new_zeros(()),
        "mass_center": zeros.clone(),
        "mass_sum": zeros.clone(),
        "mass_squares": like.new_zeros(dim, dim) if full_mass else zeros.clone(),
    }


def widened(whitened: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """``L x`` for columns ``(D, C)``: a whitened momentum as a velocity."""
    return whitened * scale[:, None] if scale.dim() == 1 else scale @ whitened


def whitened(gradient: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """``L^T x`` for columns ``(D, C)``: a gradient as the force on a whitened momentum."""
    return gradient * scale[:, None] if scale.dim() == 1 else scale.mT @ gradient


def start_window(tuning: dict[str, torch.Tensor], position: torch.Tensor) -> None:
    """Forget the draws seen; sums will be about the mean of the present positions ``(C, D)``."""
    for name in ("mass_count", "mass_sum", "mass_squares"):
        tuning[name].zero_()
    tuning["mass_center"].copy_(position.mean(0))


def collect(tuning: dict[str, torch.Tensor], position: torch.Tensor, weight: torch.Tensor) -> None:
    """Add positions ``(C, D)`` with weights ``(C,)`` of 0 or 1, in place."""
    # Where the weight is 0 the position may not be finite.
    shifted = torch.where(weight[:, None] > 0, position - tuning["mass_center"], 0.0)
    tuning["mass_count"].add_(weight.sum())
    tuning["mass_sum"].add_(shifted.sum(0))
    squares = tuning["mass_squares"]
    squares.add_(shifted.square().sum(0) if squares.dim() == 1 else shifted.mT @ shifted)


def end_window(tuning: dict[str, torch.Tensor]) -> torch.Tensor:
    """Set the scale from the draws seen, shrunk towards a small multiple of the identity.

    Returns:
        The factor ``()`` by which the step that was the longest one in some direction of the old
        metric, and so bounded the step size, has become shorter in the new one.
    """
    before = tuning["scale"].clone()
    count, squares = tuning["mass_count"], tuning["mass_squares"]
    mean = tuning["mass_sum"] / count
    diagonal = squares.dim() == 1
    outer = mean.square() if diagonal else mean[:, None] * mean
    variance = (squares - count * outer) / (count - 1)
    share = count / (count + SHRINKAGE)
    small = SMALL * (1 - share)
    if diagonal:
        tuning["scale"].copy_((share * variance + small).sqrt())
        return (before / tuning["scale"]).max()
    eye = torch.eye(len(variance), dtype=variance.dtype, device=variance.device)
    shrunk = share * variance + small * eye
    lower, failed = torch.linalg.cholesky_ex(shrunk)
    # Coordinates that no draw tells apart, to the precision: each by itself then.
    apart = shrunk.diagonal().clamp(min=0).sqrt().diag()
    tuning["scale"].copy_(torch.where(failed == 0, lower, apart))
    change = torch.linalg.solve_triangular(tuning["scale"], before, upper=False)
    norm: torch.Tensor = torch.linalg.matrix_norm(change, 2)
    return norm
