# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A target from whatever a user has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyro.infer.autoguide.initialization import init_to_uniform

from .distribution_target import DistributionTarget
from .model_target import ModelTarget
from .potential_target import PotentialTarget
from .state import Values
from .target import Target


def as_target(
    program: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    kernel: Any,
    before: Any,
    example: Values | None = None,
) -> Target:
    """Make a target of a Pyro model, a distribution, an energy, or a potential function.

    Args:
        program: any of these, or a target.
        args: a model's arguments.
        kwargs: a model's keyword arguments.
        kernel: the kernel that will move the target, which says which discrete sites it moves
            (``discrete_sites``), whether ``program`` is its ``potential_fn``, and where the chains
            of a model start (``init_strategy``); or ``None``.
        before: the target that the kernel had before, or ``None``; it stays if only the values of
            the model's tensors differ, and with it the kernel's graphs.
        example: values ``(*shape)`` of one chain, which a potential function needs.

    Raises:
        ValueError: for something else, and for arguments or a strategy to what is no model.
    """
    keep = () if kernel is None else kernel.discrete_sites()
    strategy = getattr(kernel, "init_strategy", None)
    is_potential = kernel is not None and program is kernel.potential_fn
    if isinstance(program, Target) or is_potential or _has_density(program):
        if args or kwargs:
            raise ValueError(
                f"only a model takes arguments, not a {type(program).__name__}: leave them out"
            )
        if strategy is not None:
            raise ValueError(
                f"only a model takes an init_strategy, not a {type(program).__name__}: give "
                "initial_params instead"
            )
        return _without_arguments(program, is_potential, before, example)
    if not callable(program):
        raise ValueError(
            "expected a Pyro model, a distribution with log_prob, an object with energy(x), a "
            f"Target or a potential_fn, got {type(program).__name__}"
        )
    strategy = strategy or init_to_uniform
    if isinstance(before, ModelTarget) and (before.model, before.keep) == (program, keep):
        before.init_strategy = strategy
        if before.update(args, kwargs):
            return before
    return ModelTarget(program, args, kwargs, keep=keep, init_strategy=strategy)


def _has_density(program: Any) -> bool:
    return any(callable(getattr(program, name, None)) for name in ("energy", "log_prob"))


def _without_arguments(
    program: Any, is_potential: bool, before: Any, example: Values | None
) -> Target:
    if isinstance(program, Target):
        return program
    if is_potential:
        known = isinstance(before, PotentialTarget) and before.potential_fn is program
        if known and before.fits(example):
            kept: Target = before
            return kept
        return PotentialTarget(program, example)
    known = isinstance(before, DistributionTarget) and before.distribution is program
    if known and before.is_current():
        same: Target = before
        return same
    return DistributionTarget(program)
