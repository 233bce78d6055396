# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a kernel must give back, said where it does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from .state import State


def check_state(of: str, result: Any, before: State, sites: Iterable[str]) -> None:
    """Check a state against the one before.

    Args:
        of: the kernel and its method, ``"Mine.init"``.
        result: what the method has returned.
        before: the state that it was given.
        sites: all sites of the target.

    Raises:
        ValueError: for what is no dictionary, a site that is missing, and one whose value is no
            tensor or has another shape or dtype than before; it names kernel and site.
    """
    if not isinstance(result, Mapping):
        raise ValueError(
            f"{of} must return a state, a dictionary of tensors with the chains first, got "
            f"{_kind(result)}"
        )
    for site in sites:
        if site not in result:
            raise ValueError(
                f"{of} must return all sites, and the state that it returned has no {site!r}, only "
                f"{sorted(result)}: let what does not move stay, as in {{**state, **moved}}"
            )
        value, expected = result[site], before[site]
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{of} must return a tensor for the site {site!r}, got {_kind(value)}")
        if (value.shape, value.dtype) != (expected.shape, expected.dtype):
            raise ValueError(
                f"{of} must leave the site {site!r} as it was, {tuple(expected.shape)} (the chains "
                f"first) of {expected.dtype}, got {tuple(value.shape)} of {value.dtype}"
            )


def check_step(of: str, result: Any, before: State, sites: Iterable[str]) -> None:
    """Check what a step has returned.

    Args:
        of: the kernel and its method.
        result: what the method has returned.
        before: the state that it was given.
        sites: all sites of the target.

    Raises:
        ValueError: for what is no pair of a good state and info ``(C,)``.
    """
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ValueError(
            f"{of} must return a pair (state, info), got {_kind(result)}; where there is nothing "
            "to tell, info is {}"
        )
    state, info = result
    check_state(of, state, before, sites)
    if not isinstance(info, Mapping):
        raise ValueError(f"{of} must return a dictionary as info, got {_kind(info)}")
    num_chains = len(next(iter(before.values())))
    for name, value in info.items():
        if not isinstance(value, torch.Tensor) or value.shape != (num_chains,):
            raise ValueError(
                f"{of} must return one number a chain, ({num_chains},), as info {name!r}, got "
                f"{_kind(value)}"
            )


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"
