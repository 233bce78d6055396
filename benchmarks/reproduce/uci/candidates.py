# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What each model may learn by, of which the validation split chooses."""

from __future__ import annotations

from dataclasses import dataclass

# Test nats. FVSBN and NADE: Larochelle and Murray 2011; EoNADE: Uria, Murray and Larochelle 2014.
PUBLISHED = {
    ("dna", "FVSBN"): 83.64,
    ("dna", "NADE"): 84.81,
    ("dna", "EoNADE"): 82.31,
    ("mushrooms", "FVSBN"): 10.27,
    ("mushrooms", "NADE"): 9.81,
    ("mushrooms", "EoNADE"): 9.68,
}
GOAL = 0.3  # nats above the published figure


@dataclass(frozen=True)
class Candidate:
    """What is chosen by the validation split.

    Args:
        hidden: number of units of each hidden layer, none for FVSBN.
        rate: learning rate at the start.
        decay: weight decay, for weights but not for biases.
        epochs: passes over the training data.
        batch_size: data a step.
        rounds: passes between two looks at the validation split.
        momentum: that of SGD with Nesterov's momentum and gradients of norm 50 at most; ``None``
            for AdamW.
    """

    hidden: tuple[int, ...]
    rate: float
    decay: float
    epochs: int
    batch_size: int = 100
    rounds: int = 1
    momentum: float | None = None

    def __str__(self) -> str:
        units = f"{'-'.join(map(str, self.hidden))} units, " if self.hidden else ""
        kind = "AdamW" if self.momentum is None else f"SGD with momentum {self.momentum:g}"
        return (
            f"{units}{kind}, rate {self.rate:g}, decay {self.decay:g}, {self.epochs:,} epochs, "
            f"batch {self.batch_size}"
        )


@dataclass(frozen=True)
class Preset:
    """Candidates, seeds and orders."""

    candidates: dict[tuple[str, str], tuple[Candidate, ...]]
    seeds: int
    orders: int
    data: int  # largest number of data of each split


_TINY = {
    key: (
        Candidate(() if key[1] == "FVSBN" else (8,), 0.02, 0.0, 2),
        Candidate(() if key[1] == "FVSBN" else (8,), 0.02, 0.1, 2, rounds=2),
    )
    for key in PUBLISHED
}
_FULL = {
    ("dna", "FVSBN"): (
        Candidate((), 0.03, 0.0, 60),
        Candidate((), 0.03, 0.1, 60),
        Candidate((), 0.03, 0.2, 60),
    ),
    ("dna", "NADE"): (
        Candidate((50,), 0.02, 0.1, 30),
        Candidate((100,), 0.02, 0.2, 20),
        Candidate((100,), 0.02, 0.3, 30),
    ),
    ("dna", "EoNADE"): (Candidate((500,), 0.003, 0.0, 800, rounds=40, momentum=0.9),),
    ("mushrooms", "EoNADE"): (
        Candidate((500,), 0.003, 0.0, 800, rounds=40, momentum=0.9),
        Candidate((500,), 0.002, 0.0, 800, rounds=40),
    ),
    ("mushrooms", "FVSBN"): (
        Candidate((), 0.02, 0.0, 150),
        Candidate((), 0.05, 0.0, 100),
        Candidate((), 0.05, 0.02, 100),
    ),
    ("mushrooms", "NADE"): (
        Candidate((50,), 0.02, 0.0, 60),
        Candidate((100,), 0.02, 0.0, 60),
    ),
}
PRESETS = {
    "short": Preset(_TINY, 2, 2, 200),
    "reproduction": Preset(_FULL, 3, 64, 10**6),
}
