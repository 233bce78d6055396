# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Training that can be stopped and goes on, and what it has cost so far."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pyro_deepgen.fit import fit


@dataclass
class Cost:
    """What something has taken, over all the calls that it took.

    Args:
        processor: seconds of this process on the processor.
        wall: seconds by the clock.
        load: the machine's load over the last minute, the largest that was seen.
        epochs: epochs of training done.
        updates: steps of the optimizer done.
        stopped: why the training ended: "finished", "early" or "budget".
        best: the lowest figure of validation data.
        best_epoch: when it was reached.
    """

    processor: float = 0.0
    wall: float = 0.0
    load: float = 0.0
    epochs: int = 0
    updates: int = 0
    stopped: str = "finished"
    best: float | None = None
    best_epoch: int = 0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Add what happens inside."""
        processor, wall = time.process_time(), time.perf_counter()
        yield
        self.processor += time.process_time() - processor
        self.wall += time.perf_counter() - wall
        self.load = max(self.load, os.getloadavg()[0])

    def add(self, other: Cost) -> None:
        """Add what something else has taken."""
        self.processor += other.processor
        self.wall += other.wall
        self.load = max(self.load, other.load)
        self.epochs += other.epochs
        self.updates += other.updates

    def __str__(self) -> str:
        """In minutes of the processor, of the clock, and the load."""
        return f"{self.processor / 60:.1f} / {self.wall / 60:.1f} / {self.load:.1f}"


def train(
    loss: nn.Module,
    data: Any,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    checkpoint: Path,
    minutes: float | None = None,
    watch: Callable[[], float] | None = None,
    patience: int | None = None,
    every: int = 10,
    **settings: Any,
) -> Cost:
    """Train by :func:`~pyro_deepgen.fit.fit`, an epoch a call, and keep account of the cost.

    Args:
        loss: see ``fit``.
        data: see ``fit``.
        optimizer: see ``fit``.
        epochs: epochs in all, those of an earlier run included.
        checkpoint: file; the cost is kept beside it.
        minutes: stop after so many minutes of the processor, those of earlier runs included.
        watch: a figure of validation data after each epoch; the loss ends with the state, from
            ``Cost.best_epoch``, in which it was the lowest.
        patience: stop after so many epochs in which ``watch`` has not fallen.
        every: print a line after so many epochs.
        settings: further arguments of ``fit``.

    Returns:
        The cost of all epochs so far.
    """
    account = checkpoint.with_suffix(".cost.json")
    cost = Cost(**json.loads(account.read_text())) if account.exists() else Cost()
    best = checkpoint.with_suffix(".best.pt")
    done = False
    while not done:
        spent = minutes is not None and cost.processor > 60 * minutes
        early = patience is not None and cost.epochs - cost.best_epoch >= patience
        # Without epochs left, this puts the parameters of the checkpoint back.
        end = cost.epochs if spent or early else min(cost.epochs + 1, epochs)
        before = cost.epochs
        with cost.measured():
            history = fit(
                loss,
                data,
                optimizer,
                num_epochs=end,
                checkpoint=checkpoint,
                progress=sys.stderr.isatty(),
                **settings,
            )
            figure = None if watch is None or end == before else watch()
        if history.stopped == "interrupted":
            raise KeyboardInterrupt
        cost.epochs, cost.updates = len(history), history.num_steps
        if figure is not None and (cost.best is None or figure < cost.best):
            cost.best, cost.best_epoch = figure, cost.epochs
            torch.save(loss.state_dict(), best)
        cost.stopped = "early" if early else "budget" if spent else "finished"
        done = spent or early or cost.epochs >= epochs
        account.write_text(json.dumps(asdict(cost)))
        if cost.epochs % every == 0 or done:
            watched = "" if figure is None else f", watched {figure:.4g}, best {cost.best:.4g}"
            print(
                f"{checkpoint.stem}: epoch {cost.epochs} of {epochs}, "
                f"{cost.processor / 60:.1f} min of the processor{watched}",
                flush=True,
            )
    if watch is not None:
        loss.load_state_dict(torch.load(best, weights_only=True))
    return cost


def linearly_to_zero(epochs: int) -> Callable[[int], float]:
    """The factor of the learning rate after each epoch."""
    return lambda epoch: max(1 - epoch / epochs, 0.0)
