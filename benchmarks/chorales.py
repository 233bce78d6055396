# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The JSB chorales as padded sequences, forwards and backwards."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from .harness import NotHereError

NOTES, FILE = 88, "jsb_chorales.npz"


def chorales(batch: int, multiple: int, longest: int | None = None) -> list[torch.Tensor]:
    """The first training sequences, padded to a multiple of so many time steps.

    Returns:
        Notes ``(B, T, 88)``; what of them is data ``(B, T)``; the sequences reversed, each within
        its length; where each step stands in the reversed sequence ``(B, T)``.

    Raises:
        NotHereError: if the file is not in the folder that ``PYRO_DEEPGEN_DATA`` names.
    """
    folder = os.environ.get("PYRO_DEEPGEN_DATA")
    path = Path(folder or "") / FILE
    if folder is None or not path.is_file():
        raise NotHereError(f"{FILE} is not in the folder that PYRO_DEEPGEN_DATA names")
    with np.load(path) as file:
        lengths = file["train_lengths"][:batch].astype(int)
        notes = np.unpackbits(file["train_notes"][: lengths.sum()], axis=1)[:, :NOTES]
    ends = lengths.cumsum()
    sequences = [
        notes[end - length : end][:longest] for end, length in zip(ends, lengths, strict=True)
    ]
    size = max(map(len, sequences))
    size += -size % multiple
    x = torch.zeros(batch, size, NOTES)
    order = torch.arange(size).repeat(batch, 1)
    for row, sequence in enumerate(sequences):
        x[row, : len(sequence)] = torch.from_numpy(sequence)
        order[row, : len(sequence)] = torch.arange(len(sequence)).flip(0)
    mask = torch.arange(size) < torch.tensor([len(s) for s in sequences]).unsqueeze(-1)
    return [x, mask, reorder(x, order), order]


def reorder(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Sequences ``(B, T, D)`` with their time steps in another order ``(B, T)``."""
    return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
