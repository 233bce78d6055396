# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The network of a WaveNet: dilated causal convolutions with gates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import linear

from .outputs import CategoricalOutput, Output
from .wavenet_convolution import CausalConvolution


class GatedLayer(nn.Module):
    r"""A layer with a gated activation, whose output goes on to the next layer and to the end.

    .. math::
        z &= \tanh(W_f * h + s_f) \odot \sigma(W_g * h + s_g) \\
        h' &= h + W_r z + b_r, \qquad \text{skip} = W_s z + b_s

    where :math:`*` is a dilated causal convolution, and the shifts :math:`s` are a context's.

    Args:
        channels: number of features of :math:`h` and :math:`z`.
        skip_channels: number of features that go to the end.
        kernel_size: of the convolution.
        dilation: of the convolution.
        last: whether no layer follows, so that there is no :math:`h'`.
    """

    def __init__(
        self, channels: int, skip_channels: int, kernel_size: int, dilation: int, last: bool
    ) -> None:
        super().__init__()
        self.gates = CausalConvolution(channels, 2 * channels, kernel_size, dilation=dilation)
        self.mix = nn.Linear(channels, skip_channels + (0 if last else channels))
        self.skip_channels, self.last = skip_channels, last

    def forward(
        self, h: torch.Tensor, shift: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``(*batch, T, channels)`` and ``(*batch, T, skip_channels)``."""
        sums = self.gates(h)
        return self.finish(h, sums if shift is None else sums + shift)

    def finish(self, h: torch.Tensor, sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the same from the sums that enter the two nonlinearities."""
        signal, gate = sums.chunk(2, -1)
        mixed = self.mix(signal.tanh() * gate.sigmoid())
        if self.last:
            return h, mixed
        skip, residual = mixed.split([self.skip_channels, h.shape[-1]], -1)
        return h + residual, skip


class WaveNetNetwork(nn.Module):
    r"""From a sequence to the parameters of each step, which depend on the steps before it.

    The first convolution sees the steps :math:`t - 1, \dots, t - k`, layers with dilations
    :math:`d_1, \dots, d_L` follow, and the sum of their skips passes two layers of one step each.

    Args:
        output: the family of one step, which says how values enter.
        channels: number of features between the layers.
        skip_channels: number of features of the skips.
        dilations: :math:`d_1, \dots, d_L`.
        kernel_size: :math:`k`.
        global_dim: number of dimensions of a context of all steps.
        local_dim: number of dimensions of a context of each step.
    """

    def __init__(
        self,
        output: Output,
        channels: int,
        skip_channels: int,
        dilations: Sequence[int],
        kernel_size: int,
        global_dim: int,
        local_dim: int,
    ) -> None:
        super().__init__()
        self.output = output
        self.first = CausalConvolution(output.num_inputs, channels, kernel_size, delay=1)
        last = len(dilations) - 1
        layers = [
            GatedLayer(channels, skip_channels, kernel_size, dilation, i == last)
            for i, dilation in enumerate(dilations)
        ]
        self.layers = nn.ModuleList(layers)
        width = 2 * channels * len(dilations)
        self.of_global = nn.Linear(global_dim, width, bias=False) if global_dim else None
        self.of_local = nn.Linear(local_dim, width, bias=False) if local_dim else None
        self.hidden = nn.Linear(skip_channels, skip_channels)
        self.head = nn.Linear(skip_channels, output.num_parameters)
        with torch.no_grad():
            if isinstance(output, CategoricalOutput):
                # One input of every tap is 1 and the others 0: the sum has so many terms.
                self.first.linear.weight.uniform_(-(kernel_size**-0.5), kernel_size**-0.5)
            self.head.weight.mul_(0.1)  # as in other networks here: the last layer starts small
            self.head.bias.mul_(0.1)

    def gated_layers(self) -> list[GatedLayer]:
        """The layers between the first and the last two."""
        return [layer for layer in self.layers if isinstance(layer, GatedLayer)]

    def forward(
        self,
        x: torch.Tensor,
        context: torch.Tensor | None = None,
        local: torch.Tensor | None = None,
        kept: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return the parameters of all steps.

        Args:
            x: values of shape ``(*batch, T)``.
            context: contexts of shape ``(*batch, global_dim)``; batch shapes broadcast.
            local: contexts of each step, of shape ``(*batch, T, local_dim)``.
            kept: a list that gets the inputs of the layers, ``(*batch, T, channels)``.

        Returns:
            Parameters of shape ``(*batch, T, P)``.
        """
        layers = self.gated_layers()
        like = self.head.weight
        if isinstance(self.output, CategoricalOutput):
            h = self.first.of_classes(x.long())
        else:
            h = self.first(self.output.encode(x, like))
        shifts = self._shifts(context, local)
        total: torch.Tensor | None = None
        for layer, shift in zip(layers, shifts, strict=True):
            if kept is not None:
                kept.append(h)
            h, skip = layer(h, shift)
            total = skip if total is None else total + skip
        assert total is not None
        return self.end(total)

    def end(self, skips: torch.Tensor) -> torch.Tensor:
        """Parameters ``(..., P)`` from the sum of the skips ``(..., skip_channels)``."""
        parameters: torch.Tensor = self.head(self.hidden(skips.relu()).relu())
        return parameters

    def _shifts(
        self, context: torch.Tensor | None, local: torch.Tensor | None
    ) -> list[torch.Tensor | None]:
        """What the contexts add to the gates of each layer."""
        num = len(self.layers)
        shifts: list[torch.Tensor | None] = [None] * num
        if self.of_global is not None and context is not None:
            shifts = list(self.of_global(context).unsqueeze(-2).chunk(num, -1))
        if self.of_local is not None and local is not None:
            # Layer by layer, since for all at once they would be the largest tensor of all.
            parts = [linear(local, weight) for weight in self.of_local.weight.chunk(num)]
            shifts = [p if s is None else s + p for s, p in zip(shifts, parts, strict=True)]
        return shifts
