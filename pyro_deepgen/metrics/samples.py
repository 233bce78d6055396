# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Two samples as vectors, and the distances between them."""

from __future__ import annotations

import torch


def as_vectors(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Flatten two samples, of shape ``(n, ...)`` and ``(m, ...)``, to ``(n, d)`` and ``(m, d)``.

    Raises:
        ValueError: if they are not tensors of one floating-point dtype.
    """
    for sample in (x, y):
        if not isinstance(sample, torch.Tensor):
            raise ValueError(
                f"expected samples that are tensors, got {type(sample).__name__}; make one by "
                "torch.as_tensor(...)"
            )
        if not sample.is_floating_point():
            raise ValueError(
                f"expected floating-point samples, got {sample.dtype}; give x.float(), in the "
                "units that the bandwidth is in"
            )
        if sample.dim() == 0:
            raise ValueError("expected samples of shape (n, ...), got one number; give several")
    if x.dtype != y.dtype:
        raise ValueError(
            f"expected two samples of one dtype, got {x.dtype} and {y.dtype}; give x.to(y.dtype)"
        )
    return _flattened(x), _flattened(y)


def _flattened(sample: torch.Tensor) -> torch.Tensor:
    return sample.unsqueeze(1) if sample.dim() == 1 else sample.flatten(1)


def squared_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Squared distances ``(n, m)`` of vectors, each from differences.

    Expanding the square is faster, and in float32 wrong by about 1e-7 of the squared norm: too
    much for data far from 0, and for bandwidths that are small beside the data.
    """
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist") ** 2
