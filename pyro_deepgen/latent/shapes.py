# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Batches, events and plates of model/guide pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn

_WITHOUT_MEAN = (
    torch.distributions.Categorical,
    torch.distributions.Cauchy,
    torch.distributions.HalfCauchy,
    torch.distributions.OneHotCategorical,
)


def center(distribution: TorchDistributionMixin) -> torch.Tensor:
    """The mean of a distribution, or its mode where a mean is not a value of the right kind.

    Args:
        distribution: a distribution with a mean or a mode.

    Returns:
        A tensor of shape ``batch_shape + event_shape``.

    Raises:
        ValueError: if it has neither.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> center(dist.Categorical(torch.tensor([0.1, 0.9])))
        tensor(1)
    """
    base = distribution
    while isinstance(base, torch.distributions.Independent):
        base = base.base_dist
    try:
        value: torch.Tensor = (
            distribution.mode if isinstance(base, _WITHOUT_MEAN) else distribution.mean
        )
    except NotImplementedError as error:
        raise ValueError(
            f"expected a distribution with a mean, but {type(base).__name__} has none in closed "
            "form: draw instead (reconstruct(x, sample=True), sample(n, mean=False))"
        ) from error
    return value


def data_plates(batch_shape: Sequence[int], data_size: int | None = None) -> ExitStack:
    """Open the plate ``"data"`` on the last batch dimension, ``"data_2"`` on the one before, ...

    Args:
        batch_shape: shape of the batch; ``()`` opens no plate.
        data_size: size of the whole data set of which the batch is a part, which scales the
            log-probabilities by ``data_size / batch size``.

    Raises:
        ValueError: if ``data_size`` is less than the batch, or comes with a batch that does not
            have exactly one dimension.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> with data_plates((2, 3)):
        ...     pyro.sample("z", dist.Normal(0.0, 1.0)).shape
        torch.Size([2, 3])
    """
    sizes = tuple(batch_shape)
    if data_size is not None and (len(sizes) != 1 or sizes[0] > data_size):
        raise ValueError(
            f"data_size={data_size} scales a batch of at most that many data with one batch "
            f"dimension, got batch shape {sizes}"
        )
    with ExitStack() as stack:  # closes the plates that are open if a further one fails
        for i, size in enumerate(reversed(sizes)):
            name = "data" if i == 0 else f"data_{i + 1}"
            part = None if data_size is None else torch.arange(size)
            stack.enter_context(pyro.plate(name, data_size or size, subsample=part, dim=-1 - i))
        return stack.pop_all()


def as_events(
    distribution: TorchDistributionMixin, batch_shape: Sequence[int], role: str
) -> TorchDistributionMixin:
    """Give a distribution a batch shape, and read what is to the right of it as the event.

    A distribution over events with fewer batch dimensions (a flow from an unexpanded base) is
    expanded.

    Args:
        distribution: a distribution over single variables, or already over events.
        batch_shape: the batch shape that its network's input has.
        role: what the distribution is, for the error.

    Raises:
        ValueError: if it is no Pyro distribution, or does not have the batch's dimensions.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> as_events(dist.Bernoulli(logits=torch.zeros(5, 8, 8)), (5,), "likelihood").event_shape
        torch.Size([8, 8])
        >>> vector = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> as_events(vector, (5,), "posterior").batch_shape
        torch.Size([5])
    """
    if not isinstance(distribution, TorchDistributionMixin):
        raise ValueError(
            f"expected a Pyro distribution for the {role}, got {type(distribution)!r}: make it "
            "with pyro.distributions (import pyro.distributions as dist; dist.Normal(loc, scale)), "
            "not with torch.distributions, and do not draw from it"
        )
    batch, present = tuple(batch_shape), tuple(distribution.batch_shape)
    extra = len(present) - len(batch)
    if extra < 0 and distribution.event_dim and _broadcasts(present, batch):
        return distribution.expand(batch)
    if extra < 0:
        raise ValueError(
            f"expected the distribution of the {role} to have at least {len(batch)} batch "
            "dimensions, as many as its network's input, or to be over events and to broadcast to "
            f"that batch; got batch_shape {present} and event_shape "
            f"{tuple(distribution.event_shape)}"
        )
    return distribution.to_event(extra) if extra else distribution


def _broadcasts(shape: Sequence[int], to: Sequence[int]) -> bool:
    aligned = to[len(to) - len(shape) :]
    return all(old in (1, new) for old, new in zip(shape, aligned, strict=True))


def batch_shape_of(x: torch.Tensor, data_shape: Sequence[int]) -> torch.Size:
    """The dimensions of ``x`` to the left of one datum.

    Args:
        x: data of shape ``(*batch, *data_shape)``.
        data_shape: shape of one datum.

    Raises:
        ValueError: if ``x`` does not end in ``data_shape``.

    Example:
        >>> import torch
        >>> batch_shape_of(torch.zeros(5, 1, 8, 8), (1, 8, 8))
        torch.Size([5])
    """
    split = x.dim() - len(data_shape)
    if split < 0 or tuple(x.shape[split:]) != tuple(data_shape):
        raise ValueError(
            f"expected data of shape (*batch, {', '.join(map(str, data_shape))}), got "
            f"{tuple(x.shape)}: reshape the data, or make the pair for data of that shape"
        )
    return x.shape[:split]


def check_in_support(x: torch.Tensor, likelihood: TorchDistributionMixin) -> None:
    """Refuse data of the wrong kind and, under Pyro's validation, outside the support.

    Args:
        x: data.
        likelihood: the distribution that is to score them.

    Raises:
        ValueError: if some of ``x`` lies outside the support, or if a Bernoulli distribution is to
            score data that are not floating point, or any to score booleans.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> check_in_support(torch.tensor([0.0, 1.0]), dist.Bernoulli(torch.tensor([0.3, 0.3])))
    """
    base = likelihood
    while isinstance(base, torch.distributions.Independent):
        base = base.base_dist
    binary = isinstance(base, torch.distributions.Bernoulli)
    if x.dtype == torch.bool or (binary and not x.is_floating_point()):
        raise ValueError(
            f"expected floating-point data for a {type(base).__name__} likelihood, got {x.dtype}: "
            "for data that are 0 or 1 give x.float(); scale grey images to [0, 1] and binarise "
            "them (pyro_deepgen.datasets.binarize), or use another likelihood"
        )
    if not base._validate_args:
        return
    try:
        support = likelihood.support
    except NotImplementedError:  # a distribution that does not say what it can produce
        return
    if bool(support.check(x).all()):
        return
    if binary:
        way_out = "binarise them (pyro_deepgen.datasets.binarize) or use another likelihood"
    else:
        way_out = "bring them to these values, or use another likelihood"
    raise ValueError(
        f"expected data in the support of {type(base).__name__}, {support}, got "
        f"{x.dtype} values from {float(x.min()):g} to {float(x.max()):g}: {way_out}"
    )


def parameter_of(network: Callable[..., torch.Tensor]) -> torch.Tensor:
    """A parameter of a network, for its dtype and device, or an empty tensor where it has none.

    Args:
        network: a module or function.

    Example:
        >>> import torch
        >>> parameter_of(torch.nn.Linear(3, 2).double()).dtype
        torch.float64
    """
    parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
    return next(parameters, torch.empty(0))


def standard_normal(dim: int) -> TorchDistributionMixin:
    """The standard normal distribution over vectors of ``dim`` numbers.

    Args:
        dim: number of dimensions.

    Example:
        >>> standard_normal(3).event_shape
        torch.Size([3])
    """
    normal: TorchDistributionMixin = dist.Normal(torch.zeros(dim), torch.ones(dim)).to_event(1)
    return normal
