# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The inverse of a transform."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.distributions.constraints import Constraint, dependent_property

from .transform import Transform


class Inverse(Transform):
    r"""The inverse :math:`f^{-1}` of a transform, a module with the same parameters.

    Args:
        transform: the transform to invert.

    Example:
        >>> import torch
        >>> from pyro_deepgen.transforms import planar
        >>> flow, y = planar(2), torch.randn(5, 2)
        >>> flow.inv.inv is flow, torch.allclose(flow(flow.inv(y)), y, atol=1e-5)
        (True, True)
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform
        self.training = transform.training

    @property
    def context_dim(self) -> int:  # type: ignore[override]
        """Number of dimensions of the context of the transform."""
        return self.transform.context_dim

    @property
    def domain_shape(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """Event shape of the data, where it is fixed."""
        return self.transform.codomain_shape

    @property
    def codomain_shape(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """Event shape of the base, where it is fixed."""
        return self.transform.domain_shape

    @property
    def inverse_is_fast(self) -> bool:  # type: ignore[override]
        """Whether the way back, which is the transform's way forward, is the cheaper one."""
        return not self.transform.inverse_is_fast

    @dependent_property(is_discrete=False)
    def domain(self) -> Constraint:
        """The codomain of the transform."""
        return self.transform.codomain

    @dependent_property(is_discrete=False)
    def codomain(self) -> Constraint:
        """The domain of the transform."""
        return self.transform.domain

    @property
    def inv(self) -> Transform:
        """The transform itself."""
        return self.transform

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the transform's pass from the data to the base."""
        return self.transform.inverse_and_log_det(x, context)

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the transform's pass from the base to the data."""
        return self.transform.forward_and_log_det(y, context)

    def _call(self, x: torch.Tensor) -> torch.Tensor:
        return self.transform._inverse(x)

    def _inverse(self, y: torch.Tensor) -> torch.Tensor:
        return self.transform._call(y)

    def log_abs_det_jacobian(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return minus the log-determinant of the transform."""
        return -self.transform.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape of the preimage under the transform."""
        return self.transform.inverse_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape of the image under the transform."""
        return self.transform.forward_shape(shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Inverse) and self.transform == other.transform

    def __hash__(self) -> int:
        return hash((Inverse, self.transform))
