# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Where the draws come from that the gradient of a log normalising constant needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import nn

from pyro_deepgen.tracing import is_recording, repeat

if TYPE_CHECKING:
    from .machine import Machine


class NegativePhase(nn.Module, ABC):
    r"""Draws for the gradient of a log normalising constant.

    .. math:: \nabla \log Z = -E_{p(x)}[\nabla E(x)] \approx -\tfrac1M \sum_m \nabla E(x_m)

    Args:
        num_steps: steps of the machine's own Markov chain for each gradient.

    Raises:
        ValueError: for numbers out of range.

    Example:
        >>> import torch
        >>> from pyro_deepgen.energy import RBM
        >>> class ExactDraws(NegativePhase):  # for machines that are small enough
        ...     def forward(self, machine, state):
        ...         return machine.exact_sample(100)
        >>> rbm = RBM(3, 2, negative_phase=ExactDraws())
        >>> rbm.log_prob(torch.ones(3)).backward()
        >>> bool((rbm.visible_bias.grad > 0).all())  # towards the data
        True
    """

    # Whether there is one draw for each datum.
    for_each_datum = False

    def __init__(self, num_steps: int = 1) -> None:
        super().__init__()
        if num_steps < 1:
            raise ValueError(f"expected 1 step or more, got {num_steps}")
        self.num_steps = num_steps

    def prepare(self, machine: Machine) -> None:
        """Make what is kept from gradient to gradient, once the machine is set up.

        Raises:
            ValueError: if another machine has it already.
        """
        if self.__dict__.get("_prepared"):
            raise ValueError(
                f"this {type(self).__name__} belongs to another machine: make one for each"
            )
        self.__dict__["_prepared"] = True

    def moved(self, machine: Machine, x: torch.Tensor) -> torch.Tensor:
        """Chains after ``num_steps`` steps; of a recorded program, one step is recorded."""
        if self.num_steps > 1 and is_recording():
            return repeat(machine.transition, x, self.num_steps)
        return machine.transition(x, self.num_steps)

    @abstractmethod
    def forward(self, machine: Machine, state: torch.Tensor) -> torch.Tensor:
        """Draw, without gradients.

        Args:
            machine: the machine over what its chains move: the visible units, or all of them.
            state: what the positive phase has, ``(*batch, *event_shape)``: the data, with hidden
                units drawn given them, where they are not summed out.

        Returns:
            ``(M, *event_shape)``, or ``(*batch, *event_shape)``, one draw for each datum.
        """


class ContrastiveDivergence(NegativePhase):
    """CD-k: chains that start at the data, for each gradient anew.

    The gradient is biased, as chains are still near the data; the bias shrinks with ``num_steps``.
    It is the only choice where the energy depends on a context.

    Args:
        num_steps: ``k``.

    References:
        Training Products of Experts by Minimizing Contrastive Divergence, Geoffrey Hinton, 2002.

    Example:
        >>> import torch
        >>> from pyro_deepgen.energy import RBM
        >>> rbm = RBM(3, 2, negative_phase=ContrastiveDivergence(5))
        >>> rbm.negative_phase(rbm, torch.ones(4, 3)).shape
        torch.Size([4, 3])
    """

    for_each_datum = True

    @torch.no_grad()
    def forward(self, machine: Machine, state: torch.Tensor) -> torch.Tensor:
        """One chain for each datum."""
        return self.moved(machine, state.detach())


class PersistentChains(NegativePhase):
    """PCD: chains that go on from where the last gradient left them.

    They lag behind the parameters: a learning rate that is too high for their number of steps lets
    the energy drift where no chain is, and the likelihood falls after it has risen. More steps or
    a lower rate help; parallel tempering helps where modes are far apart.

    Args:
        num_chains: ``M``.
        num_steps: steps for each gradient.

    References:
        Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient,
        Tijmen Tieleman, 2008.

    Example:
        >>> import torch
        >>> from pyro_deepgen.energy import RBM
        >>> rbm = RBM(3, 2, negative_phase=PersistentChains(10, num_steps=2))
        >>> draws = rbm.negative_phase(rbm, torch.ones(4, 3))
        >>> bool((draws == rbm.negative_phase.chains).all()), draws.shape
        (True, torch.Size([10, 3]))
    """

    chains: torch.Tensor

    def __init__(self, num_chains: int = 100, num_steps: int = 1) -> None:
        super().__init__(num_steps)
        if num_chains < 1:
            raise ValueError(f"expected 1 chain or more, got {num_chains}")
        self.num_chains = num_chains

    def prepare(self, machine: Machine) -> None:
        """Start the chains."""
        super().prepare(machine)
        self.register_buffer("chains", machine.start(self.num_chains))

    @torch.no_grad()
    def forward(self, machine: Machine, state: torch.Tensor) -> torch.Tensor:
        """Move the chains on."""
        self.chains.copy_(self.moved(machine, self.chains))
        return self.chains.clone()
