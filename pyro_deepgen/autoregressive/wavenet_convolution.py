# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A causal convolution of a sequence, whole or step by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import embedding, pad


class CausalConvolution(nn.Module):
    r"""A convolution whose outputs depend on no later input.

    .. math:: y_t = b + \sum_{j=0}^{k-1} W_j\, x_{t - \tau - j d}

    with :math:`x_t = 0` for :math:`t < 0`, the dilation :math:`d`, and a delay :math:`\tau` that is
    0, or 1 where an output must not see the input of its own step.

    Args:
        num_inputs: number of features of :math:`x_t`.
        num_outputs: number of features of :math:`y_t`.
        kernel_size: :math:`k`.
        dilation: :math:`d`.
        delay: :math:`\tau`.

    Example:
        >>> import torch
        >>> convolution, x = CausalConvolution(1, 1, 2, dilation=3), torch.zeros(8, 1)
        >>> x[2] = 1.0
        >>> (convolution(x) != convolution(torch.zeros(8, 1))).nonzero()[:, 0].tolist()
        [2, 5]
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        kernel_size: int,
        *,
        dilation: int = 1,
        delay: int = 0,
    ) -> None:
        super().__init__()
        self.num_inputs, self.num_outputs = num_inputs, num_outputs
        self.delay = delay
        self.lags = [j * dilation for j in range(kernel_size)]
        self.linear = nn.Linear(kernel_size * num_inputs, num_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs ``(*batch, T, num_outputs)`` from inputs ``(*batch, T, num_inputs)``."""
        # One product with the delayed inputs side by side is quicker than a sum of products.
        taps = [delayed(x, self.delay + lag) for lag in self.lags]
        output: torch.Tensor = self.linear(torch.cat(taps, -1))
        return output

    def of_classes(self, classes: torch.Tensor) -> torch.Tensor:
        """Outputs from the one-hot vectors of classes ``(*batch, T)``, which are not made."""
        output: torch.Tensor = self.linear.bias
        weights = self.linear.weight.split(self.num_inputs, 1)
        for lag, weight in zip(self.lags, weights, strict=True):
            output = output + delayed(embedding(classes, weight.mT), self.delay + lag)
        return output


def delayed(x: torch.Tensor, steps: int) -> torch.Tensor:
    """Move a sequence to later steps; zeros come in.

    Args:
        x: a sequence of shape ``(*batch, T, D)``.
        steps: number of steps.

    Example:
        >>> import torch
        >>> delayed(torch.tensor([[1.0], [2.0], [3.0]]), 2).flatten().tolist()
        [0.0, 0.0, 1.0]
    """
    if steps == 0:
        return x
    length = x.shape[-2]
    steps = min(steps, length)
    return pad(x[..., : length - steps, :], (0, 0, steps, 0))


class Queues:
    """The inputs of a causal convolution that later steps will need.

    Args:
        lags: how many steps ago the inputs came that a step needs, rising.
        zeros: what came before the first step, of shape ``(N, D)``.

    Example:
        >>> import torch
        >>> queues = Queues([0, 2], torch.zeros(1, 1))
        >>> [[float(x) for x in queues(torch.full((1, 1), float(t)))] for t in range(1, 5)]
        [[1.0, 0.0], [2.0, 0.0], [3.0, 1.0], [4.0, 2.0]]
    """

    def __init__(self, lags: Sequence[int], zeros: torch.Tensor) -> None:
        self._longest = lags[-1]
        self._parts = [deque([zeros] * (b - a)) for a, b in pairwise([0, *lags])]

    def __call__(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Put in the input of a step, ``(N, D)``, and return what it needs, one for each lag."""
        needed = []
        for part in self._parts:
            part.append(x)
            x = part.popleft()
            needed.append(x)
        return needed

    def fill(self, inputs: torch.Tensor) -> None:
        """Put in the inputs of many steps, ``(N, T, D)``, of which the last are kept."""
        for x in inputs[:, max(0, inputs.shape[1] - self._longest) :].unbind(1):
            self(x)
