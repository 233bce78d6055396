# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A long program as a compiled chunk in a loop: the same loss and gradients as all of it."""

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import nn

from pyro_deepgen.tracing import CompiledFunction


def same(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(torch.allclose(a, b, rtol=1e-10, atol=1e-10) for a, b in pairs)


class Markov(nn.Module):
    """A small deep Markov model of sequences ``(B, T, 3)`` with lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.GRU(3, 4, batch_first=True)
        self.combine, self.move = nn.Linear(2 + 4, 4), nn.Linear(2, 4)
        self.emit = nn.Linear(2, 3)
        self.start = nn.Parameter(torch.zeros(2))

    def guide_step(self, t: int, z: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        loc, scale = self.combine(torch.cat([z, h], -1)).tanh().chunk(2, -1)
        drawn: torch.Tensor = pyro.sample(f"z_{t}", dist.Normal(loc, scale.exp()).to_event(1))
        return drawn

    def model_step(self, t: int, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        loc, scale = self.move(z).tanh().chunk(2, -1)
        z = pyro.sample(f"z_{t}", dist.Normal(loc, scale.exp()).to_event(1))
        pyro.sample(f"x_{t}", dist.Bernoulli(logits=self.emit(z)).to_event(1), obs=x)
        return z

    def model(self, z: torch.Tensor, x: torch.Tensor, h: torch.Tensor, mask: torch.Tensor) -> Any:
        pyro.module("markov", self)
        with pyro.plate("data", len(x)):
            for t in range(x.shape[1]):
                with poutine.mask(mask=mask[:, t]):
                    z = self.model_step(t, z, x[:, t])

    def guide(self, z: torch.Tensor, x: torch.Tensor, h: torch.Tensor, mask: torch.Tensor) -> Any:
        pyro.module("markov", self)
        with pyro.plate("data", len(x)):
            for t in range(x.shape[1]):
                with poutine.mask(mask=mask[:, t]):
                    z = self.guide_step(t, z, h[:, t])
        return z

    def chunk(self, *given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a chunk of time steps, and the state after it."""
        guide = poutine.trace(self.guide).get_trace(*given)
        model = poutine.trace(poutine.replay(self.model, guide)).get_trace(*given)
        return guide.log_prob_sum() - model.log_prob_sum(), guide.nodes["_RETURN"]["value"]


class Noise(poutine.messenger.Messenger):
    """Makes the draws of the sites ``z_t`` from rows of noise."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self.rows = iter(rows)

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is None and msg["name"].startswith("z_"):
            base = msg["fn"].base_dist
            msg["value"] = base.loc + base.scale * next(self.rows)


def chunked(markov: Markov, function: Any, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    h, _ = markov.encode(x)
    z, loss = markov.start.expand(len(x), 2), x.new_zeros(())
    for start in range(0, x.shape[1], 3):
        now = slice(start, start + 3)
        part, z = function(z, x[:, now], h[:, now], mask[:, now])
        loss = loss + part
    return loss


def whole(markov: Markov, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Pyro's loss of all time steps."""
    h, _ = markov.encode(x)
    z = markov.start.expand(len(x), 2)
    loss: torch.Tensor = Trace_ELBO().differentiable_loss(markov.model, markov.guide, z, x, h, mask)
    return loss


@pytest.fixture
def sequences(float64: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Five sequences of up to twelve steps, and what of them is data."""
    mask = torch.arange(12) < torch.tensor([12, 9, 4, 7, 1]).unsqueeze(-1)
    return torch.bernoulli(torch.full((5, 12, 3), 0.3)).to(device), mask.to(device)


def test_chunks_in_a_loop_are_the_whole_program(
    sequences: tuple[torch.Tensor, torch.Tensor],
) -> None:
    markov = Markov().to(sequences[0].device)
    function = CompiledFunction(markov.chunk, modules=[markov], backend=None)
    losses = []
    for seed in (0, 1):
        found = []
        for loss in (lambda *data: chunked(markov, function, *data), lambda *d: whole(markov, *d)):
            pyro.set_rng_seed(seed)
            value = loss(*sequences)
            found.append([value, *torch.autograd.grad(value, list(markov.parameters()))])
        assert same(*found)
        losses.append(found[0][0].item())
    assert losses[0] != losses[1]
    assert function.num_graphs == 1


def test_what_lies_beyond_the_end_of_a_sequence_changes_nothing(
    sequences: tuple[torch.Tensor, torch.Tensor],
) -> None:
    markov = Markov().to(sequences[0].device)
    function = CompiledFunction(markov.chunk, modules=[markov], backend=None)
    x, mask = sequences
    values = []
    for data in (x, torch.where(mask.unsqueeze(-1), x, 1 - x)):
        pyro.set_rng_seed(0)
        value = chunked(markov, function, data, mask)
        values.append([value, *torch.autograd.grad(value, list(markov.parameters()))])
    assert same(*values)


@pytest.mark.slow
def test_compiled_chunks_have_the_gradients_of_the_recorded_ones(
    sequences: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """With the randomness as an argument, since the compiler draws from a stream of its own."""
    markov = Markov().to(sequences[0].device)

    def chunk(noise: torch.Tensor, *given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with Noise(noise):
            return markov.chunk(*given)

    noise, found = torch.randn(4, 3, 5, 2).to(sequences[0].device), []
    for backend in (None, "inductor"):
        function = CompiledFunction(chunk, modules=[markov], backend=backend)
        left = iter(noise)
        loop = chunked(markov, lambda *given, f=function, n=left: f(next(n), *given), *sequences)
        found.append([loop, *torch.autograd.grad(loop, list(markov.parameters()))])
    assert same(*found)
    drawn = CompiledFunction(markov.chunk, modules=[markov])
    with torch.no_grad():
        draws = [float(chunked(markov, drawn, *sequences)) for _ in range(3)]
    assert len(set(draws)) == 3
