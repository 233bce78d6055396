# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The network of a WaveNet run step by step."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from .wavenet_convolution import Queues
from .wavenet_network import WaveNetNetwork


class WaveNetSteps:
    """The parameters of one step after another, with queues of what later steps will need.

    A step takes one product for each layer, whatever the dilations are.

    Args:
        network: the network.
        num: number of sequences :math:`N`.
        context: contexts of shape ``(N, global_dim)``, if the network has them.
        local: contexts of each step, of shape ``(N, T, local_dim)``, if it has them.

    References:
        Le Paine, Khorrami, Chang, Zhang, Ramachandran, Hasegawa-Johnson and Huang, Fast Wavenet
        generation algorithm, 2016, arXiv:1611.09482.
    """

    def __init__(
        self,
        network: WaveNetNetwork,
        num: int,
        context: torch.Tensor | None,
        local: torch.Tensor | None,
    ) -> None:
        self.network, self.local, self.context = network, local, context
        self.layers = network.gated_layers()
        self.like = network.head.weight
        first = network.first
        self.entering = Queues(first.lags, self.like.new_zeros(num, first.num_inputs))
        self.blank = self.like.new_zeros(num, first.num_inputs)
        zeros = self.like.new_zeros(num, first.num_outputs)
        self.queues = [Queues(layer.gates.lags, zeros) for layer in self.layers]
        self.weights = [layer.gates.linear.weight.mT for layer in self.layers]
        biases = torch.cat([layer.gates.linear.bias for layer in self.layers])
        if network.of_global is not None and context is not None:
            biases = linear(context, network.of_global.weight, biases)
        self.biases, self.shifts = biases, biases.chunk(len(self.layers), -1)
        self.place = 0

    def prime(self, x: torch.Tensor) -> torch.Tensor:
        """Take the first values ``(N, n)`` in one pass; return their parameters ``(N, n, P)``."""
        kept: list[torch.Tensor] = []
        size = x.shape[-1]
        local = None if self.local is None else self.local[:, :size]
        parameters: torch.Tensor = self.network(x, self.context, local, kept)
        encoded = self.network.output.encode(x, self.like)
        self.entering.fill(encoded[:, :-1])  # the last one enters with the next step
        for queues, inputs in zip(self.queues, kept, strict=True):
            queues.fill(inputs)
        self.place = size
        return parameters

    def step(self, previous: torch.Tensor | None) -> torch.Tensor:
        """Parameters ``(N, P)`` of the next step, from the value before it ``(N,)``."""
        output = self.network.output
        encoded = self.blank if previous is None else output.encode(previous, self.like)
        h = self.network.first.linear(torch.cat(self.entering(encoded), -1))
        shifts = self.shifts
        if self.network.of_local is not None and self.local is not None:
            added = linear(self.local[:, self.place], self.network.of_local.weight)
            shifts = (self.biases + added).chunk(len(self.layers), -1)
        total: torch.Tensor | None = None
        for layer, queues, weight, shift in zip(
            self.layers, self.queues, self.weights, shifts, strict=True
        ):
            sums = torch.addmm(shift, torch.cat(queues(h), -1), weight)
            h, skip = layer.finish(h, sums)
            total = skip if total is None else total + skip
        self.place += 1
        assert total is not None
        return self.network.end(total)
