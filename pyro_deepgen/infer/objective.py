# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The base of our objectives: Pyro ELBOs that stay on the device."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from math import inf
from typing import Any
from weakref import ref

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.poutine import Trace
from torch import nn
from torch.random import fork_rng

from .frozen_statistics import FrozenStatistics
from .traces import PARTICLES, Program, check_match, run_guide, run_model, sites_of


class Objective(ELBO):
    """Base class of objectives that are a differentiable tensor and never leave the device.

    A subclass implements :meth:`differentiable_loss`. ``SVI(model, guide, optim, objective)`` and
    ``objective(model, guide)`` both work. ``loss`` and ``loss_and_grads`` give a tensor without
    dimensions instead of a float, since a float would wait for the device; ``SVI.step`` turns it
    into one.

    All particles are drawn as one batch, in a plate to the left of the model's own.

    Args:
        num_particles: number of draws from the guide for each datum.
        max_plate_nesting: number of nested plates of the model and guide; where it is infinite,
            the first call with several particles runs both once to find it, and so does the first
            call with arguments of other numbers of dimensions. That run changes neither random
            numbers nor running statistics.

    Raises:
        ValueError: if ``num_particles < 1``.

    Example:
        >>> from pyro_deepgen.infer import ImportanceWeightedELBO
        >>> isinstance(ImportanceWeightedELBO(5), Objective)
        True
    """

    def __init__(self, num_particles: int = 1, *, max_plate_nesting: float = inf) -> None:
        if num_particles < 1:
            raise ValueError(f"expected at least one particle, got num_particles={num_particles}")
        super().__init__(  # type: ignore[no-untyped-call]
            num_particles=num_particles,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=True,
        )
        self._find_nesting = max_plate_nesting == inf
        self._nestings: dict[Hashable, float] = {}

    @abstractmethod
    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """The loss, a tensor without dimensions, whose gradient is the estimator's."""

    @torch.no_grad()
    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The loss without gradients, a tensor without dimensions."""
        return self.differentiable_loss(model, guide, *args, **kwargs)

    def loss_and_grads(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Accumulate gradients in the parameters and give the loss, a tensor."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        return loss.detach()

    def batched(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Program, Program]:
        """Put model and guide inside the plate of particles."""
        if self.num_particles == 1:
            return model, guide
        if self._find_nesting:
            inputs = (*args, *(kwargs[key] for key in sorted(kwargs)))
            ranks = tuple(i.dim() if isinstance(i, torch.Tensor) else None for i in inputs)
            key = (_identity(model), _identity(guide), ranks)
            if key not in self._nestings:
                # So that a run that was resumed draws what it would have drawn.
                with torch.no_grad(), fork_rng(_cuda_devices()), FrozenStatistics():
                    self._nestings[key] = 1 + _plate_nesting(model, guide, args, kwargs)
            self.max_plate_nesting = self._nestings[key]
        plate = pyro.plate(PARTICLES, self.num_particles, dim=-int(self.max_plate_nesting))
        return plate(model), plate(guide)

    @property
    def particle_dim(self) -> int | None:
        """Dimension of the plate of particles; ``None`` for one particle."""
        return None if self.num_particles == 1 else -int(self.max_plate_nesting)

    def _get_trace(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Trace, Trace]:
        """Run the guide, and the model against it."""
        guide_trace = run_guide(guide, args, kwargs)
        model_trace = run_model(model, guide_trace, args, kwargs)
        check_match(model_trace, guide_trace)
        return model_trace, guide_trace


def _plate_nesting(
    model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> int:
    """The number of nested plates of model and guide, found by running them once."""
    with poutine.block():
        guide_trace = run_guide(guide, args, kwargs)
        model_trace = run_model(model, guide_trace, args, kwargs)
    sites = [*sites_of(guide_trace).values(), *sites_of(model_trace).values()]
    dims = [f.dim for site in sites for f in site["cond_indep_stack"] if f.vectorized]
    return -min(dims, default=0)


def _identity(program: Program) -> Hashable:
    """What tells one program from another, without keeping it alive.

    A module is known by its children, since a view of a pair is made anew at each access; a bound
    method by its object and function.
    """
    parts: list[Any] = [getattr(program, "__self__", None), getattr(program, "__func__", None)]
    if isinstance(program, nn.Module):
        parts = list(program.children())
    parts = [part for part in parts if part is not None] or [program]
    name = getattr(program, "program", None)  # which of its pair's programs a view runs
    return (type(program), name, *(ref(part) for part in parts))


def _cuda_devices() -> list[int]:
    return [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
