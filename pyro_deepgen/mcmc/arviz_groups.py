# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Draws in the form that ArviZ takes, of either generation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import arviz
import numpy as np

# Arrays (C, N, *shape) by name, in groups by name; those of observed data are without C and N.
Groups: TypeAlias = dict[str, dict[str, np.ndarray[Any, Any]]]

# Info of kernels under the names that ArviZ's plots look for.
_STATISTICS = {"accept_prob": "acceptance_rate", "num_steps": "n_steps"}

_COLUMNS = ["mean", "sd", "mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "r_hat"]


def sample_stats(info: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Info of a run under ArviZ's names.

    Args:
        info: tensors ``(C, N)``.
    """
    stats = {_STATISTICS.get(name, name): value.numpy(force=True) for name, value in info.items()}
    if "potential" in stats:
        stats["lp"] = -stats.pop("potential")
    return stats


def from_groups(
    groups: Groups,
    coords: Mapping[str, Sequence[Any]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> Any:
    """An ``InferenceData`` of ArviZ 0.2x, or a ``DataTree`` of ArviZ 1.x.

    Args:
        groups: arrays by group and name.
        coords: labels along named dimensions.
        dims: names of the dimensions of each variable, without chain and draw.
    """
    labels: dict[str, Any] = {
        "coords": None if coords is None else dict(coords),
        "dims": None if dims is None else {name: list(value) for name, value in dims.items()},
    }
    with warnings.catch_warnings():
        # Thousands of short chains are no mistake here.
        warnings.filterwarnings("ignore", "More chains")
        # Version 0.2x takes a group a keyword; 1.x takes one dictionary of groups.
        if int(arviz.__version__.split(".")[0]) < 1:
            arguments: dict[str, Any] = {**groups, **labels}
            return arviz.from_dict(**arguments)
        return arviz.from_dict(groups, **labels)


def summary(posterior: Mapping[str, np.ndarray[Any, Any]], **labels: Any) -> Any:
    """The part of ArviZ's summary that all its versions have, unrounded.

    Args:
        posterior: arrays ``(C, N, *shape)``.
        labels: ``coords`` and ``dims`` of :func:`from_groups`.
    """
    data = from_groups({"posterior": dict(posterior)}, **labels)
    return arviz.summary(data, round_to="none")[_COLUMNS]
