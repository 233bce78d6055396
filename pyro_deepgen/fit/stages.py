# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Training in stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from .batches import Data
from .history import History
from .loop import fit


class Stage(Protocol):
    """One part of a training in parts: what is minimised, and what becomes of the data."""

    @property
    def name(self) -> str:
        """What is trained."""

    @property
    def loss(self) -> nn.Module:
        """A module whose ``loss(*batch)`` is a scalar summed over the batch."""

    @property
    def transform(self) -> Callable[[Tensor], Tensor]:
        """From the first tensor of a batch to what the loss takes."""


def fit_stages(
    stages: Iterable[Stage],
    data: Data,
    optimizer: Callable[[list[nn.Parameter]], Optimizer] | None = None,
    *,
    num_epochs: int | Sequence[int],
    **settings: Any,
) -> list[History]:
    """Run the stages of a training one after the other, each by :func:`fit`.

    Args:
        stages: the stages in their order, such as ``net.stages()`` of a deep belief net or a deep
            Boltzmann machine. Asking for the next one ends the one before.
        data: see :func:`fit`.
        optimizer: makes an optimizer of the parameters of a stage; ``Adam`` with a learning rate of
            0.001 by default.
        num_epochs: epochs of each stage, or of all alike.
        settings: further arguments of :func:`fit`, for each stage.

    Returns:
        The mean losses of each stage.

    Raises:
        ValueError: for another number of epochs than of stages, and for what each stage sets.

    Example:
        >>> import torch
        >>> from pyro_deepgen.energy import DeepBeliefNet
        >>> net, x = DeepBeliefNet(4, (3, 2)), torch.randint(2, (20, 4)).float()
        >>> histories = fit_stages(net.stages(), x, num_epochs=[2, 1], progress=False)
        >>> [len(history.train) for history in histories]
        [2, 1]
    """
    for name in ("checkpoint", "transform", "scheduler"):
        if name in settings:
            raise ValueError(
                f"{name} is a matter of one stage: run `for stage in stages` by fit(...), with one "
                "for each"
            )
    histories = []
    for place, stage in enumerate(stages):
        if isinstance(num_epochs, Sequence):
            if place >= len(num_epochs):
                raise ValueError(f"expected epochs for each stage, got {len(num_epochs)} numbers")
            epochs = num_epochs[place]
        else:
            epochs = num_epochs
        parameters = [p for p in stage.loss.parameters() if p.requires_grad]
        made = None if optimizer is None else optimizer(parameters)
        given = {"label": stage.name, **settings}
        histories.append(
            fit(stage.loss, data, made, num_epochs=epochs, transform=stage.transform, **given)
        )
    if isinstance(num_epochs, Sequence) and len(num_epochs) != len(histories):
        raise ValueError(
            f"expected epochs for each of {len(histories)} stages, got {len(num_epochs)} numbers"
        )
    return histories
