# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Gibbs sampling and annealing of the package ``rbms``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .boltzmann_peers import Start
from .harness import NotHereError


class Rbms:
    """``rbms.bernoulli_bernoulli.classes.BBRBM``.

    Args:
        start: the parameters.
    """

    def __init__(self, start: Start) -> None:
        try:
            from rbms.bernoulli_bernoulli.classes import BBRBM
        except ImportError as error:
            raise NotHereError("rbms is not installed") from error
        w, b, c = start.copies()
        self.machine: Any = BBRBM(weight_matrix=w, vbias=b, hbias=c)

    def gibbs(self, v: torch.Tensor) -> torch.Tensor:
        """One update of chains ``(C, V)``."""
        chains = self.machine.sample_hiddens({"visible": v})
        moved: torch.Tensor = self.machine.sample_visibles(chains)["visible"]
        return moved

    def anneal(self, num_chains: int, num_steps: int) -> torch.Tensor:
        """Log-weights ``(C,)`` of annealed importance sampling.

        The loop of its ``compute_partition_function_ais``, which gives no weights and begins at
        other biases, with its own steps.
        """
        from rbms.partition_function.ais import interpolate_ebm, update_weights_ais

        machine = self.machine
        base = machine * 0.0
        fair = torch.full((num_chains, machine.num_visibles()), 0.5)
        chains = base.init_chains(num_chains, start_v=torch.bernoulli(fair))
        units = machine.num_visibles() + machine.num_hiddens()
        log_weights = torch.full((num_chains,), units * float(np.log(2.0)))
        path = interpolate_ebm(base, machine, torch.linspace(0, 1, num_steps + 1))
        before = next(path)
        for after in path:
            log_weights, chains = update_weights_ais(before, after, chains, log_weights)
            before = after
        return log_weights
