# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Networks, families of distributions and priors joined into the parts of a pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin

from ..distributions import BufferedDistribution, DistributionModule
from ..nn import apply_batched
from .conditional import ConditionsOnContext
from .shapes import as_events, parameter_of, standard_normal

Network = Callable[..., torch.Tensor]
Family = ConditionsOnContext | Callable[[torch.Tensor], TorchDistributionMixin]


def as_prior(prior: TorchDistributionMixin | None, latent_dim: int) -> DistributionModule:
    """Keep a prior as a module: the standard normal for ``None``, its tensors as buffers.

    Args:
        prior: any Pyro distribution over vectors of ``latent_dim`` numbers.
        latent_dim: number of latent dimensions.

    Raises:
        ValueError: if draws of the prior do not have the shape ``(latent_dim,)``.

    Example:
        >>> as_prior(None, 3).event_shape
        torch.Size([3])
    """
    if prior is None:
        prior = standard_normal(latent_dim)
    if not isinstance(prior, TorchDistributionMixin) or (
        tuple(prior.batch_shape) != () or tuple(prior.event_shape) != (latent_dim,)
    ):
        raise ValueError(
            f"expected as prior a Pyro distribution with batch_shape () and event_shape "
            f"({latent_dim},), got {prior!r}; write dist.Normal(torch.zeros({latent_dim}), "
            f"torch.ones({latent_dim})).to_event(1), say"
        )
    return prior if isinstance(prior, DistributionModule) else BufferedDistribution(prior)


def plain(prior: DistributionModule) -> TorchDistributionMixin:
    """The distribution inside a :class:`BufferedDistribution`, so that closed-form KLs apply.

    Args:
        prior: a prior kept as a module.

    Example:
        >>> type(plain(as_prior(None, 3))).__name__
        'Independent'
    """
    return prior.distribution if isinstance(prior, BufferedDistribution) else prior


def feed(network: Network, inputs: Sequence[torch.Tensor], event_dim: int) -> torch.Tensor:
    """Call a network on any number of batch dimensions, with whole numbers as floating point.

    Args:
        network: a function of one batch dimension.
        inputs: the network's arguments: the first of shape ``(*batch, *event)``, the others of
            shape ``(*batch, context_dim)``.
        event_dim: number of event dimensions of the first input.

    Returns:
        The output, of shape ``(*batch, *output)``.

    Example:
        >>> import torch
        >>> feed(torch.nn.Linear(3, 4), [torch.zeros(5, 3, dtype=torch.long)], 1).shape
        torch.Size([5, 4])
    """
    dtype = parameter_of(network).dtype
    first, *context = (i if i.is_floating_point() else i.to(dtype) for i in inputs)
    return apply_batched(network, first, event_dim, *context)


def conditional_of(
    network: Network,
    family: ConditionsOnContext,
    inputs: Sequence[torch.Tensor],
    event_dim: int,
    role: str,
) -> TorchDistributionMixin:
    """Feed a network, and give its output to a family of distributions.

    Args:
        network: a function of one batch dimension.
        family: what the output parametrises.
        inputs: the network's arguments: the first of shape ``(*batch, *event)``, the others of
            shape ``(*batch, context_dim)``.
        event_dim: number of event dimensions of the first input.
        role: name of the distribution in errors.

    Returns:
        A distribution with the batch shape of the inputs.

    Raises:
        ValueError: if the family refuses the network's output, with the range of the inputs.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from pyro_deepgen.latent import DiagonalNormalPosterior
        >>> family = DiagonalNormalPosterior()
        >>> q = conditional_of(nn.Linear(3, 4), family, [torch.zeros(5, 3)], 1, "posterior")
        >>> q.batch_shape, q.event_shape
        (torch.Size([5]), torch.Size([2]))
    """
    params = feed(network, inputs, event_dim)
    first, *context = inputs
    batch = torch.broadcast_shapes(
        first.shape[: first.dim() - event_dim], *(c.shape[:-1] for c in context)
    )
    try:
        distribution = family.condition(params)
    except ValueError as error:
        seen = [f"{float(i.min()):g} to {float(i.max()):g}" for i in inputs if i.numel()]
        raise ValueError(
            f"the network of the {role} gave parameters that {type(family).__name__} refuses, for "
            f"inputs from {' and from '.join(seen)}: bring the data to a range near 1, or, where "
            f"training diverged, lower the learning rate or clip gradients ({error})"
        ) from error
    return as_events(distribution, batch, role)
