# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a training run leaves behind besides the parameters."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Stopped = Literal["finished", "early", "interrupted"]


@dataclass
class History:
    """The losses of a run, one figure an epoch, each a mean over the data.

    Attributes:
        train: mean training loss of each epoch, taken while the parameters moved.
        held_out: mean held-out loss after each epoch; empty without held-out data.
        num_steps: optimiser steps since the start of the run, resumed parts included.
        seconds: time spent in the run, resumed parts included.
        compile_seconds: the part of them in which graphs of the loss were made (``compile``).
        stopped: ``"finished"`` (all epochs done), ``"early"`` (no more improvement on the
            held-out data) or ``"interrupted"`` (Ctrl-C).

    Example:
        >>> history = History(train=[3.0, 2.5], held_out=[3.1, 2.7])
        >>> history.elbo == [-loss for loss in history.train]
        True
        >>> len(history)
        2
    """

    train: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    num_steps: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    stopped: Stopped = "finished"

    def __len__(self) -> int:
        """Return the number of epochs done."""
        return len(self.train)

    @property
    def elbo(self) -> list[float]:
        """Minus the training loss of each epoch: the mean ELBO per datum."""
        return [-loss for loss in self.train]

    @property
    def held_out_elbo(self) -> list[float]:
        """Minus the held-out loss after each epoch: the mean held-out ELBO per datum."""
        return [-loss for loss in self.held_out]

    def to_dict(self) -> dict[str, Any]:
        """Return the history as plain numbers, which a checkpoint can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "History":
        """Return the history that :meth:`to_dict` wrote.

        Raises:
            ValueError: if the values are not those of a history.
        """
        if values.get("stopped") not in get_args(Stopped):
            raise ValueError(f"expected the values of a History, got the keys {sorted(values)}")
        return cls(**values)
