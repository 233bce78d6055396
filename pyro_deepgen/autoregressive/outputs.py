# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Families of one variable's distribution given the variables before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributions import constraints
from torch.nn.functional import logsigmoid, one_hot


class Output(ABC):
    r"""A family :math:`p(x_d; \theta_d)` of one variable, whose parameters a network puts out.

    A value is a function of the parameters and of random numbers that do not depend on them
    (:meth:`draw` and :meth:`noise`). So two ways of computing the parameters can be compared draw
    by draw.

    Example:
        >>> import torch
        >>> output = BinaryOutput()
        >>> theta = torch.randn(5, output.num_parameters)
        >>> p = sum(output.log_prob(theta, torch.full((5,), x)).exp() for x in (0.0, 1.0))
        >>> torch.allclose(p, torch.ones(5))
        True
    """

    has_rsample = False
    """Whether draws are differentiable functions of the parameters."""

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Number of parameters of a variable."""

    @property
    def num_inputs(self) -> int:
        """Number of numbers by which a value enters a network."""
        return 1

    @property
    @abstractmethod
    def support(self) -> Any:
        """The values of a variable, as a constraint."""

    @property
    def num_values(self) -> int | None:
        """Number of values 0, 1, ... of a variable, ``None`` for a real one."""
        return None

    @abstractmethod
    def log_prob(self, parameters: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Log-density of values ``(...)`` under parameters ``(..., P)``."""

    @abstractmethod
    def noise(self, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Random numbers for draws of a shape, ``(*shape, R)``; dtype and device of ``like``."""

    @abstractmethod
    def draw(self, parameters: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Values ``(...)`` from parameters ``(..., P)`` and random numbers ``(..., R)``."""

    def encode(self, value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """What a network sees of values ``(...)``: ``(..., E)``, of the dtype of ``like``."""
        return value.to(like.dtype).unsqueeze(-1)


@dataclass(frozen=True)
class BinaryOutput(Output):
    r"""A variable that is 0 or 1, :math:`p(x_d = 1) = \sigma(\theta_d)`.

    Example:
        >>> import torch
        >>> logit, x = torch.tensor([0.7]), torch.tensor(1.0)
        >>> torch.allclose(BinaryOutput().log_prob(logit, x).exp(), logit.sigmoid())
        True
    """

    @property
    def num_parameters(self) -> int:
        """The logit."""
        return 1

    @property
    def support(self) -> Any:
        """0 and 1."""
        return constraints.boolean

    @property
    def num_values(self) -> int:
        """Two."""
        return 2

    def log_prob(self, parameters: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Log-probability of values ``(...)``, 0 or 1, under logits ``(..., 1)``."""
        logits = parameters.squeeze(-1)
        # The sign goes in first: a difference of two terms would lose digits for large logits.
        # A product takes a third of the time of a choice, above all backwards.
        sign = value.detach().to(logits.dtype).mul(2).sub_(1)
        return logsigmoid(sign * logits)

    def noise(self, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """One uniform number for each draw."""
        return torch.rand((*shape, 1), dtype=like.dtype, device=like.device)

    def draw(self, parameters: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """1 where the uniform number is below the probability of it."""
        return (noise < parameters.sigmoid()).squeeze(-1).to(parameters.dtype)


@dataclass(frozen=True)
class CategoricalOutput(Output):
    r"""A variable with ``num_classes`` values, :math:`p(x_d = k) \propto e^{\theta_{dk}}`.

    Values are whole numbers from 0; networks see them as one-hot vectors.

    Args:
        num_classes: number of values.

    Raises:
        ValueError: if ``num_classes < 2``.

    Example:
        >>> import torch
        >>> output, theta = CategoricalOutput(3), torch.randn(3)
        >>> p = output.log_prob(theta.expand(3, 3), torch.arange(3)).exp()
        >>> torch.allclose(p, theta.softmax(-1))
        True
    """

    num_classes: int

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f"expected at least 2 classes, got {self.num_classes}")

    @property
    def num_parameters(self) -> int:
        """One logit a class."""
        return self.num_classes

    @property
    def num_inputs(self) -> int:
        """One number a class."""
        return self.num_classes

    @property
    def support(self) -> Any:
        """The whole numbers from 0 to the number of classes less 1."""
        return constraints.integer_interval(0, self.num_classes - 1)

    @property
    def num_values(self) -> int:
        """The number of classes."""
        return self.num_classes

    def log_prob(self, parameters: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Log-probability of classes ``(...)`` under logits ``(..., num_classes)``."""
        scores = parameters.log_softmax(-1)
        index = value.long().unsqueeze(-1).expand((*scores.shape[:-1], 1))
        return scores.gather(-1, index).squeeze(-1)

    def noise(self, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """One uniform number for each draw."""
        return torch.rand((*shape, 1), dtype=like.dtype, device=like.device)

    def draw(self, parameters: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The class in whose share of the unit interval the uniform number lies."""
        return pick_class(parameters, noise)

    def encode(self, value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """One-hot vectors."""
        return one_hot(value.long(), self.num_classes).to(like.dtype)


def pick_class(
    logits: torch.Tensor, uniform: torch.Tensor, *, keepdim: bool = False
) -> torch.Tensor:
    """Return the class in whose share of the unit interval a number lies.

    Args:
        logits: logits of the classes, ``(..., K)``.
        uniform: numbers from 0 to 1, ``(..., 1)``.
        keepdim: whether to return ``(..., 1)`` instead of ``(...)``.

    Example:
        >>> import torch
        >>> pick_class(torch.zeros(3, 2), torch.tensor([[0.1], [0.4], [0.6]])).tolist()
        [0, 0, 1]
    """
    ends = logits.softmax(-1).cumsum(-1)[..., :-1]  # rounding of the last one cannot matter
    return (uniform >= ends).sum(-1, keepdim=keepdim)
