# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Kinds of units: what values they take, and how they follow the field that acts on them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.distributions import constraints
from torch.nn.functional import one_hot, softplus
from typing_extensions import Self

from .log_partition import all_states, power
from .supports import OneHotGroups


class Units(nn.Module, ABC):
    r"""Units that are independent given a field :math:`\eta`.

    .. math:: p(x | \eta) = \exp(\eta^T s(x) - e(x) - A(\eta))

    A temperature divides the energy of the units themselves, so that :math:`e` and :math:`A`
    depend on it, see :meth:`at`; fields are over the temperature already.

    Args:
        num_units: number of values of one state.

    Raises:
        ValueError: for numbers out of range.

    Example:
        >>> import torch
        >>> field = torch.tensor([2.0])
        >>> warm = BinaryUnits(1).at(3.0)  # fields are over the temperature, and e is 0 here
        >>> torch.equal(warm.mean(field), BinaryUnits(1).mean(field))
        True
    """

    support: Any
    num_units: int
    temperature: float

    def __init__(self, num_units: int) -> None:
        super().__init__()
        if num_units < 1:
            raise ValueError(f"expected 1 unit or more, got {num_units}")
        self.num_units, self.temperature = num_units, 1.0

    def at(self, temperature: float) -> Self:
        """A view of these units, with the same parameters, at a temperature."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        parts = {
            n: m.at(temperature) if isinstance(m, Units) else m for n, m in self._modules.items()
        }
        new.__dict__.update(_modules=parts, temperature=temperature)
        return new

    def statistic(self, x: torch.Tensor) -> torch.Tensor:
        """``s(x)``, from ``(..., N)`` to ``(..., N)``: what couples to other units."""
        return x

    def self_energy(self, x: torch.Tensor) -> torch.Tensor:
        """``e(x)``, over the temperature, from ``(..., N)`` to ``(...)``."""
        return torch.zeros_like(x[..., 0])

    @abstractmethod
    def log_normalizer(self, field: torch.Tensor) -> torch.Tensor:
        """``A``, from fields ``(..., N)`` to ``(...)``."""

    @abstractmethod
    def mean(self, field: torch.Tensor) -> torch.Tensor:
        """The mean of ``x`` given the field, ``(..., N)``."""

    @abstractmethod
    def sample(self, field: torch.Tensor) -> torch.Tensor:
        """A draw of ``x`` given the field, ``(..., N)``."""

    def field_of(self, mean: torch.Tensor) -> torch.Tensor:
        """A field ``(N,)`` for which units have about this mean.

        Raises:
            ValueError: if there is no closed form.
        """
        raise ValueError(f"{type(self).__name__} have no field in closed form for a mean")

    def num_states(self) -> float:
        """How many states there are together; infinite where they are not finite."""
        return math.inf

    def states(self, like: torch.Tensor) -> torch.Tensor:
        """All states ``(S, N)``.

        Raises:
            ValueError: if they are not finite.
        """
        raise ValueError(f"{type(self).__name__} units have no finite number of states")


class BinaryUnits(Units):
    r"""Units in {0, 1}: :math:`P(x = 1) = \sigma(\eta)`.

    Example:
        >>> import torch
        >>> units, field = BinaryUnits(2), torch.tensor([0.3, -1.0])
        >>> total = (units.states(field) @ field).logsumexp(0)
        >>> bool(torch.isclose(total, units.log_normalizer(field)))
        True
    """

    support = constraints.independent(constraints.boolean, 1)

    def log_normalizer(self, field: torch.Tensor) -> torch.Tensor:
        """``sum_i softplus(field_i)``."""
        total: torch.Tensor = softplus(field).sum(-1)
        return total

    def mean(self, field: torch.Tensor) -> torch.Tensor:
        """The logistic function of the field."""
        return field.sigmoid()

    def sample(self, field: torch.Tensor) -> torch.Tensor:
        """A coin for each unit."""
        return torch.rand_like(field).lt_(field.detach().sigmoid())

    def field_of(self, mean: torch.Tensor) -> torch.Tensor:
        """The logit, of means kept away from 0 and 1."""
        return mean.clamp(0.02, 0.98).logit()

    def num_states(self) -> float:
        """``2 ** N``."""
        return power(2, self.num_units)

    def states(self, like: torch.Tensor) -> torch.Tensor:
        """All states ``(2 ** N, N)``."""
        return all_states(self.num_units, like)


class SoftmaxUnits(Units):
    r"""Groups of ``K`` units of which exactly one is on: one-hot vectors side by side.

    Args:
        num_groups: number of groups.
        num_classes: ``K``.

    References:
        Restricted Boltzmann Machines for Collaborative Filtering, Ruslan Salakhutdinov, Andriy
        Mnih and Geoffrey Hinton, 2007.

    Example:
        >>> import torch
        >>> units = SoftmaxUnits(2, 3)
        >>> units.sample(torch.randn(5, 6)).reshape(5, 2, 3).sum(-1).unique().tolist()
        [1.0]
    """

    def __init__(self, num_groups: int, num_classes: int) -> None:
        super().__init__(num_groups * num_classes)
        if num_classes < 2:
            raise ValueError(f"expected 2 classes or more, got {num_classes}")
        self.num_groups, self.num_classes = num_groups, num_classes
        self.support = OneHotGroups(num_classes)

    def _grouped(self, field: torch.Tensor) -> torch.Tensor:
        groups: torch.Tensor = field.unflatten(-1, (self.num_groups, self.num_classes))
        return groups

    def log_normalizer(self, field: torch.Tensor) -> torch.Tensor:
        """The sum over groups of the log-sum-exp of a group's fields."""
        return self._grouped(field).logsumexp(-1).sum(-1)

    def mean(self, field: torch.Tensor) -> torch.Tensor:
        """The softmax of each group's fields."""
        return self._grouped(field).softmax(-1).flatten(-2)

    def sample(self, field: torch.Tensor) -> torch.Tensor:
        """A class for each group, by the largest of its fields with Gumbel noise."""
        gumbel = -(-torch.rand_like(field).clamp_min(torch.finfo(field.dtype).tiny).log()).log()
        chosen = self._grouped(field + gumbel).argmax(-1)
        return one_hot(chosen, self.num_classes).to(field.dtype).flatten(-2)

    def field_of(self, mean: torch.Tensor) -> torch.Tensor:
        """The logarithm, of means kept away from 0."""
        return mean.clamp(min=0.02).log()

    def num_states(self) -> float:
        """``K ** num_groups``."""
        return power(self.num_classes, self.num_groups)

    def states(self, like: torch.Tensor) -> torch.Tensor:
        """All states ``(K ** num_groups, N)``."""
        classes = torch.arange(self.num_classes, device=like.device)
        chosen = torch.cartesian_prod(*[classes] * self.num_groups).reshape(-1, self.num_groups)
        return one_hot(chosen, self.num_classes).to(like.dtype).flatten(-2)


class GaussianUnits(Units):
    r"""Real units with variances :math:`\sigma^2` that are learned.

    .. math:: s(x) = x / \sigma^2, \quad e(x) = \tfrac12 x^2 / \sigma^2, \quad
        x | \eta \sim N(\eta, \sigma^2)

    Args:
        num_units: number of units.
        learn_variance: whether the variances are parameters; else they stay 1.

    References:
        Improved learning of Gaussian-Bernoulli restricted Boltzmann machines, KyungHyun Cho,
        Alexander Ilin and Tapani Raiko, 2011.

    Example:
        >>> import torch
        >>> units = GaussianUnits(3)
        >>> units.mean(torch.tensor([1.0, 2.0, 3.0])).tolist()
        [1.0, 2.0, 3.0]
    """

    support = constraints.real_vector

    def __init__(self, num_units: int, learn_variance: bool = True) -> None:
        super().__init__(num_units)
        zeros = torch.zeros(num_units)
        self.log_variance: torch.Tensor
        if learn_variance:
            self.log_variance = nn.Parameter(zeros)
        else:
            self.register_buffer("log_variance", zeros)

    def statistic(self, x: torch.Tensor) -> torch.Tensor:
        """The value in units of the variance."""
        return x * (-self.log_variance).exp()

    def self_energy(self, x: torch.Tensor) -> torch.Tensor:
        """Half the square in units of the variance."""
        return (0.5 / self.temperature) * (x.square() * (-self.log_variance).exp()).sum(-1)

    def log_normalizer(self, field: torch.Tensor) -> torch.Tensor:
        """The logarithm of the Gaussian integral."""
        scaled = self.temperature * field.square() * (-self.log_variance).exp()
        return 0.5 * (scaled + self.log_variance + math.log(2 * math.pi * self.temperature)).sum(-1)

    def mean(self, field: torch.Tensor) -> torch.Tensor:
        """The field itself, at temperature 1."""
        return self.temperature * field

    def sample(self, field: torch.Tensor) -> torch.Tensor:
        """A normal draw around the mean."""
        scale = math.sqrt(self.temperature) * (0.5 * self.log_variance).exp()
        return self.temperature * field + scale * torch.randn_like(field)

    def field_of(self, mean: torch.Tensor) -> torch.Tensor:
        """The mean itself, at temperature 1."""
        return mean / self.temperature


class FreeUnits:
    """The law of units that a given field acts on, without others, as a base of annealing.

    Args:
        units: the units.
        field: ``(N,)``, over the temperature.

    Example:
        >>> import torch
        >>> law = FreeUnits(SoftmaxUnits(1, 3), torch.tensor([1.0, 0.0, 2.0]))
        >>> bool(torch.isclose(law.log_prob(torch.eye(3)).logsumexp(0), torch.zeros(()), atol=1e-6))
        True
    """

    def __init__(self, units: Units, field: torch.Tensor) -> None:
        self.units, self.field = units, field
        self.event_shape, self.batch_shape = field.shape, torch.Size()
        self.support = units.support

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> torch.Tensor:
        """Draws ``(*sample_shape, N)``."""
        field = self.field.expand(*sample_shape, -1).contiguous()
        return self.units.sample(field)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """The log-probability ``(...)`` of ``(..., N)``."""
        score = (self.units.statistic(x) * self.field).sum(-1)
        score = score - self.units.self_energy(x)
        return score - self.units.log_normalizer(self.field)
