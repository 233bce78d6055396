# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Rows of the table of distributions: name, class, how to make it, and its box if it is real."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pyro_deepgen.autoregressive import (
    MADE,
    NADE,
    RNADE,
    CategoricalOutput,
    GaussianOutput,
    LinearAutoregressive,
    NADEk,
    NeuralAutoregressiveNet,
    OrderlessNADE,
)
from tests.autoregressive.models import changed
from tests.autoregressive.rows_pixels import PIXEL_ROWS
from tests.autoregressive.rows_wavenet import WAVENET_ROWS

WIDE = ((-12.0, 12.0), (-16.0, 16.0))
Box = tuple[tuple[float, float], ...] | None


def seeded(make: Callable[[], Any], scale: float = 0.7) -> Callable[[], Any]:
    """Make a model with the same random parameters each time, in evaluation mode."""

    def made() -> Any:
        torch.manual_seed(3)
        return changed(make(), scale)

    return made


AUTOREGRESSIVE_ROWS: list[tuple[str, type, Callable[[], Any], Box]] = [
    ("linear", LinearAutoregressive, seeded(lambda: LinearAutoregressive(4)), None),
    (
        "linear_gaussian",
        LinearAutoregressive,
        seeded(lambda: LinearAutoregressive(2, GaussianOutput()), 0.4),
        WIDE,
    ),
    (
        "neural_autoregressive_net",
        NeuralAutoregressiveNet,
        seeded(lambda: NeuralAutoregressiveNet(3, 2, CategoricalOutput(3))),
        None,
    ),
    ("nade", NADE, seeded(lambda: NADE(4, 5, order=[2, 3, 0, 1])), None),
    ("nade_k", NADEk, seeded(lambda: NADEk(4, 5, num_steps=2)), None),
    ("rnade", RNADE, seeded(lambda: RNADE(2, 5, 2), 0.3), WIDE),
    ("orderless_nade", OrderlessNADE, seeded(lambda: OrderlessNADE(4, (6, 5))), None),
    (
        "eonade",
        OrderlessNADE,
        seeded(lambda: OrderlessNADE(4, (6, 5)).ensemble(3)),
        None,
    ),
    ("made", MADE, seeded(lambda: MADE(4, (12,))), None),
    ("made_masks", MADE, seeded(lambda: MADE(4, (12,), num_masks=3)), None),
    (
        "made_shuffled",
        MADE,
        seeded(lambda: MADE(4, (12, 9), num_masks=3, shuffle_units=True)),
        None,
    ),
    ("made_gaussian", MADE, seeded(lambda: MADE(2, (6,), GaussianOutput()), 0.3), WIDE),
    ("made_categorical", MADE, seeded(lambda: MADE(3, (8,), CategoricalOutput(3))), None),
    *PIXEL_ROWS,
    *WAVENET_ROWS,
]
