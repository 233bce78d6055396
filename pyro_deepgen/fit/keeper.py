# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The state of a run, to a checkpoint and back."""

from pathlib import Path
from typing import Any

from pyro.infer import ELBO
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from . import checkpoint, rng
from .parallel import Ranks
from .position import Position


def _objective(loss: nn.Module) -> str:
    """Name what is minimised: an ELBO by its settings too, whatever it is applied to."""
    elbo = getattr(loss, "elbo", None)
    if not isinstance(elbo, ELBO):
        return type(loss).__name__
    settings = [f"num_particles={elbo.num_particles}"]
    gradient = getattr(elbo, "gradient", None)
    if isinstance(gradient, str):
        settings.append(f"gradient={gradient!r}")
    return f"{type(elbo).__name__}({', '.join(settings)})"


class Keeper:
    """Writes and reads everything that the rest of a run depends on.

    Args:
        path: the file, or None to keep nothing.
        loss: parameters, buffers and training modes.
        optimizer: its moments and learning rates.
        scheduler: its counters.
        settings: what must be the same in the run that goes on.
        ranks: whose random streams are kept, each process's own.
    """

    def __init__(
        self,
        path: Path | None,
        loss: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        settings: dict[str, Any],
        ranks: Ranks,
    ) -> None:
        self.path = path
        self.loss = loss
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.ranks = ranks
        self.settings = {
            **settings,
            "objective": _objective(loss),
            "optimizer": type(optimizer).__name__,
            "scheduler": None if scheduler is None else type(scheduler).__name__,
        }
        self.saved_step: int | None = None
        self.verified = False

    def save(self, position: Position) -> None:
        """Write the state; all processes take part, the first writes."""
        assert self.path is not None
        streams = self.ranks.gather(rng.streams(self.ranks.device))
        if self.ranks.first:
            state = {
                "settings": self.settings,
                "loss": self.loss.state_dict(),
                "modes": {name: module.training for name, module in self.loss.named_modules()},
                "optimizer": self.optimizer.state_dict(),
                "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
                "streams": streams,
                "position": position.to_dict(),
            }
            checkpoint.write(self.path, state, verify=not self.verified)
        self.verified = True
        self.saved_step = position.history.num_steps

    def load(self) -> Position | None:
        """Put the state of the file back; None if there is no file.

        Raises:
            ValueError: if the file is damaged, or the run that wrote it was another.
        """
        path = self.path
        if path is None:
            return None
        state = self.ranks.from_first(lambda: checkpoint.read(path))
        if state is None:
            return None
        checkpoint.require_same_module(path, state["loss"], self.loss.state_dict())
        checkpoint.require_same_settings(path, state["settings"], self.settings)
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise ValueError(
                f"the checkpoint {path} has the state of another optimizer ({error}); make it "
                "with the same parameter groups, or give another path to start anew"
            ) from error
        self.loss.load_state_dict(state["loss"])
        for name, module in self.loss.named_modules():
            module.training = state["modes"].get(name, module.training)
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.ranks.rank < len(state["streams"]):
            rng.restore_streams(state["streams"][self.ranks.rank], self.ranks.device)
        position = Position.from_dict(state["position"])
        # The scheduler would warn of steps not made, which were made before.
        self.optimizer._opt_called = position.history.num_steps > 0  # type: ignore[attr-defined]
        self.saved_step = position.history.num_steps
        return position

    def last_good(self) -> str:
        """Say where the last checkpoint is."""
        if self.path is None:
            return "no checkpoint was asked for"
        if self.saved_step is None:
            return "no checkpoint has been written yet"
        return f"the last good checkpoint is {self.path}, of step {self.saved_step}"
