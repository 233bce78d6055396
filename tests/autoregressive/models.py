# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Autoregressive distributions for the tests, one of every kind, with random parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from pyro_deepgen.autoregressive import (
    MADE,
    NADE,
    RNADE,
    AutoregressiveDistribution,
    CategoricalOutput,
    GaussianOutput,
    LinearAutoregressive,
    MixtureOutput,
    NADEk,
    NeuralAutoregressiveNet,
    OrderlessNADE,
)

Make = Callable[..., Any]

# Each takes a number of variables, and `order` and `context_dim`.
BINARY: dict[str, Make] = {
    "linear": LinearAutoregressive,
    "neural": lambda d, **k: NeuralAutoregressiveNet(d, 3, **k),
    "neural_without_skip": lambda d, **k: NeuralAutoregressiveNet(d, 2, skip=False, **k),
    "nade": lambda d, **k: NADE(d, 6, **k),
    "nade_k": lambda d, **k: NADEk(d, 6, num_steps=3, **k),
    "orderless": lambda d, **k: OrderlessNADE(d, (7, 6), activation=nn.Tanh, **k),
    "orderless_shallow": lambda d, **k: OrderlessNADE(d, 9, **k),
    "made": lambda d, **k: MADE(d, (20,), activation=nn.Tanh, **k),
    "made_deep": lambda d, **k: MADE(d, (20, 17), skip=True, activation=nn.Tanh, **k),
}
TERNARY: dict[str, Make] = {
    "linear_3": lambda d, **k: LinearAutoregressive(d, CategoricalOutput(3), **k),
    "neural_3": lambda d, **k: NeuralAutoregressiveNet(d, 3, CategoricalOutput(3), **k),
    "nade_3": lambda d, **k: NADE(d, 6, CategoricalOutput(3), **k),
    "orderless_3": lambda d, **k: OrderlessNADE(d, (7, 6), CategoricalOutput(3), **k),
    "made_3": lambda d, **k: MADE(d, (15,), CategoricalOutput(3), activation=nn.Tanh, **k),
    "made_deep_3": lambda d, **k: MADE(
        d, (15, 12), CategoricalOutput(3), skip=True, activation=nn.Tanh, **k
    ),
}
REAL: dict[str, Make] = {
    "linear_real": lambda d, **k: LinearAutoregressive(d, GaussianOutput(), **k),
    "made_real": lambda d, **k: MADE(d, (20,), GaussianOutput(), activation=nn.Tanh, **k),
    "made_mixture": lambda d, **k: MADE(d, (20,), MixtureOutput(2), activation=nn.Tanh, **k),
    "nade_real": lambda d, **k: NADE(d, 6, GaussianOutput(), **k),
    "rnade": lambda d, **k: RNADE(d, 6, 2, **k),
    "rnade_laplace": lambda d, **k: RNADE(d, 6, 2, "laplace", **k),
    "orderless_real": lambda d, **k: OrderlessNADE(d, (7, 6), GaussianOutput(), **k),
}
ALL = {**BINARY, **TERNARY, **REAL}


def changed(model: Any, scale: float = 0.7) -> Any:
    """Give a model random parameters, and put it in evaluation mode."""
    assert isinstance(model, AutoregressiveDistribution)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_().mul_(scale)
    return model.eval()


def shuffled(num: int) -> Sequence[int]:
    """Return an order that is not its own inverse, nor that of the indices."""
    return [*range(2, num), 0, 1]


def several(num: int) -> dict[str, Callable[[], Any]]:
    """Return the models that are a mean over orders or masks."""
    return {
        "made_masks": lambda: changed(MADE(num, (20, 17), num_masks=3)),
        "made_masks_3": lambda: changed(MADE(num, (15,), CategoricalOutput(3), num_masks=3)),
        "eonade": lambda: changed(OrderlessNADE(num, (7,))).ensemble(3),
        "nade_k": lambda: changed(NADEk(num, 5, 2)).ensemble(2),
    }
