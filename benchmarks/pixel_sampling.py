# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Draws of images with cached rows, beside a pass of the whole network for every variable.

Where the C library gives memory back to the system after each pass, passes of many images mostly
wait for memory. With MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=1073741824 in the
environment it keeps the memory, and the ratios are lower.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from pyro_deepgen.autoregressive import (
    GatedPixelCNN,
    LogisticMixtureOutput,
    PixelCNN,
    PixelRNN,
)

from .harness import DifferentWorkError

GREY, COLOUR = (1, 28, 28), (3, 28, 28)
MODELS: dict[str, Callable[[], Any]] = {
    "PixelCNN, 32 channels": lambda: PixelCNN(GREY, num_channels=32),
    "PixelCNN, 128 channels": lambda: PixelCNN(GREY, num_channels=128),
    "PixelCNN, colour, 96 channels": lambda: PixelCNN(COLOUR, num_channels=96),
    "GatedPixelCNN, 32 channels": lambda: GatedPixelCNN(GREY),
    "GatedPixelCNN, colour, mixture": lambda: GatedPixelCNN(COLOUR, LogisticMixtureOutput(5)),
    "PixelRNN, diagonal, 16 units": lambda: PixelRNN(GREY),
    "PixelRNN, row, 16 units": lambda: PixelRNN(GREY, kind="row"),
}
# In single precision, a random number may fall between two ways of computing a probability.
LEAST_AGREEMENT = 0.999


@dataclass(frozen=True)
class PixelSampling:
    """The time of draws, and of one pass.

    Args:
        name: name of the table in the README.
        models: makes each model.
        images: numbers of images that are drawn together.
        rounds: how many samples of the time are enough.
        title: for a person.
    """

    name: str
    models: Mapping[str, Callable[[], Any]]
    images: Sequence[int] = (1, 16)
    rounds: int = 5
    title: str = "Images made pixel by pixel: draws"

    def report(self, rounds: int) -> str:
        """Measure, and write a table and how many rounds it took."""
        rounds = min(rounds, self.rounds)
        lines = [
            "| model | variables | images together | seconds to draw them "
            "| a pass for each variable | ratio |",
            "|---|---|---|---|---|---|",
        ]
        for name, make in self.models.items():
            torch.manual_seed(0)
            model = make().eval().requires_grad_(False)
            size = model.event_shape.numel()
            for num in self.images:
                x = drawn_as_by_passes(name, model, num)
                draw = seconds(lambda model=model, num=num: model.sample((num,)), rounds)
                once = seconds(lambda model=model, x=x: model.conditionals(x), rounds)
                lines.append(
                    f"| {name} | {size:,} | {num} | {draw:.2f} | {size * once:.1f} "
                    f"| {size * once / draw:.0f} |"
                )
        return "\n".join(lines) + f"\n\n{rounds} rounds"


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """The median processor time of some rounds, after one to warm up."""
    work()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return median(times)


def drawn_as_by_passes(name: str, model: Any, num: int) -> torch.Tensor:
    """Draw images, and check that passes of the whole network would draw the same.

    Given the images, one pass gives the parameters of every variable. If these give each variable
    its value, from the same random numbers, then by induction so do the passes one after another.

    Raises:
        DifferentWorkError: if more than one value in a thousand is another.
    """
    torch.manual_seed(1)
    noise = model.output.noise((model.event_shape.numel(), num), next(model.parameters()))
    torch.manual_seed(1)
    x = model.sample((num,))
    parameters = model.conditionals(x).flatten(1, -2)
    again = model.output.draw(parameters.movedim(0, 1), noise)
    values = x.flatten(1).mT
    same = float(torch.isclose(again.to(values.dtype), values).double().mean())
    if same < LEAST_AGREEMENT:
        raise DifferentWorkError(
            f"{name}: passes of the whole network draw {same:.2%} of the values that a draw has"
        )
    made: torch.Tensor = x
    return made


CASES: dict[str, Callable[[], PixelSampling]] = {
    "autoregressive-pixels-sampling": lambda: PixelSampling(
        "autoregressive-pixels-sampling", MODELS
    ),
}
