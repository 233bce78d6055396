# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A negative phase whose chains are driven away from where they have been."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .negative_phase import PersistentChains

if TYPE_CHECKING:
    from .machine import Machine


class FastWeights(PersistentChains):
    r"""Persistent chains of a machine with an overlay of fast weights.

    .. math::
        x_m &\sim K_{\theta + f}(x_m), \\
        f &\leftarrow \lambda f + \varepsilon \Bigl(\frac1M \sum_m \nabla_\theta E(x_m)
            - \frac1N \sum_n \nabla_\theta E(x_n)\Bigr)

    The overlay raises the energy where chains are and lowers it where the data are, so that chains
    mix fast; it decays, and the machine's own parameters learn at their own rate. It is for
    parameters that the machine holds itself, such as the weights and biases of an RBM.

    Args:
        num_chains: ``M``.
        num_steps: steps for each gradient.
        rate: :math:`\varepsilon`, the learning rate of the overlay.
        decay: :math:`\lambda`.

    References:
        Using Fast Weights to Improve Persistent Contrastive Divergence, Tijmen Tieleman and
        Geoffrey Hinton, 2009.

    Example:
        >>> import torch
        >>> from pyro_deepgen.energy import RBM
        >>> rbm = RBM(3, 2, negative_phase=FastWeights(10))
        >>> rbm.negative_phase(rbm, torch.ones(4, 3)).shape
        torch.Size([10, 3])
        >>> bool((rbm.negative_phase.fast_visible_bias > 0).all())  # towards the data
        True
    """

    def __init__(
        self, num_chains: int = 100, num_steps: int = 1, rate: float = 0.01, decay: float = 0.95
    ) -> None:
        super().__init__(num_chains, num_steps)
        if not rate > 0 or not 0 <= decay < 1:
            raise ValueError(
                f"expected a positive rate and a decay from 0 to below 1, got {rate} and {decay}"
            )
        self.rate, self.decay = rate, decay

    def prepare(self, machine: Machine) -> None:
        """Start the chains, and the overlay at zero.

        Raises:
            ValueError: for a machine that holds no parameters itself.
        """
        super().prepare(machine)
        names = [name for name, p in machine.own_parameters().items() if p.requires_grad]
        if not names or not hasattr(machine, "with_parameters"):
            raise ValueError(
                f"{type(machine).__name__} holds its parameters in networks: expected a machine "
                "with weights of its own, or another negative phase"
            )
        for name in names:
            own = machine.own_parameters()[name]
            self.register_buffer(f"fast_{name}", torch.zeros_like(own))

    def forward(self, machine: Machine, state: torch.Tensor) -> torch.Tensor:
        """Move the chains of the machine with its overlay, and the overlay with them."""
        own = machine.own_parameters()
        fast = {
            name: getattr(self, f"fast_{name}") for name in own if hasattr(self, f"fast_{name}")
        }
        with torch.no_grad():
            view: Any = machine
            overlaid = view.with_parameters(**{n: own[n] + f for n, f in fast.items()})
            self.chains.copy_(self.moved(overlaid, self.chains))
        with torch.enable_grad():
            gap = machine.energy(self.chains).mean() - machine.energy(state.detach()).mean()
            rises = torch.autograd.grad(gap, [own[n] for n in fast], allow_unused=True)
        with torch.no_grad():
            for overlay, rise in zip(fast.values(), rises, strict=True):
                overlay.mul_(self.decay)
                if rise is not None:
                    overlay.add_(rise, alpha=self.rate)
        return self.chains.clone()
