# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The base class of bijections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from pyro.distributions.torch_transform import TransformModule
from torch import nn

from .shapes import check_context, check_event, exchange

if TYPE_CHECKING:
    from .conditioned import Conditioned


class Transform(TransformModule, ABC):
    r"""A bijection :math:`y = f(x)` from the base to the data that keeps no tensor between calls.

    A subclass sets ``domain`` and ``codomain``, and ``domain_shape`` and ``codomain_shape`` where
    only one event shape is right, and implements one pass each way that gives the value and the
    log-determinant together. It calls :meth:`check_domain` or :meth:`check_codomain` first. All
    else is derived from the two passes, so the class also serves wherever PyTorch and Pyro take a
    ``Transform``; of their cache it has none, whatever ``cache_size``.

    ``inverse_is_fast`` says that the way from the data to the base is the cheaper one (masked
    autoregressive flows): :meth:`log_abs_det_jacobian` then takes that way.

    With ``context_dim`` above 0 the map depends on a context :math:`c`, which is given to the two
    passes, or once and for all by :meth:`condition`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from torch.distributions import constraints
        >>> class Shift(Transform):
        ...     domain = codomain = constraints.real_vector
        ...     def __init__(self, size):
        ...         super().__init__()
        ...         self.domain_shape = self.codomain_shape = (size,)
        ...         self.shift = nn.Parameter(torch.randn(size))
        ...     def forward_and_log_det(self, x, context=None):
        ...         self.check_domain(x, context)
        ...         return x + self.shift, x.new_zeros(x.shape[:-1])
        ...     def inverse_and_log_det(self, y, context=None):
        ...         self.check_codomain(y, context)
        ...         return y - self.shift, y.new_zeros(y.shape[:-1])
        >>> shift, x = Shift(3), torch.randn(5, 3)
        >>> torch.allclose(shift.inv(shift(x)), x, atol=1e-6)
        True
        >>> [parameter is shift.shift for parameter in shift.inv.parameters()]
        [True]
    """

    bijective = True
    context_dim: int = 0
    domain_shape: tuple[int, ...] | None = None
    codomain_shape: tuple[int, ...] | None = None
    inverse_is_fast: bool = False

    def __init__(self) -> None:
        TransformModule.__init__(self, cache_size=0)

    @abstractmethod
    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Return :math:`y = f(x)` and :math:`\log |\det \partial y / \partial x|`.

        Args:
            x: points of the domain, of shape ``(*batch, *event)``.
            context: contexts of shape ``(*batch, context_dim)``, whose batch shape broadcasts with
                that of ``x``; ``None`` where ``context_dim`` is 0.

        Returns:
            The images, and the log-determinants of shape ``batch``.

        Raises:
            ValueError: if the event or the context has the wrong shape.
        """

    @abstractmethod
    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Return :math:`x = f^{-1}(y)` and :math:`\log |\det \partial x / \partial y|`.

        Args:
            y: points of the codomain, of shape ``(*batch, *event)``.
            context: as for :meth:`forward_and_log_det`.

        Returns:
            The preimages, and the log-determinants of the inverse, of shape ``batch``.

        Raises:
            ValueError: if the event or the context has the wrong shape.
        """

    def condition(self, context: torch.Tensor) -> Conditioned:
        """Return the transform at a context; it shares the parameters and holds the context.

        Args:
            context: contexts of shape ``(*batch, context_dim)``; the batch shape broadcasts with
                that of the points to come.

        Raises:
            ValueError: if ``context_dim`` is 0, or the context has another number of dimensions.
        """
        from .conditioned import Conditioned  # a subclass of this class

        return Conditioned(self, context)

    @property
    def inv(self) -> Transform:
        """The inverse, a module with the same parameters."""
        from .inverse import Inverse  # a subclass of this class

        return Inverse(self)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(*batch, *event)`` points from the domain to the codomain."""
        return self._call(x)

    def _call(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_and_log_det(x)[0]

    def _inv_call(self, y: torch.Tensor) -> torch.Tensor:
        return self._inverse(y)

    def _inverse(self, y: torch.Tensor) -> torch.Tensor:
        return self.inverse_and_log_det(y)[0]

    def log_abs_det_jacobian(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the log-determinant at a point and its image, by whichever pass is cheaper."""
        if self.inverse_is_fast:
            return -self.inverse_and_log_det(y)[1]
        return self.forward_and_log_det(x)[1]

    def with_cache(self, cache_size: int = 1) -> Transform:
        """Return this transform, which never caches."""
        return self

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape of the image of a tensor of a given shape."""
        return exchange(self, shape, self.domain_shape, self.codomain_shape)

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape of the preimage of a tensor of a given shape."""
        return exchange(self, shape, self.codomain_shape, self.domain_shape)

    def check_domain(self, x: torch.Tensor, context: torch.Tensor | None) -> None:
        """Raise ``ValueError`` unless a point of the domain and its context have right shapes."""
        check_event(self, "domain", x.shape, self.domain.event_dim, self.domain_shape)
        check_context(self, context)

    def check_codomain(self, y: torch.Tensor, context: torch.Tensor | None) -> None:
        """Raise ``ValueError`` unless a point of the codomain and its context have right shapes."""
        check_event(self, "codomain", y.shape, self.codomain.event_dim, self.codomain_shape)
        check_context(self, context)

    __repr__ = nn.Module.__repr__

    def __hash__(self) -> int:  # torch.compile cannot trace Pyro's
        return id(self)
