# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What kernels share that put another kernel at several temperatures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .kernel import Kernel
from .state import Info, State
from .target import Site, Target
from .temperatures import adapt_step_scales, inverse_temperatures
from .tempered_target import TemperedTarget, temper

PREFIX = "kernel."


class Tempering(Kernel):
    """A kernel that runs another one at a ladder of temperatures.

    Args:
        kernel: of the target.
        temperatures: rising from 1.
        base: what is left at an infinite temperature; ``None`` for nothing.

    Raises:
        ValueError: for temperatures that do not rise from 1.
    """

    tempered: TemperedTarget

    def __init__(self, kernel: Kernel, temperatures: Sequence[float], *, base: Any = None) -> None:
        ladder = inverse_temperatures(temperatures, flat=base is None)
        super().__init__(kernel.model, compile=kernel.compile, potential_fn=kernel.potential_fn)
        self.kernel, self._base_given, self._ladder = kernel, base, ladder
        self.num_temperatures = len(ladder)
        self._arguments: tuple[Sequence[Any], Mapping[str, Any]] = (), {}
        self._noted: tuple[State, Info, torch.Tensor | None] | None = None

    # ------------------------------------------------ the kernel at its temperatures

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Bind the kernel to its target with the model's arguments, at all temperatures."""
        self._arguments = args, kwargs
        super().setup(warmup_steps, *args, **kwargs)

    def discrete_sites(self) -> Any:
        """The discrete sites that the kernel moves."""
        return self.kernel.discrete_sites()

    def suits(self, site: Site) -> bool:
        """Whether the kernel, or one of its parts, can move a site."""
        return self.kernel.suits(site)

    def bind(self, target: Target, sites: Sequence[str] | None = None) -> None:
        """Put the kernel at temperatures of a target.

        Raises:
            ValueError: unless it is to move all sites.
        """
        if sites is not None and set(sites) != set(target.sites):
            name = type(self).__name__
            raise ValueError(
                f"{name} has to move all sites of the target, {sorted(target.sites)}, and is to "
                f"move {sorted(sites)}: put Gibbs inside of {name}, not {name} inside of Gibbs"
            )
        super().bind(target)
        if self._base_given not in (None, "prior") and isinstance(self._base_given, str):
            raise ValueError(f'expected base=None, "prior" or a base, got {self._base_given!r}')
        args, kwargs = self._arguments
        before = getattr(self, "tempered", None)
        self.tempered = temper(
            target,
            getattr(self.model, "sampler", self.model),
            None if self._base_given == "prior" else self._base_given,
            args,
            kwargs,
            flat=self._base_given is None,
            compile=self.compile,
            before=before,
        )
        if self.tempered is not before:
            self.graphs.clear()
        self.tempered.put(self.kernel)
        betas = torch.tensor(self._ladder, dtype=self.tempered.dtype, device=target.device)
        self.load_tuning({"betas": betas, "step_scales": torch.ones_like(betas)})

    @property
    def betas(self) -> torch.Tensor:
        """The inverse temperatures ``(T,)``."""
        return self.tuning["betas"]

    @property
    def step_scales(self) -> torch.Tensor:
        """The factor of the step size at each temperature ``(T,)``."""
        return self.tuning["step_scales"]

    @abstractmethod
    def inner(self, state: State) -> State:
        """The state of the kernel in which its warm-up begins."""

    # ------------------------------------------------ warm-up

    def note(self, inner: State, info: Info, accept_probs: torch.Tensor | None) -> None:
        """Remember for ``adapt`` what the kernel did: its state, info, and acceptance ``(T,)``."""
        self._noted = inner, info, accept_probs

    def start_warmup(self, state: State, num_steps: int) -> None:
        """Start the warm-up of the kernel."""
        self.kernel.start_warmup(self.inner(state), num_steps)

    def adapt(self, state: State, info: Info, num_steps: int) -> None:
        """Let the kernel adapt itself, and bring the temperatures to the same acceptance."""
        assert self._noted is not None
        inner, its_info, accept_probs = self._noted
        self.kernel.adapt(inner, its_info, num_steps)
        if accept_probs is not None:
            adapt_step_scales(self.step_scales, accept_probs, num_steps)

    def end_warmup(self) -> None:
        """Fix what was adapted."""
        self.kernel.end_warmup()
        self._noted = None

    def tuning_dict(self) -> dict[str, torch.Tensor]:
        """Copies of what was adapted, that of the kernel under names with ``"kernel."``."""
        inner = {PREFIX + name: value for name, value in self.kernel.tuning_dict().items()}
        return {**super().tuning_dict(), **inner}

    def load_tuning(self, tuning: Mapping[str, torch.Tensor]) -> None:
        """Take adapted values over, those of the kernel too."""
        own = {name: value for name, value in tuning.items() if not name.startswith(PREFIX)}
        super().load_tuning(own)
        self.kernel.load_tuning(
            {n.removeprefix(PREFIX): v for n, v in tuning.items() if n.startswith(PREFIX)}
        )
