# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""From the output of a network to a distribution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn

from ..distributions.parts import HoldsParts


@runtime_checkable
class ConditionsOnContext(Protocol):
    """Anything with ``condition(context)``: a flow, an autoregressive net, a :class:`Conditional`.

    Example:
        >>> from pyro_deepgen.latent import BernoulliLikelihood
        >>> isinstance(BernoulliLikelihood(), ConditionsOnContext)
        True
    """

    def condition(self, context: torch.Tensor) -> TorchDistributionMixin:
        """Return the distribution given the context."""
        ...


class Conditional(nn.Module, ABC):
    """A family of distributions whose parameters are the output of a network.

    A subclass says how many numbers the network must give (:meth:`params_shape`) and what they
    mean (:meth:`condition`). The network does not know the distribution, nor the distribution the
    network. Dimensions of the result to the left of an event may be left as batch dimensions: the
    model/guide pairs read them as part of the event.

    Example:
        >>> from pyro_deepgen.latent import DiagonalNormalPosterior
        >>> DiagonalNormalPosterior().params_shape((5,))
        (10,)
    """

    @abstractmethod
    def params_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the network's output for events of shape ``event_shape``."""

    @abstractmethod
    def condition(self, context: torch.Tensor) -> TorchDistributionMixin:
        """Return the distribution with parameters ``context``, ``(*batch, *params_shape)``."""


class _FunctionConditional(nn.Module):
    """A plain function from a network's output to a distribution, kept with its parameters."""

    def __init__(self, function: Callable[[torch.Tensor], TorchDistributionMixin]) -> None:
        super().__init__()
        self.function = function

    def condition(self, context: torch.Tensor) -> TorchDistributionMixin:
        return self.function(context)


class _PyroConditional(HoldsParts):
    """One of Pyro's conditional distributions, which are no modules, kept with its parts."""

    def __init__(self, family: dist.ConditionalDistribution) -> None:
        super().__init__()
        self._hold(family)

    def condition(self, context: torch.Tensor) -> TorchDistributionMixin:
        given: TorchDistributionMixin = self._put_together().condition(context)
        return given


def as_conditional(
    family: ConditionsOnContext | Callable[[torch.Tensor], TorchDistributionMixin], role: str
) -> ConditionsOnContext:
    """Accept anything with ``condition(context)``, or a function from a context to a distribution.

    A module is returned as it is; one of Pyro's conditional distributions becomes a module, so that
    the parameters of its transforms are trained, moved and saved.

    Args:
        family: what the user gave.
        role: what it is for, named in the error.

    Raises:
        ValueError: if ``family`` is neither.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> family = as_conditional(lambda logits: dist.Bernoulli(logits=logits), "likelihood")
        >>> family.condition(torch.zeros(3)).batch_shape
        torch.Size([3])
    """
    if isinstance(family, dist.ConditionalDistribution) and not isinstance(family, nn.Module):
        return _PyroConditional(family)
    if isinstance(family, ConditionsOnContext) and not isinstance(family, type):
        return family
    if (
        isinstance(family, type)
        or not callable(family)
        or isinstance(family, TorchDistributionMixin)
    ):
        raise ValueError(
            f"expected as {role} an object with condition(context), such as an instance of "
            "BernoulliLikelihood, or a function from the network's output to a distribution; got "
            f"{family!r}"
        )
    return _FunctionConditional(family)


def check_width(context: torch.Tensor, width: int, family: str, role: str) -> None:
    """Refuse a network's output whose last dimension is not that of a family's parameters.

    Args:
        context: the output, of shape ``(*batch, *data, width)``.
        width: number of parameters of one variable.
        family: name of the family in the error.
        role: what the parameters are, for the error.

    Raises:
        ValueError: if the last dimension is another.

    Example:
        >>> import torch
        >>> check_width(torch.zeros(5, 8, 2), 2, "GaussianLikelihood", "the mean and raw scale")
    """
    if context.dim() == 0 or context.shape[-1] != width:
        raise ValueError(
            f"{family} expected a last dimension of {width}, {role} of each variable, got shape "
            f"{tuple(context.shape)}: use ConvDecoder(..., params_per_pixel={width}) or "
            f"MLP(..., (*data_shape, {width})), say"
        )


def with_params_shape(family: Conditional, role: str) -> Conditional:
    """Refuse a family that does not say how many numbers a network must give.

    Args:
        family: what the user gave to a factory that makes the networks.
        role: what it is for, named in the error.

    Raises:
        ValueError: if ``family`` has no ``params_shape``.

    Example:
        >>> from pyro_deepgen.latent import BernoulliLikelihood
        >>> with_params_shape(BernoulliLikelihood(), "likelihood").params_shape((3,))
        (3,)
    """
    if isinstance(family, type) or not hasattr(family, "params_shape"):
        raise ValueError(
            f"expected as {role} an object with params_shape, which says how many numbers its "
            f"network must give, such as an instance of a Conditional; got {family!r}: for any "
            "other, make the networks yourself and give them to the class"
        )
    return family
