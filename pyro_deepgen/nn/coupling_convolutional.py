# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Convolutions that give several parameters for every variable of an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .activations import over_its_input
from .sizes import as_size


class CouplingCNN(nn.Module):
    r"""Three convolutions from the part of an image kept to the parameters of the part changed.

    Kernels have sides of 3, 1 and 3 pixels. The last kernels and biases start at 0, and so the
    coupling layer at the identity. In memory each parameter of an image is one piece.

    Args:
        kept_channels: number of channels that it sees.
        changed_channels: number of channels that it gives parameters for.
        num_parameters: number of parameters of a variable.
        channels: number of channels between the convolutions.
        context_dim: number of dimensions of the context, which joins after the first convolution.
        activation: makes the nonlinearity.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0); if an input
            or context has the wrong shape.

    References:
        Kingma and Dhariwal, Glow: Generative flow with invertible 1x1 convolutions, 2018,
        arXiv:1807.03039.

    Example:
        >>> import torch
        >>> net = CouplingCNN(2, 3, 2, channels=8, context_dim=4)
        >>> theta = net(torch.randn(5, 2, 6, 6), torch.randn(5, 4))
        >>> theta.shape, bool((theta == 0).all())
        (torch.Size([5, 3, 6, 6, 2]), True)
    """

    def __init__(
        self,
        kept_channels: int,
        changed_channels: int,
        num_parameters: int,
        *,
        channels: int = 128,
        context_dim: int = 0,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.kept_channels, self.context_dim = as_size(kept_channels, "kept_channels"), context_dim
        as_size(channels, "channels")
        # Parameters before channels, so that an equation computes with larger contiguous pieces.
        self.outputs = (
            as_size(num_parameters, "num_parameters"),
            as_size(changed_channels, "changed_channels"),
        )
        self.first = nn.Conv2d(kept_channels, channels, 3, padding=1)
        self.of_context = nn.Linear(context_dim, channels, bias=False) if context_dim else None
        self.second = nn.Conv2d(channels, channels, 1)
        self.last = nn.Conv2d(channels, changed_channels * num_parameters, 3, padding=1)
        self.first_activation = over_its_input(activation)
        self.second_activation = over_its_input(activation)
        with torch.no_grad():
            self.last.weight.zero_()
            assert self.last.bias is not None
            self.last.bias.zero_()

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
        if self.of_context is not None:
            h = h + self.of_context(context)[:, :, None, None]
        h = self.second_activation(self.second(self.first_activation(h)))
        images: torch.Tensor = self.last(h).unflatten(1, self.outputs)
        return images.movedim(1, -1)
