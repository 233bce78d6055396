# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a run shows while it runs."""

import sys
import warnings
from typing import Any

from torch import nn
from tqdm.auto import tqdm

from .history import History


class Progress:
    """A bar over all steps of the run, with the present figures and the time left.

    Args:
        show: whether there is a bar at all.
        label: name of the figure; ``"loss"`` shows the loss, any other name minus the loss.
        num_epochs: epochs of the run.
        num_steps: steps an epoch, None if unknown.
        done: steps done before, in resumed parts of the run.
    """

    def __init__(
        self, show: bool, label: str, num_epochs: int, num_steps: int | None, done: int
    ) -> None:
        self.label = label
        self.sign = 1.0 if label == "loss" else -1.0
        self.num_epochs = num_epochs
        self.place = ""
        total = None if num_steps is None else num_epochs * num_steps
        self.bar = tqdm(
            total=total, initial=done, disable=not show, unit="step", dynamic_ncols=True
        )

    def step(self) -> None:
        """Count one step."""
        self.bar.update()

    def pause(self, doing: str) -> None:
        """Say what is being done instead of steps."""
        self.bar.set_description_str(", ".join(filter(None, [self.place, doing])))

    def unpause(self, seconds: float) -> None:
        """Take time off the clock, so that the rate and the time left are those of the steps."""
        if self.bar.disable:
            return
        self.bar.start_t += seconds
        self.bar.last_print_t += seconds
        self.bar.set_description_str(self.place)

    def show(self, train: float, history: History) -> None:
        """Show the mean loss of the present epoch and the last one on held-out data."""
        if self.bar.disable:
            return
        epoch = min(len(history) + 1, self.num_epochs)
        self.place = f"epoch {epoch}/{self.num_epochs}"
        self.bar.set_description_str(self.place, refresh=False)
        figures = f"{self.label} {self.sign * train:.4g}"
        if history.held_out:
            figures += f", held out {self.sign * history.held_out[-1]:.4g}"
        if history.compile_seconds:
            figures += f", compilation {history.compile_seconds:.1f} s"
        self.bar.set_postfix_str(figures, refresh=False)

    def say(self, text: str) -> None:
        """Print a line beside the bar, on the error stream."""
        tqdm.write(text, file=sys.stderr)

    def note(self, text: str) -> None:
        """Print a line beside the bar if there is a bar."""
        if not self.bar.disable:
            self.say(text)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()


class Reports:
    """Asks the modules of a loss, after each epoch, whether there is something to tell.

    A module that has a method ``report() -> str | None`` is asked; each distinct text becomes a
    warning once a run.
    """

    def __init__(self, loss: nn.Module) -> None:
        # Looked up on the class: on an instance of a PyroModule the name could be a site.
        self.modules: list[Any] = [
            m for m in loss.modules() if callable(getattr(type(m), "report", None))
        ]
        self.told: set[str] = set()

    def warn(self) -> None:
        """Ask, and warn."""
        for module in self.modules:
            text = module.report()
            if text is not None and text not in self.told:
                self.told.add(text)
                warnings.warn(text, stacklevel=2)
