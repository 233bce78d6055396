# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Inverse distribution functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn
from torch.distributions import Distribution, constraints
from torch.distributions.constraints import Constraint, dependent_property
from typing_extensions import Self

from ..distributions.parts import HoldsParts
from .transform import Transform


class Quantile(HoldsParts, Transform):
    r"""The inverse of a distribution function: it turns uniform noise into the distribution.

    .. math:: f(x) = F^{-1}(x), \qquad \log |\partial f / \partial x| = -\log p(f(x))

    It acts on every variable by itself (there are no event dimensions). An argument of 0 or 1 is
    moved to the next number between, so that no draw is infinite.

    Args:
        distribution: a continuous distribution of scalars that has ``icdf`` and ``cdf``. Its
            tensors become buffers, and its ``nn.Parameter``\ s parameters.

    Raises:
        ValueError: if the distribution is not one of scalars, or lacks ``icdf`` or ``cdf``.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> laplace = Quantile(dist.Laplace(torch.tensor(0.0), torch.tensor(2.0)))
        >>> x = torch.rand(5)
        >>> torch.allclose(laplace.inv(laplace(x)), x, atol=1e-6)
        True
    """

    domain = constraints.unit_interval
    _plain: TorchDistributionMixin

    def __init__(self, distribution: TorchDistributionMixin) -> None:
        name = type(distribution).__name__
        if distribution.event_shape:
            raise ValueError(
                f"expected a distribution of scalars, got {name} with event_shape "
                f"{tuple(distribution.event_shape)}; take independent scalars without to_event"
            )
        try:
            with torch.no_grad():
                distribution.cdf(distribution.icdf(torch.tensor(0.5)))
        except (NotImplementedError, AttributeError) as error:
            raise ValueError(
                f"expected a distribution with icdf and cdf, got {name}, which lacks one"
            ) from error
        super().__init__()
        self.module = distribution if isinstance(distribution, nn.Module) else None
        if self.module is None:
            self._hold(distribution)
        self._build()

    def _build(self) -> None:
        """Put the distribution together on the tensors that are held now."""
        if self.module is not None:
            self.__dict__["_plain"] = self.module  # not a second time as a sub-module
        else:
            # Whether arguments are valid is asked of their values, which a graph cannot.
            self.__dict__["_plain"] = _unvalidated(self._put_together())

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        nn.Module._apply(self, fn, recurse)
        self._build()
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        nn.Module._load_from_state_dict(self, *args)
        self._build()

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["_plain"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__setstate__(self, state)
        self._build()

    @dependent_property(is_discrete=False, event_dim=0)
    def codomain(self) -> Constraint:
        """The support of the distribution."""
        support: Constraint = self._plain.support
        return support

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Look up the quantiles."""
        self.check_domain(x, context)
        plain, info = self._plain, torch.finfo(x.dtype)
        y = plain.icdf(x.clamp(info.tiny, 1 - info.eps / 2))
        return y, -plain.log_prob(y)

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Evaluate the distribution function."""
        self.check_codomain(y, context)
        plain = self._plain
        return plain.cdf(y), plain.log_prob(y)

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape broadcast with the batch shape of the distribution."""
        return torch.Size(torch.broadcast_shapes(tuple(shape), self._plain.batch_shape))

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape broadcast with the batch shape of the distribution."""
        return torch.Size(torch.broadcast_shapes(tuple(shape), self._plain.batch_shape))


def _unvalidated(distribution: Distribution) -> Distribution:
    """Switch off the checks of a distribution and of those inside it."""
    distribution._validate_args = False
    for inner in vars(distribution).values():
        if isinstance(inner, Distribution):
            _unvalidated(inner)
    return distribution
