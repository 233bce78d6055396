# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Sounds as spectrograms and waves."""

from __future__ import annotations

import wave
from pathlib import Path

import torch
from matplotlib.figure import Figure

WINDOW, HOP = 512, 64


def spectrogram(x: torch.Tensor) -> torch.Tensor:
    """Decibels ``(frequencies, times)`` of a sound ``(T,)``."""
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(x, WINDOW, HOP, window=window, return_complex=True)
    return 20 * torch.log10(spectrum.abs() + 1e-3)


def sounds_figure(
    sounds: dict[str, torch.Tensor], rate: int, joins: dict[str, float], title: str
) -> Figure:
    """A row for each sound: its spectrogram, and a tenth of a second around the join.

    Args:
        sounds: amplitudes ``(T,)`` by name.
        rate: samples a second.
        joins: the second at which what was given ends, by name, where there is one.
        title: the title.
    """
    figure = Figure(figsize=(11, 1.9 * len(sounds) + 0.6), layout="constrained")
    grid = figure.subplots(len(sounds), 2, width_ratios=[3, 2], squeeze=False)
    middle = min(joins.values(), default=1.0)
    first, last = round((middle - 0.05) * rate), round((middle + 0.05) * rate)
    for i, (name, x) in enumerate(sounds.items()):
        left, right = grid[i]
        seconds = len(x) / rate
        left.imshow(
            spectrogram(x).numpy(),
            origin="lower",
            aspect="auto",
            extent=(0, seconds, 0, rate / 2),
            vmin=-40,
            vmax=30,
            cmap="magma",
        )
        left.set(title=name, ylabel="Hz")
        times = torch.arange(first, last) / rate
        right.plot(times.numpy(), x[first:last].numpy(), linewidth=0.8)
        right.set(ylim=(-1, 1), title="around the join")
        for axes in (left, right):
            if name in joins:
                axes.axvline(joins[name], color="tab:cyan", linestyle="--")
            if i == len(sounds) - 1:
                axes.set_xlabel("seconds")
    figure.suptitle(title)
    return figure


def write_wave(x: torch.Tensor, rate: int, path: Path) -> None:
    """Write amplitudes ``(T,)`` as samples of 16 bits."""
    samples = (x.clamp(-1, 1) * 32767).round().to(torch.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.numpy().tobytes())
