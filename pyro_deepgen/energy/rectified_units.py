# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Units that count how many of their copies are on."""

from __future__ import annotations

import torch
from torch.distributions import constraints
from torch.nn.functional import softplus

from .log_partition import power
from .units import Units


class RectifiedUnits(Units):
    r"""Stepped sigmoid units: the number of on units among copies with biases 1/2, 3/2, ... lower.

    .. math::
        A(\eta) &= \sum_{i=1}^{n} \operatorname{softplus}(\eta - (i - \tfrac12) / T) \\
        e(x) &= x^2 / 2T - \log \binom{n}{x}_q, \quad q = e^{-1/T}

    with the Gaussian binomial coefficient, which counts the copies that may be on. For large ``n``
    and ``T = 1`` the mean is close to ``softplus(eta)``, and a draw to the noisy rectified linear
    unit ``max(0, eta + N(0, sigma(eta)))``.

    Args:
        num_units: number of units.
        num_copies: ``n``, the largest value of a unit.

    References:
        Rectified Linear Units Improve Restricted Boltzmann Machines, Vinod Nair and Geoffrey
        Hinton, 2010.

    Example:
        >>> import torch
        >>> units, field = RectifiedUnits(1, num_copies=50), torch.tensor([3.0])
        >>> bool((units.mean(field) - torch.nn.functional.softplus(field)).abs() < 0.01)
        True
    """

    def __init__(self, num_units: int, num_copies: int = 20) -> None:
        super().__init__(num_units)
        if num_copies < 1:
            raise ValueError(f"expected 1 copy or more, got {num_copies}")
        self.num_copies = num_copies
        self.support = constraints.independent(constraints.integer_interval(0, num_copies), 1)

    def _fields(self, field: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(self.num_copies, dtype=field.dtype, device=field.device)
        return field[..., None] - (steps + 0.5) / self.temperature

    def self_energy(self, x: torch.Tensor) -> torch.Tensor:
        """Minus the logarithm of the weight that the copies together give to a count."""
        steps = torch.arange(1, self.num_copies + 1, dtype=x.dtype, device=x.device)
        terms = (-(-steps / self.temperature).exp()).log1p()  # log(1 - q^i)
        sums = torch.cat([terms.new_zeros(1), terms.cumsum(0)])
        log_binomial = sums[-1] - sums - sums.flip(0)
        return (x.square() / (2 * self.temperature) - log_binomial[x.long()]).sum(-1)

    def log_normalizer(self, field: torch.Tensor) -> torch.Tensor:
        """The sum over the copies."""
        total: torch.Tensor = softplus(self._fields(field)).sum((-1, -2))
        return total

    def mean(self, field: torch.Tensor) -> torch.Tensor:
        """The expected number of copies that are on."""
        return self._fields(field).sigmoid().sum(-1)

    def sample(self, field: torch.Tensor) -> torch.Tensor:
        """The number of copies that are on."""
        probs = self._fields(field).sigmoid()
        return (torch.rand_like(probs) < probs).sum(-1).to(field.dtype)

    def num_states(self) -> float:
        """``(n + 1) ** N``."""
        return power(self.num_copies + 1, self.num_units)

    def states(self, like: torch.Tensor) -> torch.Tensor:
        """All states ``((n + 1) ** N, N)``."""
        counts = torch.arange(self.num_copies + 1, dtype=like.dtype, device=like.device)
        return torch.cartesian_prod(*[counts] * self.num_units).reshape(-1, self.num_units)
