# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Residual convolutional networks that give several parameters for every pixel of an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import conv2d

from .activations import over_its_input
from .sizes import as_size


class WeightNormConv2d(nn.Module):
    r"""A convolution whose kernels have a length and a direction as parameters.

    .. math:: w_c = g_c\, v_c / \|v_c\|

    The image keeps its size: zeros are added around it.

    Args:
        in_channels: number of channels of the input.
        out_channels: number of channels of the output.
        kernel_size: side of the kernel, an odd number.

    Raises:
        ValueError: if a size is not a positive whole number, or ``kernel_size`` is even.

    References:
        Salimans and Kingma, Weight normalization: A simple reparameterization to accelerate
        training of deep neural networks, 2016, arXiv:1602.07868.

    Example:
        >>> import torch
        >>> layer, x = WeightNormConv2d(2, 3, 3), torch.randn(5, 2, 8, 8)
        >>> y = layer(x)
        >>> with torch.no_grad():
        ...     layer.direction.mul_(7.0).shape
        torch.Size([3, 2, 3, 3])
        >>> torch.allclose(layer(x), y, atol=1e-5)
        True
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        if as_size(kernel_size, "kernel_size") % 2 == 0:
            raise ValueError(f"expected an odd kernel_size, got {kernel_size}")
        start = nn.Conv2d(
            as_size(in_channels, "in_channels"), as_size(out_channels, "out_channels"), kernel_size
        )
        self.padding = kernel_size // 2
        self.direction = nn.Parameter(start.weight.detach().clone())
        self.length = nn.Parameter(self._norm().detach())
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def _norm(self) -> torch.Tensor:
        norm: torch.Tensor = torch.linalg.vector_norm(self.direction, dim=(1, 2, 3))
        return norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``."""
        weight = self.direction * (self.length / self._norm())[:, None, None, None]
        return conv2d(x, weight, self.bias, padding=self.padding)


class ResidualBlock(nn.Module):
    r"""A block of two convolutions, each after its nonlinearity, added to what comes in.

    .. math:: h + w_2 * a(w_1 * a(h) + V c)

    Args:
        channels: number of channels.
        context_dim: number of dimensions of the context :math:`c`.
        activation: makes the nonlinearity :math:`a`.

    References:
        He, Zhang, Ren and Sun, Identity mappings in deep residual networks, 2016, arXiv:1603.05027.

    Example:
        >>> import torch
        >>> block, x = ResidualBlock(4), torch.randn(5, 4, 8, 8)
        >>> with torch.no_grad():
        ...     block.second.length.zero_().shape
        torch.Size([4])
        >>> torch.equal(block(x), x)
        True
    """

    def __init__(
        self,
        channels: int,
        *,
        context_dim: int = 0,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.first_activation = activation()  # its input is also added to the output
        self.second_activation = over_its_input(activation)
        self.first = WeightNormConv2d(channels, channels, 3)
        self.second = WeightNormConv2d(channels, channels, 3)
        self.of_context = nn.Linear(context_dim, channels, bias=False) if context_dim else None

    def forward(self, h: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """Map images ``(B, channels, H, W)`` and contexts ``(B, context_dim)`` to such images."""
        inner = self.first(self.first_activation(h))
        if self.of_context is not None:
            inner = inner + self.of_context(context)[:, :, None, None]
        outer: torch.Tensor = self.second(self.second_activation(inner))
        return h + outer


class CouplingResNet(nn.Module):
    r"""A residual network from the part of an image kept to the parameters of the part changed.

    A convolution, blocks that add to its result, and a convolution with kernels of one pixel, all
    with weight normalisation. The last kernels start short: so does the output start small, and the
    coupling layer near the identity. In memory each parameter of a channel is one piece.

    Args:
        kept_channels: number of channels that it sees.
        changed_channels: number of channels that it gives parameters for.
        num_parameters: number of parameters of a variable.
        channels: number of channels of the blocks.
        num_blocks: number of blocks.
        context_dim: number of dimensions of the context, which joins every block.
        activation: makes the nonlinearity.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0); if an input
            or context has the wrong shape.

    References:
        Dinh, Sohl-Dickstein and Bengio, Density estimation using Real NVP, 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> net = CouplingResNet(1, 1, 2, channels=8, num_blocks=2)
        >>> x = torch.randn(3, 1, 16, 16)
        >>> net(x).shape, torch.allclose(net(x)[:1], net(x[:1]), atol=1e-5)
        (torch.Size([3, 1, 16, 16, 2]), True)
    """

    def __init__(
        self,
        kept_channels: int,
        changed_channels: int,
        num_parameters: int,
        *,
        channels: int = 64,
        num_blocks: int = 4,
        context_dim: int = 0,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.kept_channels, self.context_dim = as_size(kept_channels, "kept_channels"), context_dim
        self.outputs = (
            as_size(changed_channels, "changed_channels"),
            as_size(num_parameters, "num_parameters"),
        )
        self.first = WeightNormConv2d(kept_channels, channels, 3)
        self.blocks = nn.ModuleList(
            ResidualBlock(channels, context_dim=context_dim, activation=activation)
            for _ in range(as_size(num_blocks, "num_blocks"))
        )
        self.last_activation = over_its_input(activation)
        self.last = WeightNormConv2d(channels, changed_channels * num_parameters, 1)
        with torch.no_grad():
            self.last.length.mul_(0.1)

    def forward(self, kept: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """Map ``(B, kept_channels, H, W)`` to ``(B, changed_channels, H, W, num_parameters)``."""
        if kept.dim() != 4 or kept.shape[1] != self.kept_channels:
            raise ValueError(
                f"expected images of shape (N, {self.kept_channels}, H, W), got {tuple(kept.shape)}"
            )
        given = 0 if context is None or context.dim() == 0 else context.shape[-1]
        if given != self.context_dim:
            raise ValueError(
                f"expected a context with {self.context_dim} dimensions, got {given}; the network "
                f"was made with context_dim={self.context_dim}"
            )
        h = self.first(kept)
        for block in self.blocks:
            h = block(h, context)
        images: torch.Tensor = self.last(self.last_activation(h))
        batch, _, height, width = images.shape
        return images.reshape(batch, *self.outputs, height, width).movedim(2, -1)
