# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A target at a temperature."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch

from pyro_deepgen.tracing import Graph

from .base import Base, as_base
from .block_gibbs import BlockGibbs
from .compiled import compiled
from .kernel import Kernel
from .path import GeometricPath, OwnPath, Path
from .state import Values
from .target import Target


class TemperedTarget(Target):
    r"""A point of a path of densities, at which any kernel can be put.

    The inverse temperature is a tensor that changes in place, so one compiled graph of a kernel
    serves all temperatures. So is the unit in which the kernel sees continuous sites: a kernel of
    fixed step size then takes larger steps where the density is wider.

    .. math:: U(q) = U_\beta(s q)

    Args:
        path: the densities.
        base: where the path begins, if it is a normalised density.
        compile: as of a kernel.
        given: what the base was made of.

    Example:
        >>> import pyro.distributions as dist, torch
        >>> from pyro_deepgen.mcmc.as_target import as_target
        >>> from pyro_deepgen.mcmc.path import GeometricPath
        >>> one = as_target(dist.Normal(0.0, 1.0), (), {}, kernel=None, before=None)
        >>> tempered = TemperedTarget(GeometricPath(None, one), None, compile=False)
        >>> at = {"x": torch.tensor([1.0])}
        >>> tempered.set(torch.tensor(0.25))
        >>> bool(torch.isclose(tempered.potential(at), 0.25 * one.potential(at)))
        True
    """

    def __init__(
        self, path: Path, base: Base | None, compile: bool | str, given: Any = None
    ) -> None:
        self.path, self.base, self.compile, self.given = path, base, compile, given
        self.graphs: dict[Hashable, tuple[Graph, Any]] = {}
        self.sites, self.device = path.target.sites, path.target.device
        self.dtype = next(
            (s.dtype for s in self.sites.values() if s.dtype.is_floating_point),
            torch.get_default_dtype(),
        )
        # One pair of tensors a shape: graphs hold on to those that they were made with.
        self._points: dict[torch.Size, tuple[torch.Tensor, torch.Tensor]] = {}
        self.set(torch.ones(()))

    def set(self, beta: torch.Tensor, scale: torch.Tensor | None = None) -> None:
        """Go to another temperature.

        Args:
            beta: inverse temperatures, one for all chains ``()`` or one each ``(C,)``.
            scale: the unit of continuous sites, of the same shape; 1 by default.
        """
        if beta.shape not in self._points:
            one = torch.ones(beta.shape, dtype=self.dtype, device=self.device)
            self._points[beta.shape] = one, one.clone()
        self.beta, self.scale = self._points[beta.shape]
        self.beta.copy_(beta)
        self.scale.copy_(torch.ones_like(beta) if scale is None else scale)

    def actual(self, values: Mapping[str, torch.Tensor]) -> Values:
        """From what a kernel sees to the unconstrained values of the sites."""
        return {name: self._times(name, value, self.scale) for name, value in values.items()}

    def seen(self, values: Mapping[str, torch.Tensor]) -> Values:
        """From the values of the sites to what a kernel sees."""
        unit = 1 / self.scale
        return {name: self._times(name, value, unit) for name, value in values.items()}

    def _times(self, name: str, value: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
        if self.sites[name].is_discrete:
            return value
        return value * for_values(value, unit).reshape(-1, *[1] * (value.dim() - 1))

    def potential(self, values: Values) -> torch.Tensor:
        """The potential of every chain at its temperature, of values as a kernel sees them."""
        actual = self.actual({name: values[name] for name in self.sites})
        return self.path.potential(actual, for_values(next(iter(actual.values())), self.beta))

    def potential_and_gradient(
        self, values: Values, sites: Sequence[str]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The potential ``(C,)``, and its gradient ``(C, D)`` by what a kernel sees."""
        if not isinstance(self.path, GeometricPath):
            return super().potential_and_gradient(values, sites)
        actual = self.actual({name: values[name] for name in self.sites})
        first = next(iter(actual.values()))
        beta, scale = for_values(first, self.beta), for_values(first, self.scale)
        potential, gradient = self.path.potential_and_gradient(actual, sites, beta)
        return potential, gradient * scale[..., None]

    @compiled
    def difference(self, values: Values, beta: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        """What the potentials of two temperatures differ by, ``(C,)``; of actual values."""
        return self.path.differences(values)(beta, to)

    @property
    def blocks(self) -> Any:
        """The blocks that the distribution can draw, where the path is its own."""
        return self.path.program.blocks if isinstance(self.path, OwnPath) else ()

    def sample_block(self, block: str, values: Values) -> torch.Tensor:
        """Draw a block at this temperature, where the path is the distribution's own."""
        assert isinstance(self.path, OwnPath)
        drawn: torch.Tensor = self.path.program.bridge(self.beta).sample_block(block, values)
        return drawn

    def put(self, kernel: Kernel) -> None:
        """Let a kernel move all sites of this target.

        Raises:
            ValueError: if it cannot at other temperatures.
        """
        kernel.bind(self)
        for part in (kernel, *getattr(kernel, "kernels", ())):
            if isinstance(part, BlockGibbs):
                if not isinstance(self.path, OwnPath):
                    raise ValueError(
                        f"BlockGibbs draws blocks of {type(part.sampler).__name__} itself, not at "
                        "other temperatures: give that a method bridge(beta), or use DiscreteGibbs"
                    )
                part.sampler = self

    def start(self, num_chains: int) -> Values:
        """Where the chains of the target may start."""
        return self.seen(self.path.target.start(num_chains))

    def constrain(self, values: Mapping[str, torch.Tensor]) -> Values:
        """From what a kernel sees to values in the target's own terms."""
        return self.path.target.constrain(self.actual(values))

    def unconstrain(self, values: Mapping[str, torch.Tensor]) -> Values:
        """From values in the target's own terms to what a kernel sees."""
        return self.seen(self.path.target.unconstrain(values))


def for_values(values: torch.Tensor, of_chains: torch.Tensor) -> torch.Tensor:
    """What belongs to each of the values ``(n C, ...)``, ``n`` times all chains one after another.

    A kernel may evaluate several values of each chain at once.
    """
    if of_chains.dim() == 0 or len(of_chains) == len(values):
        return of_chains
    return of_chains.repeat(len(values) // len(of_chains))


def temper(
    target: Target,
    program: Any,
    base: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    flat: bool = False,
    compile: bool | str,
    before: TemperedTarget | None = None,
) -> TemperedTarget:
    """Make the path from a base to a target, or take the one before where it serves again.

    Args:
        target: the end of the path.
        program: what the target was made of.
        base: see :func:`~pyro_deepgen.mcmc.base.as_base`.
        args: arguments of a Pyro program.
        kwargs: keyword arguments of a Pyro program.
        flat: whether the path has no base, and consists of powers of the target.
        compile: as of a kernel.
        before: made of the same program and base.
    """
    if before is not None and (before.path.target is not target or before.given is not base):
        before = None
    last = None if before is None else before.base
    made = None if flat else as_base(base, program, target, args, kwargs, before=last)
    if before is not None and (made is None or (last is not None and made.target is last.target)):
        before.base = made
        return before
    path: Path = GeometricPath(None if made is None else made.target, target)
    if base is None and not flat and hasattr(program, "bridge"):
        path = OwnPath(program, target)
    return TemperedTarget(path, made, compile, given=base)
