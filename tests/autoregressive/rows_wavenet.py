# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""WaveNets: rows of the table of distributions, and one of every kind for the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pyro_deepgen.autoregressive import (
    BinaryOutput,
    CategoricalOutput,
    GaussianOutput,
    LogisticMixtureOutput,
    MixtureOutput,
    Output,
    WaveNet,
)
from tests.autoregressive.models import changed

Make = Callable[..., Any]


def small(output: Output, **chosen: Any) -> Make:
    """Return a function from a number of steps, and further arguments, to a small WaveNet."""
    sizes: dict[str, Any] = {"channels": 4, "skip_channels": 6, "dilations": (1, 2, 4), **chosen}
    return lambda num_steps, **k: WaveNet(num_steps, output, **{**sizes, **k})


BINARY: dict[str, Make] = {
    "binary": small(BinaryOutput()),
    "binary_stacks": small(BinaryOutput(), dilations=(1, 2, 1, 2)),
    "binary_taps": small(BinaryOutput(), kernel_size=3, dilations=(1, 3)),
    "binary_one_tap": small(BinaryOutput(), kernel_size=1, dilations=(1, 1)),
}
TERNARY: dict[str, Make] = {
    "ternary": small(CategoricalOutput(3)),
    "levels": small(LogisticMixtureOutput(2, 3)),
}
REAL: dict[str, Make] = {
    "gaussian": small(GaussianOutput()),
    "mixture": small(MixtureOutput(2)),
}
ALL = {**BINARY, **TERNARY, **REAL}

CONTEXTS: dict[str, dict[str, Any]] = {
    "none": {},
    "global": {"context_dim": 2},
    "local": {"local_dim": 3},
    "local_slow": {"local_dim": 3, "local_rate": 4},
    "local_repeated": {"local_dim": 3, "local_rate": 4, "learn_upsampling": False},
    "both": {"context_dim": 2, "local_dim": 3, "local_rate": 2},
}


def conditioned(model: WaveNet, batch: tuple[int, ...] = ()) -> Any:
    """Return a model given random contexts of the kinds that it wants."""
    context = torch.randn(*batch, model.global_dim) if model.global_dim else None
    if not model.local_dim:
        return model if context is None else model.condition(context)
    return model.condition(context, torch.randn(*batch, model.num_frames, model.local_dim))


def seeded(make: Callable[[], Any], scale: float = 0.7) -> Callable[[], Any]:
    """Make a model with the same random parameters each time, in evaluation mode."""

    def made() -> Any:
        torch.manual_seed(3)
        return changed(make(), scale)

    return made


WAVENET_ROWS: list[tuple[str, type, Callable[[], Any], None]] = [
    ("wavenet", WaveNet, seeded(lambda: BINARY["binary"](4)), None),
    ("wavenet_categorical", WaveNet, seeded(lambda: TERNARY["ternary"](3)), None),
]
