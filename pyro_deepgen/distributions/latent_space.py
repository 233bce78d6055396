# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Ways through the latent space of a flow: from one datum to another, and along an attribute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from .flow import FlowDistribution

Path = Literal["linear", "great_circle"]


def latent_path(
    start: Tensor,
    end: Tensor,
    num: int,
    path: Path = "linear",
    *,
    center: Tensor | float = 0.0,
    event_dim: int = 1,
) -> Tensor:
    r"""Return equal steps from one latent point to another.

    .. math:: x_t = (1 - t)\, x_0 + t\, x_1 \qquad \text{or} \qquad
        x_t = \mu + r_t\, \frac{\sin((1 - t) \omega)\, e_0 + \sin(t \omega)\, e_1}{\sin \omega}

    for :math:`t = 0, \dots, 1`. The second is the great circle about the centre :math:`\mu`:
    :math:`e_0` and :math:`e_1` are the directions from there to the ends, :math:`\omega` is the
    angle between them, and the distance :math:`r_t` changes evenly. Draws of a normal distribution
    of many dimensions have nearly the same distance from its mean, and the middle of the straight
    line between two of them is nearer than any draw; the great circle keeps the distance.

    Args:
        start: :math:`x_0`, of shape ``(*batch, *event)``.
        end: :math:`x_1`, of a shape that broadcasts with it.
        num: number of points, the two ends included; at least 2.
        path: ``"linear"`` or ``"great_circle"``.
        center: :math:`\mu`, a number or a tensor that broadcasts to the ends.
        event_dim: number of dimensions of one latent point.

    Returns:
        The points, of shape ``(num, *batch, *event)``.

    Raises:
        ValueError: if ``num`` is below 2 or the path unknown; if ``event_dim`` does not fit; if
            there is no one great circle, since an end is the centre, or the ends are opposite.

    References:
        Sampling Generative Networks, White, 2016, arXiv:1609.04468.

    Example:
        >>> import torch
        >>> ends = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
        >>> latent_path(*ends, 5).norm(dim=-1).min() < 1.5
        tensor(True)
        >>> torch.allclose(latent_path(*ends, 5, "great_circle").norm(dim=-1), torch.tensor(2.0))
        True
    """
    if isinstance(num, bool) or not isinstance(num, int) or num < 2:
        raise ValueError(f"expected at least 2 points, the two ends, got num={num}")
    if path not in get_args(Path):
        raise ValueError(f"expected the path 'linear' or 'great_circle', got {path!r}")
    start, end = torch.broadcast_tensors(start, end)
    if not 0 <= event_dim <= start.dim():
        raise ValueError(
            f"expected event_dim from 0 to the {start.dim()} dimensions of the ends, whose shape "
            f"is {tuple(start.shape)}, got {event_dim}"
        )
    t = torch.linspace(0, 1, num, dtype=start.dtype, device=start.device)
    t = t.reshape(num, *(1,) * start.dim())
    if path == "linear":
        return torch.lerp(start, end, t)
    return center + _arc(start - center, end - center, t, event_dim)


def _arc(start: Tensor, end: Tensor, t: Tensor, event_dim: int) -> Tensor:
    """Turn from one vector to another about the origin."""
    first, last = _length(start, event_dim), _length(end, event_dim)
    if not bool((first * last > 0).all()):
        raise ValueError(
            "expected ends with a direction from the centre, got one that is the centre: take "
            "path='linear'"
        )
    e0, e1 = start / first, end / last
    # By its halves: the arc cosine is rough for small angles.
    angle = 2 * torch.atan2(_length(e0 - e1, event_dim), _length(e0 + e1, event_dim))
    turn = angle / torch.pi
    if bool((turn > 1 - 8 * torch.finfo(turn.dtype).eps).any()):
        raise ValueError(
            "expected ends on one side of the centre, got opposite ones, which every great circle "
            "through them joins: take path='linear', or go by way of a third point"
        )
    # The ratios of sines, without a division by 0 where the ends have the same direction.
    scale = torch.sinc(turn)
    e = ((1 - t) * torch.sinc((1 - t) * turn) * e0 + t * torch.sinc(t * turn) * e1) / scale
    return torch.lerp(first, last, t) * e


def _length(x: Tensor, event_dim: int) -> Tensor:
    """Length of each event, with the event dimensions kept as 1."""
    if event_dim == 0:
        return x.abs()
    length: Tensor = torch.linalg.vector_norm(x, dim=tuple(range(-event_dim, 0)), keepdim=True)
    return length


def interpolate(
    flow: FlowDistribution, start: Tensor, end: Tensor, num: int, path: Path = "linear"
) -> Tensor:
    r"""Return data between two data: equal steps in the latent space of a flow.

    .. math:: y_t = f(x_t), \qquad x_0 = f^{-1}(y_0), \quad x_1 = f^{-1}(y_1)

    with :math:`x_t` from :func:`latent_path`; the great circle goes about the mean of the base.

    Args:
        flow: the distribution; one with a context as ``flow.condition(context)``.
        start: :math:`y_0`, of shape ``(*batch, *event)``.
        end: :math:`y_1`, of a shape that broadcasts with it.
        num: number of data, the two ends included; at least 2.
        path: ``"linear"``, as in the paper, or ``"great_circle"``.

    Returns:
        The data, of shape ``(num, *batch, *event)``; the first and the last are the given ones.

    Raises:
        ValueError: as for :func:`latent_path`; if a shape does not fit the flow; if the base has
            no mean and the path is a great circle.

    References:
        Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma, Dhariwal, 2018,
        arXiv:1807.03039.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> from pyro_deepgen.transforms import real_nvp
        >>> flow = FlowDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1), real_nvp(2))
        >>> ends = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 2.0])
        >>> data = interpolate(flow, *ends, 5)
        >>> torch.allclose(data[[0, -1]], torch.stack(ends), atol=1e-4)
        True
    """
    x0, x1 = _latent(flow, start), _latent(flow, end)
    center = _mean(flow) if path == "great_circle" else 0.0
    event_dim = _latent_dims(flow)
    return _data(flow, latent_path(x0, x1, num, path, center=center, event_dim=event_dim))


def attribute_direction(flow: FlowDistribution, with_attribute: Tensor, without: Tensor) -> Tensor:
    r"""Return the direction of an attribute in the latent space of a flow.

    .. math:: d = \frac1N \sum_{n=1}^N f^{-1}(y_n) - \frac1M \sum_{m=1}^M f^{-1}(y'_m)

    with :math:`y_n` the data that have the attribute and :math:`y'_m` those that have not. What
    differs between the two sets by chance, or goes along with the attribute, is part of it.

    Args:
        flow: the distribution.
        with_attribute: :math:`y_n`, of shape ``(N, *batch, *event)``.
        without: :math:`y'_m`, of shape ``(M, *batch, *event)``.

    Returns:
        :math:`d`, of the shape ``(*batch, *latent)`` of one latent point.

    Raises:
        ValueError: if a shape does not fit the flow, or a set is empty.

    References:
        Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma, Dhariwal, 2018,
        arXiv:1807.03039.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> from pyro_deepgen.transforms import cholesky_affine
        >>> flow = FlowDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1),
        ...                         cholesky_affine(2))
        >>> faces = torch.randn(50, 2)
        >>> smile = torch.tensor([0.0, 3.0])
        >>> direction = attribute_direction(flow, faces + smile, faces)
        >>> torch.allclose(manipulate(flow, faces, direction, [1.0])[0], faces + smile, atol=1e-5)
        True
    """
    means = []
    for name, data in (("with_attribute", with_attribute), ("without", without)):
        if data.dim() <= len(flow.event_shape) + len(flow.batch_shape) or len(data) == 0:
            raise ValueError(
                f"expected of {name} one datum or more, of shape "
                f"(N, {', '.join(map(str, (*flow.batch_shape, *flow.event_shape)))}), got "
                f"{tuple(data.shape)}"
            )
        means.append(_latent(flow, data).mean(0))
    return means[0] - means[1]


def manipulate(
    flow: FlowDistribution, data: Tensor, direction: Tensor, amounts: Sequence[float] | Tensor
) -> Tensor:
    r"""Return data with more or less of an attribute: :math:`f(f^{-1}(y) + a d)` for each amount.

    Args:
        flow: the distribution; one with a context as ``flow.condition(context)``.
        data: :math:`y`, of shape ``(*batch, *event)``.
        direction: :math:`d` from :func:`attribute_direction`, of the shape of a latent point.
        amounts: ``num`` amounts :math:`a`; 0 gives the data back, 1 adds as much as lies between
            the means of the two sets.

    Returns:
        The data, of shape ``(num, *batch, *event)``.

    Raises:
        ValueError: if a shape does not fit.

    References:
        Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma, Dhariwal, 2018,
        arXiv:1807.03039.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> from pyro_deepgen.transforms import real_nvp
        >>> flow = FlowDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1), real_nvp(2))
        >>> data = torch.randn(5, 2)
        >>> moved = manipulate(flow, data, torch.tensor([1.0, 0.0]), [-1.0, 0.0, 1.0])
        >>> moved.shape, torch.allclose(moved[1], data, atol=1e-4)
        (torch.Size([3, 5, 2]), True)
    """
    x = _latent(flow, data)
    steps = torch.as_tensor(amounts, dtype=x.dtype, device=x.device)
    if steps.dim() != 1 or len(steps) == 0:
        raise ValueError(
            f"expected amounts of shape (num,) with num of 1 or more, got {tuple(steps.shape)}"
        )
    latent_shape = x.shape[x.dim() - _latent_dims(flow) :]
    if direction.shape[max(0, direction.dim() - len(latent_shape)) :] != latent_shape:
        raise ValueError(
            f"expected a direction whose last dimensions are {tuple(latent_shape)}, those of a "
            f"latent point, got {tuple(direction.shape)}; attribute_direction() makes one"
        )
    return _data(flow, x + steps.reshape(-1, *(1,) * x.dim()) * direction)


def _latent(flow: FlowDistribution, data: Tensor) -> Tensor:
    return flow.transform.inverse_and_log_det(flow.broadcast(data))[0]


def _data(flow: FlowDistribution, x: Tensor) -> Tensor:
    return flow.transform.forward_and_log_det(x)[0]


def _latent_dims(flow: FlowDistribution) -> int:
    """Number of dimensions of one latent point."""
    return max(len(flow.base.event_shape), flow.transform.domain.event_dim)


def _mean(flow: FlowDistribution) -> Tensor:
    try:
        mean: Tensor = flow.base.mean
    except NotImplementedError as error:
        raise ValueError(
            "expected a base with a mean, about which a great circle goes; "
            f"{type(flow.base).__name__} has none: take path='linear'"
        ) from error
    return mean
