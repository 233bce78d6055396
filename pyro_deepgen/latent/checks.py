# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What is checked once, when a pair is made: do networks, families and prior fit together?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn
from torch.random import fork_rng

from ..distributions import DistributionModule
from ..nn import evaluating
from .conditional import Conditional, ConditionsOnContext
from .shapes import as_events, parameter_of
from .wiring import Network


def probe(network: Callable[..., torch.Tensor], role: str, *shapes: Sequence[int]) -> torch.Tensor:
    """Call a network once, on a batch of one datum of zeros, to learn the shape of its output.

    Args:
        network: a module or function.
        role: its name in the error.
        shapes: shape of each argument, without the batch dimension.

    Returns:
        The output, of shape ``(1, *output)``.

    Raises:
        ValueError: if the network cannot take such arguments, does not give a tensor, or is a
            function that uses parameters which no optimiser would find.

    Example:
        >>> from torch import nn
        >>> probe(nn.Linear(3, 2), "decoder", (3,)).shape
        torch.Size([1, 2])
    """
    like = parameter_of(network)
    zeros = [like.new_zeros((1, *s)) for s in shapes]
    try:
        # Batch normalisation keeps its statistics, and takes one datum.
        with evaluating(network), torch.enable_grad():
            output = network(*zeros)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"the {role} cannot take {len(shapes)} argument(s) of shapes "
            f"{[(1, *s) for s in shapes]} (one datum): {error}"
        ) from error
    if not isinstance(output, torch.Tensor):
        raise ValueError(
            f"expected the {role} to give one tensor, got {type(output).__name__}: join what it "
            "gives in its last dimension, as torch.cat([loc, log_scale], -1) for "
            "DiagonalNormalPosterior, which reads the logarithms of standard deviations (half of "
            "log-variances)"
        )
    if output.requires_grad and not isinstance(network, nn.Module):
        raise ValueError(
            f"expected as {role} a torch.nn.Module, got a function that uses trainable parameters, "
            "which no optimiser would find: put it into a module that holds them"
        )
    return output.detach()


def check_network(
    network: Network,
    family: ConditionsOnContext,
    role: str,
    event_shape: Sequence[int] | None,
    *shapes: Sequence[int],
    prior: DistributionModule | None = None,
) -> tuple[int, ...]:
    """Run a network and its family on one datum of zeros and check what they give.

    Args:
        network: the network.
        family: what its output parametrises.
        role: ``"encoder"``, ``"decoder"``, ..., named in errors.
        event_shape: the shape that draws must have, or ``None`` to accept any.
        shapes: shape of each of the network's arguments, without the batch dimension.
        prior: the distribution whose values the draws must be, if any.

    Returns:
        The shape of draws.

    Raises:
        ValueError: if the network's output does not fit the family, or draws the ``event_shape``
            or the support of ``prior``; if the family uses parameters that neither it nor the
            network holds.

    Example:
        >>> from torch import nn
        >>> from pyro_deepgen.latent import DiagonalNormalPosterior
        >>> check_network(nn.Linear(3, 4), DiagonalNormalPosterior(), "encoder", (2,), (3,))
        (2,)
    """
    output = probe(network, role, *shapes)
    if isinstance(family, Conditional) and event_shape is not None:
        expected = family.params_shape(event_shape)
        if tuple(output.shape[1:]) != expected:
            raise ValueError(
                f"expected the {role} to give {expected} numbers a datum, the parameters of "
                f"{type(family).__name__} for draws of shape {tuple(event_shape)}, got "
                f"{tuple(output.shape[1:])}"
            )
    devices = [output.device] if output.is_cuda else []
    with fork_rng(devices), evaluating(family):  # leaves the random stream as it was
        try:
            with torch.enable_grad():
                distribution = as_events(family.condition(output), (1,), role)
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(
                f"{type(family).__name__} cannot read the {role}'s output of shape "
                f"{tuple(output.shape)} (one datum) as its parameters: {error}"
            ) from error
        found = tuple(distribution.event_shape)
        if event_shape is not None and found != tuple(event_shape):
            raise ValueError(
                f"expected the {role}'s distribution to have event_shape {tuple(event_shape)}, got "
                f"{found}"
            )
        with torch.enable_grad():
            _check_held(distribution, family, network, role)
        if prior is not None:
            _check_support(distribution, prior, role)
    return found


def _check_held(
    distribution: TorchDistributionMixin,
    family: ConditionsOnContext,
    network: Network,
    role: str,
) -> None:
    """Refuse trainable tensors in a distribution that are parameters of none of its makers."""
    makers = [m for m in (family, network) if isinstance(m, nn.Module)]
    held = {id(p) for m in makers for p in m.parameters()}
    lost = [t for t in _leaves(_trainable(distribution)) if id(t) not in held]
    if lost:
        raise ValueError(
            f"expected a torch.nn.Module that holds its parameters, but the distribution which "
            f"{type(family).__name__} makes of the {role}'s output depends on trainable tensors "
            f"(of shapes {[tuple(t.shape) for t in lost]}) that are parameters of neither of them, "
            "so no optimiser would find them: write a module with a method condition(context), "
            "such as a subclass of Conditional, that has them as attributes, or detach() them"
        )


def _trainable(distribution: TorchDistributionMixin) -> list[torch.Tensor]:
    """Tensors that carry gradients to everything trainable in a distribution."""
    base = distribution
    while isinstance(base, torch.distributions.Independent):
        base = base.base_dist
    if isinstance(base, nn.Module):  # a draw may be slow, and a module tells what it holds
        return [*base.parameters(), *(t for t in vars(base).values() if torch.is_tensor(t))]
    draw = distribution.rsample() if distribution.has_rsample else distribution.sample()
    found = [draw]
    with suppress(NotImplementedError):  # a distribution to draw from only
        found.append(distribution.log_prob(draw))
    return found


def _leaves(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The leaves of the autograd graphs of tensors."""
    leaves: dict[int, torch.Tensor] = {}
    stack, seen = [], set()
    for tensor in tensors:
        if tensor.grad_fn is not None:
            stack.append(tensor.grad_fn)
        elif tensor.requires_grad:
            leaves[id(tensor)] = tensor
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            leaves[id(leaf)] = leaf
        stack += [following for following, _ in node.next_functions if following is not None]
    return list(leaves.values())


def _check_support(posterior: TorchDistributionMixin, prior: DistributionModule, role: str) -> None:
    """Refuse a posterior that draws what the prior cannot."""
    wanted: Any
    try:
        wanted, given = prior.support, posterior.support
    except NotImplementedError:  # a distribution that does not say what it can produce
        return
    discrete = [bool(getattr(c, "is_discrete", False)) for c in (wanted, given)]
    held = chain(prior.parameters(), prior.buffers())  # networks may be on a device already
    draws = posterior.sample((32,)).to(next(held, torch.empty(0)).device)
    if discrete[0] == discrete[1] and bool(wanted.check(draws).all()):
        return
    raise ValueError(
        f"expected the distribution of the {role} to draw values that the prior can have, "
        f"{wanted}, but it is over {given}: give posterior=..., a function from the encoder's "
        "output to a distribution over the prior's values (dist.LogNormal for positive latents, "
        "dist.Bernoulli for binary ones), or another prior"
    )
