# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Energies that a network computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn
from typing_extensions import Self

from pyro_deepgen.distributions import BufferedDistribution, DistributionModule
from pyro_deepgen.mcmc import HMC, MALA, AISResult, Kernel, ais

from .energy_distribution import EnergyDistribution
from .machine import Machine
from .negative_phase import NegativePhase
from .replay_buffer import ReplayBuffer


class NeuralEnergy(EnergyDistribution):
    r"""A distribution over real values whose energy is the output of a network.

    .. math:: p(x) \propto \exp(-f(x) / T), \quad
        \text{or, tilted, } p(x) \propto p_0(x) \exp(-f(x) / T)

    A network that is bounded below, however it is trained, has a density for certain where it tilts
    a base :math:`p_0`; without one the energy must grow with :math:`x` to have a finite integral,
    which nobody checks. Chains start at draws of the base, and ``log Z`` is estimated by annealing
    along the geometric path from it, with Hamiltonian Monte Carlo.

    Args:
        net: a module from ``(N, *event_shape)`` to energies ``(N,)`` or ``(N, 1)``; with a context,
            of ``(N, *event_shape)`` and ``(N, context_dim)``.
        event_shape: shape of one draw.
        base: a normalised distribution over the same values; standard normal by default.
        tilted: whether the base is part of the density.
        kernel: makes the chains' kernel of a target, such as
            ``functools.partial(Langevin, step_size=0.05)``; :class:`~pyro_deepgen.mcmc.MALA` with
            its first step size by default. No step size is adapted in training.
        context_dim: size of a context; 0 for none.
        negative_phase: see :class:`EnergyDistribution`; :class:`ReplayBuffer` by default.
        temperature: see :class:`EnergyDistribution`.
        sampling_steps: see :class:`EnergyDistribution`.
        validate_args: see :class:`EnergyDistribution`.

    Raises:
        ValueError: for a base over other values, and a network that gives no energies.

    References:
        Implicit Generation and Generalization in Energy-Based Models, Yilun Du and Igor Mordatch,
        2019, arXiv 1903.08689. A Theory of Generative ConvNet, Jianwen Xie, Yang Lu, Song-Chun Zhu
        and Ying Nian Wu, 2016, arXiv 1602.03264.

    Example:
        >>> import torch
        >>> class Bowl(torch.nn.Module):
        ...     def forward(self, x):
        ...         return 2 * (x ** 2).sum(-1)
        >>> bowl = NeuralEnergy(Bowl(), (2,)).eval()
        >>> found = bowl.estimate_log_partition(100, 20, compile=False)
        >>> exact = torch.tensor(torch.pi / 2).log()
        >>> bool((found.value - exact).abs() < 5 * found.standard_error)
        True
    """

    in_one_pass = False  # a network may normalise over its batch

    def __init__(
        self,
        net: nn.Module,
        event_shape: int | Sequence[int],
        *,
        base: TorchDistributionMixin | None = None,
        tilted: bool = False,
        kernel: Callable[..., Kernel] = MALA,
        context_dim: int = 0,
        negative_phase: NegativePhase | None = None,
        temperature: float = 1.0,
        sampling_steps: int = 1000,
        validate_args: bool | None = None,
    ) -> None:
        shape = torch.Size([event_shape] if isinstance(event_shape, int) else event_shape)
        if negative_phase is None and not context_dim:
            negative_phase = ReplayBuffer()
        super().__init__(
            shape,
            negative_phase=negative_phase,
            temperature=temperature,
            sampling_steps=sampling_steps,
            context_dim=context_dim,
            validate_args=validate_args,
        )
        if base is None:
            base = dist.Normal(torch.zeros(shape), torch.ones(shape)).to_event(len(shape))
        if base.event_shape != shape or base.batch_shape or base.support.is_discrete:
            raise ValueError(
                f"expected a base over real values of shape {tuple(shape)}, got event_shape "
                f"{tuple(base.event_shape)} and batch_shape {tuple(base.batch_shape)} over "
                f"{base.support}"
            )
        self.net, self.tilted, self.kernel = net, tilted, kernel
        self.base = base if isinstance(base, DistributionModule) else BufferedDistribution(base)
        self.__dict__["_beta"] = None
        self.__dict__["_mover"] = _Mover(kernel)
        if not context_dim:
            with torch.no_grad():
                self.energy(self.start(2))  # a network of another shape is told here
        self.ready()

    @property
    def support(self) -> Any:
        """The support of the base."""
        return self.base.support

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        """``f(x) / T``, less ``log p_0(x)`` if tilted; ``(...)`` of ``(..., *event_shape)``.

        Raises:
            ValueError: if the network does not give one number for each value.
        """
        batch = x.shape[: x.dim() - len(self.event_shape)]
        inputs = [x.reshape(-1, *self.event_shape)]
        if self.context is not None:
            context = self.context.expand(*batch, self.context_dim)
            inputs.append(context.reshape(-1, self.context_dim))
        found: torch.Tensor = self.net(*inputs)
        if found.shape not in ((len(inputs[0]),), (len(inputs[0]), 1)):
            raise ValueError(
                f"expected the network to give {(len(inputs[0]),)} energies for values of shape "
                f"{tuple(inputs[0].shape)}, got {tuple(found.shape)}"
            )
        energy = found.reshape(batch) / self.temperature
        beta: torch.Tensor | None = self.__dict__["_beta"]
        if not self.tilted and beta is None:
            return energy
        of_base = -self.base.log_prob(x)
        if beta is None:
            return energy + of_base
        return beta * energy + (1 if self.tilted else 1 - beta) * of_base

    def transition(
        self, x: torch.Tensor, num_steps: int = 1, known: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Move chains ``(..., *event_shape)`` by steps of the kernel.

        Args:
            x: the chains.
            num_steps: how many steps.
            known: a mask that broadcasts to ``x``; what is known does not move.
        """
        mover: _Mover = self.__dict__["_mover"]
        moved = mover.move(self, x, num_steps, known)
        return moved if known is None else torch.where(known, x, moved)

    @torch.no_grad()
    def start(self, num_chains: int) -> torch.Tensor:
        """Draws of the base."""
        draws: torch.Tensor = self.base.sample((num_chains,))
        return draws

    def bridge(self, beta: torch.Tensor) -> Self:
        """A point of the geometric path from the base."""
        view = self.expand(self.batch_shape)
        view.__dict__["_beta"] = beta
        return view

    def path_start(self) -> Any:
        """The base."""
        return self.base

    def anneal(self, *, compile: bool | str = True, **settings: Any) -> AISResult:
        """Annealed importance sampling from the base, with Hamiltonian Monte Carlo.

        Args:
            compile: whether the steps are compiled.
            settings: arguments of :func:`~pyro_deepgen.mcmc.ais`, such as another ``kernel``.

        Returns:
            Its result, with the weights and the last values of all chains.
        """
        kernel = settings.pop("kernel", None) or HMC(self, num_steps=5, compile=compile)
        return ais(self, self.base, kernel, **settings)


class _Chains(nn.Module):
    """Some chains as a target, in which what is known has a flat density and no effect."""

    def __init__(self, event_shape: torch.Size, support: Any) -> None:
        super().__init__()
        self.event_shape, self.support = event_shape, support
        self.now: tuple[Machine, torch.Tensor, torch.Tensor | None]

    def energy(self, flat: torch.Tensor) -> torch.Tensor:
        """Energies ``(C,)`` of values ``(C, *event_shape)``."""
        machine, x, known = self.now
        value = flat.reshape(x.shape)
        if known is not None:
            value = torch.where(known, x, value)
        energy: torch.Tensor = machine.energy(value)
        return energy.reshape(-1)


class _Mover:
    """Chains moved by one kernel, which is made once; views of a machine share it.

    Args:
        make: makes the kernel of a target.
    """

    def __init__(self, make: Callable[..., Kernel]) -> None:
        self._make = make
        self._made: dict[Any, tuple[_Chains, Kernel]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Copies make a kernel of their own."""
        return {"_make": self._make, "_made": {}}

    def move(
        self, machine: NeuralEnergy, x: torch.Tensor, num_steps: int, known: torch.Tensor | None
    ) -> torch.Tensor:
        """Move chains ``(..., *event_shape)``."""
        key = x.dtype, x.device
        if key not in self._made:
            chains = _Chains(machine.event_shape, machine.support)
            self._made[key] = chains, self._make(chains, compile=False)
        chains, kernel = self._made[key]
        chains.now = machine, x, known
        kernel.setup(0)
        state = kernel.init(kernel.target.unconstrain({"x": x.reshape(-1, *machine.event_shape)}))
        for _ in range(num_steps):
            state, _ = kernel.step(state)
        moved = kernel.target.constrain(kernel.values(state))["x"].reshape(x.shape).detach()
        del chains.now
        return moved
