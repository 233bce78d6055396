# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A kernel of a few lines and a model with an exact posterior, for the tests of the runner."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch

from pyro_deepgen.mcmc.compiled import compiled
from pyro_deepgen.mcmc.kernel import Kernel
from pyro_deepgen.mcmc.state import Info, State

X = torch.tensor([0.5, 1.0, 2.5, 1.5])


class Walk(Kernel):
    """Metropolis with normal steps, whose scale the warm-up adapts crudely."""

    def bind(self, target: Any, sites: Any = None) -> None:
        super().bind(target, sites)
        self.load_tuning({"scale": torch.full((), 0.7, device=target.device)})

    @compiled
    def init(self, state: State) -> State:
        values = self.values(state)
        return {**values, "~potential": self.target.potential(values)}

    @compiled
    def step(self, state: State) -> tuple[State, Info]:
        before = self.values(state)
        after = {
            name: before[name] + self.tuning["scale"] * torch.randn_like(before[name])
            if name in self.sites
            else before[name]
            for name in before
        }
        potential = self.target.potential(after)
        accept_prob = (state["~potential"] - potential).exp().clamp(max=1.0).nan_to_num(0.0)
        accepted = torch.rand_like(accept_prob) < accept_prob

        def choose(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
            return torch.where(accepted.reshape(-1, *[1] * (new.dim() - 1)), new, old)

        moved = {name: choose(after[name], before[name]) for name in before}
        potential = choose(potential, state["~potential"])
        info = {"accept_prob": accept_prob, "diverging": accept_prob == 0, "potential": potential}
        return {**moved, "~potential": potential}, info

    def adapt(self, state: State, info: Info, num_steps: int) -> None:
        step = (info["accept_prob"].mean() - 0.4) / num_steps**0.6
        self.tuning["scale"].mul_(step.exp())


def model(x: torch.Tensor = X) -> None:
    """A normal mean with known variance, and a rate and a simplex that the data leave alone.

    Given x, "loc" is normal with mean sum(x) / (n + 1) and variance 1 / (n + 1).
    """
    loc = pyro.sample("loc", dist.Normal(x.new_zeros(()), 1.0))
    pyro.sample("rate", dist.Gamma(x.new_tensor(3.0), x.new_tensor(2.0)))
    pyro.sample("parts", dist.Dirichlet(x.new_ones(3) * 2))
    pyro.deterministic("twice", 2 * loc)
    with pyro.plate("items", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)
