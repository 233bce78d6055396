# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Distributions of images made pixel by pixel: small ones of every kind, and rows of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pyro_deepgen.autoregressive import (
    CategoricalOutput,
    GatedPixelCNN,
    LogisticMixtureOutput,
    PixelCNN,
    PixelRNN,
)
from pyro_deepgen.nn import MaskedConv2d

Make = Callable[..., Any]
SMALL = {"first_kernel_size": 3}

# Each takes an image shape, an output, and `context_dim` or `context_channels`.
NETWORKS: dict[str, Make] = {
    "cnn": lambda *a, **k: PixelCNN(*a, num_blocks=2, num_channels=16, **SMALL, **k),
    "gated": lambda *a, **k: GatedPixelCNN(
        *a, num_layers=3, num_channels=12, num_head_channels=15, **SMALL, **k
    ),
    "diagonal": lambda *a, **k: PixelRNN(*a, num_layers=2, num_units=6, **SMALL, **k),
    "row": lambda *a, **k: PixelRNN(*a, kind="row", num_layers=2, num_units=6, **SMALL, **k),
}

# Image shapes and outputs; the number of images is 2**12, 2**12, 3**6, 3**6, 2**12 and 3**6.
SETTINGS: dict[str, tuple[tuple[int, int, int], Any, dict[str, Any]]] = {
    "grey": ((1, 3, 4), None, {}),
    "colour": ((3, 2, 2), None, {}),
    "classes": ((3, 2, 1), CategoricalOutput(3), {}),
    "one_hot": ((1, 3, 2), CategoricalOutput(3), {"one_hot": True}),
    "mixture": ((3, 2, 2), LogisticMixtureOutput(2, 2), {}),
    "levels": ((1, 3, 2), LogisticMixtureOutput(2, 3), {}),
}


def changed(model: Any, gain: float = 1.0) -> Any:
    """Give a model random parameters, and put it in evaluation mode.

    Weights are scaled by the number of inputs that a unit sees, lest deep networks saturate, and
    biases are positive, lest all rectifiers of a small layer stay at 0.
    """
    masks = {m.weight: m.mask for m in model.modules() if isinstance(m, MaskedConv2d)}
    with torch.no_grad():
        for parameter in model.parameters():
            seen = masks.get(parameter, torch.ones_like(parameter))
            inputs = seen.flatten(1).sum(1) if parameter.dim() > 1 else torch.full((1,), 4.0)
            size = gain * inputs.clamp(min=1).rsqrt()
            parameter.normal_().mul_(size.reshape((-1, *[1] * (parameter.dim() - 1))))
            if parameter.dim() == 1:
                parameter.abs_()
    return model.eval()


def pixels(network: str, setting: str = "grey", **kwargs: Any) -> Any:
    """Make a model with random parameters, in evaluation mode."""
    shape, output, further = SETTINGS[setting]
    return changed(NETWORKS[network](shape, output, **further, **kwargs))


def row(name: str, cls: type, make: Callable[[], Any]) -> tuple[str, type, Make, None]:
    """Return a row whose model has the same random parameters each time."""

    def made() -> Any:
        torch.manual_seed(3)
        return changed(make())

    return name, cls, made, None


PIXEL_ROWS: list[tuple[str, type, Callable[[], Any], None]] = [
    row("pixel_cnn", PixelCNN, lambda: NETWORKS["cnn"]((1, 2, 3))),
    row(
        "pixel_cnn_levels",
        PixelCNN,
        lambda: NETWORKS["cnn"]((2, 1, 2), LogisticMixtureOutput(2, 3)),
    ),
    row("pixel_cnn_gated", GatedPixelCNN, lambda: NETWORKS["gated"]((3, 1, 2))),
    row(
        "pixel_cnn_gated_classes",
        GatedPixelCNN,
        lambda: NETWORKS["gated"]((1, 2, 2), CategoricalOutput(3)),
    ),
    row("pixel_rnn", PixelRNN, lambda: NETWORKS["diagonal"]((1, 2, 3))),
    row("pixel_rnn_rows", PixelRNN, lambda: NETWORKS["row"]((2, 2, 1))),
]
