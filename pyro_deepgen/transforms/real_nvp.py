# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""RealNVP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

from torch import nn

from .affine_equation import Affine
from .composed import Composed
from .coupling_layers import MaskName, coupling_layers
from .multi_scale import MultiScale
from .real_nvp_image import real_nvp_image


@overload
def real_nvp(
    event: int,
    *,
    num_layers: int = ...,
    hidden_dims: Sequence[int] = ...,
    context_dim: int = ...,
    mask: MaskName = ...,
    bound: float = ...,
    activation: Callable[[], nn.Module] = ...,
) -> Composed: ...


@overload
def real_nvp(
    event: Sequence[int],
    *,
    num_levels: int = ...,
    hidden_channels: int = ...,
    num_blocks: int = ...,
    context_dim: int = ...,
    bound: float = ...,
    activation: Callable[[], nn.Module] = ...,
) -> MultiScale: ...


def real_nvp(event: int | Sequence[int], **options: Any) -> Composed | MultiScale:
    r"""Make a RealNVP flow: affine coupling layers, which exchange the roles of the two parts.

    .. math:: f_k(x) = (x_A, e^{s_k(x_A)} \odot x_B + t_k(x_A))

    A number of dimensions gives a flow of vectors with dense networks; an image shape gives a flow
    from a flat vector to an image, which ``real_nvp_image`` describes.

    Args:
        event: number of dimensions :math:`D`, at least 2, or ``(C, H, W)``.
        **options: for images, those of ``real_nvp_image``. For vectors:

            ``num_layers``: number of coupling layers, 6 if not given;

            ``hidden_dims``: number of units of every hidden layer of the networks, (128, 128);

            ``context_dim``: number of dimensions of the context, 0 for none;

            ``mask``: ``"halves"`` (the first and the last variables) or ``"alternating"`` (the even
            and the odd ones), the former;

            ``bound``: the largest :math:`|s_k|`, 5; see :class:`Affine`;

            ``activation``: makes the nonlinearity of the networks, ``nn.ReLU``.

    Returns:
        A :class:`Composed`; for images, a :class:`MultiScale`.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0), there is
            one dimension only, ``bound`` is not positive or ``mask`` is unknown.

    References:
        Dinh, Sohl-Dickstein and Bengio, Density estimation using Real NVP, 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> flow, x = real_nvp(5), torch.randn(7, 5)
        >>> y, log_det = flow.forward_and_log_det(x)
        >>> torch.allclose(flow.inv(y), x, atol=1e-5)
        True
        >>> matrix = torch.autograd.functional.jacobian(flow, x[0])
        >>> torch.allclose(torch.linalg.slogdet(matrix)[1], log_det[0], atol=1e-5)
        True
        >>> real_nvp((1, 4, 4), num_levels=1, hidden_channels=8)(torch.randn(7, 16)).shape
        torch.Size([7, 1, 4, 4])
    """
    if isinstance(event, Sequence):
        return real_nvp_image(event, **options)
    return _of_vectors(event, **options)


def _of_vectors(
    num_dims: int,
    *,
    num_layers: int = 6,
    hidden_dims: Sequence[int] = (128, 128),
    context_dim: int = 0,
    mask: MaskName = "halves",
    bound: float = 5.0,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> Composed:
    """Make a flow of vectors."""
    return Composed(
        coupling_layers(
            num_dims,
            lambda: Affine(bound),
            num_layers=num_layers,
            hidden_dims=hidden_dims,
            context_dim=context_dim,
            mask=mask,
            activation=activation,
        )
    )
