# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Filters, chains, and images whose halves are filled in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pyro_deepgen.plots import image_grid

Step = Callable[[torch.Tensor], torch.Tensor]


def draw_filters(
    weight: torch.Tensor, shape: tuple[int, int], path: Path, title: str, count: int = 100
) -> None:
    """Draw the weights ``(V, H)`` of the hidden units whose weights are the largest.

    Each is scaled for itself: grey is 0, white its largest weight, black minus that.
    """
    weight = weight.detach().cpu()
    order = weight.norm(dim=0).argsort(descending=True)[:count]
    chosen = weight[:, order].T
    scaled = 0.5 + 0.5 * chosen / chosen.abs().amax(1, keepdim=True).clamp_min(1e-12)
    ncols = max(1, round(len(scaled) ** 0.5))
    image_grid(scaled.reshape(-1, *shape), ncols, title).savefig(path, dpi=100)


@torch.no_grad()
def draw_chains(
    step: Step,
    show: Step,
    start: torch.Tensor,
    shape: tuple[int, int],
    path: Path,
    title: str,
    at: Sequence[int] = (0, 1, 10, 100, 1000, 2000, 5000),
) -> None:
    """Draw chains side by side, each row at a later time.

    Args:
        step: from states ``(C, N)`` to the states after one step.
        show: from states to what is drawn, ``(C, V)``.
        start: where they start, ``(C, N)``.
        shape: of an image.
        path: file.
        title: title.
        at: after how many steps to draw.
    """
    rows, state, done = [], start, 0
    for time in at:
        for _ in range(time - done):
            state = step(state)
        done = time
        rows.append(show(state).cpu())
    labels = [f"{time:,} step{'s' * (time != 1)}" for time in at]
    grid = torch.stack(rows).reshape(-1, *shape)
    image_grid(grid, len(start), title, labels).savefig(path, dpi=100)


@torch.no_grad()
def draw_halves(
    impute: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    shape: tuple[int, int],
    path: Path,
    title: str,
    count: int = 4,
) -> None:
    """Draw images, their left halves, and right halves as they are filled in.

    Args:
        impute: from images ``(B, V)`` and a mask of what is known to images ``(B, V)``.
        x: images ``(N, V)``.
        shape: of an image.
        path: file.
        title: title.
        count: how many ways each image is filled in.
    """
    known = torch.zeros(shape, dtype=torch.bool, device=x.device)
    known[:, : shape[1] // 2] = True
    known = known.flatten()
    filled = impute(x.repeat(count, 1), known).reshape(count, *x.shape)
    rows = torch.cat([x[None], torch.where(known, x, 0.5)[None], filled]).cpu()
    labels = ["image", "known", *(f"filled in, {i + 1}" for i in range(count))]
    image_grid(rows.reshape(-1, *shape), len(x), title, labels).savefig(path, dpi=100)
