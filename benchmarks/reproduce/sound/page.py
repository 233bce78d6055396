# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What models gave, as lines of a page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass
class Row:
    """What one model gave; ``nats`` a sample of each test chorale."""

    nats: torch.Tensor
    num_parameters: int
    updates: int
    train_minutes: float
    test_minutes: float


def mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def rows_of_table(rows: dict[str, Row]) -> Iterator[str]:
    """The table of all models."""
    head = "model | parameters | test nats a sample | bits a sample | updates | training, min"
    yield f"| {head} | testing, min |"
    yield "|---|---|---|---|---|---|---|"
    for name, row in rows.items():
        mean, error = mean_and_error(row.nats)
        yield (
            f"| {name} | {row.num_parameters:,} | {mean:.3f} +- {error:.3f} | "
            f"{mean / math.log(2):.3f} | {row.updates:,} | {row.train_minutes:.1f} | "
            f"{row.test_minutes:.1f} |"
        )


def differences(rows: dict[str, Row], chosen: Sequence[str]) -> Iterator[str]:
    """The differences of each model from the chosen ones that stand after it."""
    names = list(rows)
    for second in chosen:
        for first in names[: names.index(second)]:
            mean, error = mean_and_error(rows[first].nats - rows[second].nats)
            yield f"- {first} and {second}: {mean:+.3f} +- {error:.3f}"
