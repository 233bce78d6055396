# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The contestant that is written by hand in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .harness import Array, Contestant

LEARNING_RATE = 1e-3


def arrays(tensors: Sequence[torch.Tensor | None]) -> list[Array]:
    """Copies of tensors that do not change with them."""
    return [t.detach().cpu().numpy().copy() for t in tensors if t is not None]


def fill(parameters: Sequence[torch.Tensor], values: Sequence[Array]) -> None:
    """Give parameters their values."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(torch.from_numpy(value))


def by_hand(
    loss: nn.Module, data: Sequence[torch.Tensor], values: Sequence[Array], *, fused: bool
) -> Contestant:
    """An eager training loop.

    Args:
        loss: takes the data, and ``noise=``, a list of noise that replaces its own draws.
        data: what each step is given.
        values: parameters to start from.
        fused: use PyTorch's fused Adam, which is not its default.
    """
    loss = loss.to(data[0].device)
    parameters = list(loss.parameters())
    fill(parameters, values)
    optim = torch.optim.Adam(parameters, LEARNING_RATE, fused=fused or None)

    def run(steps: int) -> float:
        value = float("nan")
        for _ in range(steps):
            optim.zero_grad()
            loss_now = loss(*data)
            loss_now.backward()
            optim.step()
            value = loss_now.item()
        return value

    def evaluate(noise: Sequence[Array]) -> tuple[float, list[Array]]:
        given = [torch.from_numpy(n).to(data[0].device) for n in noise]
        value = loss(*data, noise=given)
        return value.item(), arrays(torch.autograd.grad(value, parameters))

    return Contestant(run, evaluate, lambda: arrays(parameters))
