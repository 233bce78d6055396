# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The JSB chorales as sound: each held note is a tone with harmonics, vibrato and a soft start."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

FILE = "jsb_chorales.npz"
SPLITS = ("train", "valid", "test")
RATE = 4000  # samples a second
FRAME = 1000  # samples of a time step of the piano roll, a quarter of a second
LOWEST, NUM_NOTES = 43, 54  # MIDI numbers 43 to 96 occur
OCTAVE = 12  # the file has the voices high; they sound an octave lower
LOUDNESS = 0.16  # of one tone at its start
HARMONICS = 6


@dataclass
class Sound:
    """Pieces of equal length: amplitudes ``(N, T)`` and notes ``(N, T / FRAME, NUM_NOTES)``."""

    amplitudes: torch.Tensor
    notes: torch.Tensor


def piano_rolls(split: str) -> list[torch.Tensor]:
    """The chorales of a split, each ``(steps, NUM_NOTES)`` of 0 and 1.

    Raises:
        FileNotFoundError: if the file is not in the folder that ``PYRO_DEEPGEN_DATA`` names.
    """
    folder = os.environ.get("PYRO_DEEPGEN_DATA")
    path = Path(folder or "") / FILE
    if folder is None or not path.is_file():
        raise FileNotFoundError(
            f"expected {FILE} in the folder that PYRO_DEEPGEN_DATA names, got {folder!r}; set it "
            "to the folder that has the file"
        )
    with np.load(path) as file:
        notes = np.unpackbits(file[f"{split}_notes"], axis=1)[:, LOWEST - 21 :][:, :NUM_NOTES]
        lengths = file[f"{split}_lengths"].astype(int)
    return list(torch.from_numpy(notes).float().split(lengths.tolist()))


def held_notes(roll: torch.Tensor) -> list[tuple[int, int, int]]:
    """The notes of a chorale as (number, first step, end); equal notes in a row are held."""
    silent = torch.zeros(1, roll.shape[1])
    change = torch.cat([silent, roll, silent]).diff(dim=0)
    tones = []
    for note in roll.any(0).nonzero().squeeze(-1).tolist():
        starts, ends = ((change[:, note] == sign).nonzero().squeeze(-1) for sign in (1, -1))
        tones += [(note, a, b) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    return tones


def render(roll: torch.Tensor, seed: int) -> torch.Tensor:
    """Amplitudes ``(steps * FRAME,)`` of a chorale.

    The chorale has a tuning of its own within half a semitone; each tone has its loudness,
    its phases, and its vibrato.
    """
    rng = torch.Generator().manual_seed(seed)
    sound = torch.zeros(len(roll) * FRAME + RATE)
    tuning = torch.rand((), generator=rng) - 0.5
    for note, start, end in held_notes(roll):
        random = torch.rand(4 + HARMONICS, generator=rng)
        held = (end - start) * FRAME
        t = torch.arange(held + RATE // 5) / RATE
        semitones = LOWEST + note - OCTAVE - 69 + tuning + 0.06 * (random[0] - 0.5)
        pitch = 440 * 2 ** (semitones / 12)
        vibrato = 5 + 1.5 * random[1]
        angle = 2 * math.pi * (vibrato * t + random[2])
        # Ten cents of vibrato; its integral is in the phase.
        phase = 2 * math.pi * pitch * t - pitch / vibrato * (2 ** (0.1 / 12) - 1) * angle.cos()
        tone = torch.zeros_like(t)
        for harmonic in range(1, HARMONICS + 1):
            if harmonic * pitch < 0.45 * RATE:
                fading = torch.exp(-(0.5 + 0.5 * harmonic) * t)
                turn = 2 * math.pi * random[3 + harmonic]
                tone += fading * torch.sin(harmonic * phase + turn) / harmonic**1.2
        after = (t - held / RATE).clamp_min(0)
        envelope = (1 - torch.exp(-t / 0.02)) * torch.exp(-after / 0.04)
        loudness = LOUDNESS * 2 ** (random[3] - 0.5)
        sound[start * FRAME :][: len(t)] += loudness * envelope * tone
    return sound[: len(roll) * FRAME]


def pieces(
    split: str, num_frames: int, num_chorales: int | None = None, *, first_only: bool = False
) -> Sound:
    """Pieces of the chorales of a split, one after another without overlap.

    Args:
        split: ``"train"``, ``"valid"`` or ``"test"``.
        num_frames: number of time steps of a piece; what is left of a chorale is not used.
        num_chorales: number of chorales, by default all.
        first_only: whether to take the first piece of each chorale only.
    """
    amplitudes, notes = [], []
    for seed, roll in enumerate(piano_rolls(split)[:num_chorales]):
        number = 1 if first_only else len(roll) // num_frames
        kept = roll[: number * num_frames]
        sound = render(kept, len(SPLITS) * seed + SPLITS.index(split))
        amplitudes.append(sound.reshape(number, -1))
        notes.append(kept.reshape(number, num_frames, -1))
    return Sound(torch.cat(amplitudes), torch.cat(notes))
