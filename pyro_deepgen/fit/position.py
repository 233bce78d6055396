# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Where a run stands."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from .history import History


@dataclass(frozen=True)
class Best:
    """The parameters and buffers with the lowest held-out loss so far."""

    figure: float
    epoch: int
    state: dict[str, Any]

    @classmethod
    def of(cls, figure: float, epoch: int, loss: nn.Module) -> "Best":
        """Copy the state of `loss` as it is now."""
        state = loss.state_dict()
        copies = {k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()}
        return cls(figure, epoch, copies)


@dataclass
class Position:
    """Epochs done, steps done in the present one, and what has been gathered on the way."""

    epoch: int = 0
    step: int = 0
    total: float = 0.0
    count: int = 0
    history: History = field(default_factory=History)
    best: Best | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the position as what a checkpoint can hold."""
        best = None if self.best is None else vars(self.best).copy()
        return {**vars(self), "history": self.history.to_dict(), "best": best}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Position":
        """Return the position that :meth:`to_dict` wrote."""
        best = None if values["best"] is None else Best(**values["best"])
        history = History.from_dict(values["history"])
        return cls(**{**values, "history": history, "best": best})
