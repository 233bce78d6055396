# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The deep Markov model of Krishnan, Shalit and Sontag (2017) on the JSB chorales.

The networks and their sizes are those of Pyro's example: a gated transition, an emitter, and a
guide that combines the last latent state with a recurrent network over the reversed sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear, relu, softplus

from pyro_deepgen.tracing import CompiledFunction

from .chorales import NOTES, chorales, reorder
from .harness import Case, Contestant, NotHereError
from .with_pyro import InjectedNoise, pyro_svi
from .with_torch import arrays, by_hand

LATENT, EMISSION, TRANSITION, RECURRENT = 100, 100, 200, 600
Tensors = tuple[torch.Tensor, torch.Tensor]


class Networks(nn.Module):
    """The networks, without probability; every loss below is made of them."""

    def __init__(self) -> None:
        super().__init__()
        self.prior_start = nn.Parameter(torch.zeros(LATENT))
        self.posterior_start = nn.Parameter(torch.zeros(LATENT))
        self.recurrent_start = nn.Parameter(torch.zeros(RECURRENT))
        self.recurrent = nn.RNN(NOTES, RECURRENT, nonlinearity="relu", batch_first=True)
        self.combine = nn.Linear(LATENT, RECURRENT)
        self.posterior_loc = nn.Linear(RECURRENT, LATENT)
        self.posterior_scale = nn.Linear(RECURRENT, LATENT)
        self.gate_1, self.gate_2 = nn.Linear(LATENT, TRANSITION), nn.Linear(TRANSITION, LATENT)
        self.move_1, self.move_2 = nn.Linear(LATENT, TRANSITION), nn.Linear(TRANSITION, LATENT)
        self.prior_scale = nn.Linear(LATENT, LATENT)
        self.prior_loc = nn.Linear(LATENT, LATENT)
        nn.init.eye_(self.prior_loc.weight)
        nn.init.zeros_(self.prior_loc.bias)
        self.emit_1, self.emit_2 = nn.Linear(LATENT, EMISSION), nn.Linear(EMISSION, EMISSION)
        self.emit_3 = nn.Linear(EMISSION, NOTES)

    def encode(self, backwards: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        """What is known of the future at each time step, ``(B, T, 600)``."""
        start = self.recurrent_start.expand(1, len(backwards), RECURRENT).contiguous()
        return reorder(self.recurrent(backwards, start)[0], order)

    def starts(self, batch: int) -> Tensors:
        """The states before the first time step, of the model and of the guide."""
        return self.prior_start.expand(batch, LATENT), self.posterior_start.expand(batch, LATENT)

    def posterior(self, z: torch.Tensor, h: torch.Tensor) -> Tensors:
        """Location and scale of the guide's next state."""
        combined = 0.5 * (torch.tanh(self.combine(z)) + h)
        return self.posterior_loc(combined), softplus(self.posterior_scale(combined))

    def prior(self, z: torch.Tensor) -> Tensors:
        """Location and scale of the model's next state."""
        gate = torch.sigmoid(self.gate_2(relu(self.gate_1(z))))
        move = self.move_2(relu(self.move_1(z)))
        loc = (1 - gate) * self.prior_loc(z) + gate * move
        return loc, softplus(self.prior_scale(relu(move)))

    def emission(self, z: torch.Tensor) -> torch.Tensor:
        """Logits of the notes."""
        logits: torch.Tensor = self.emit_3(relu(self.emit_2(relu(self.emit_1(z)))))
        return logits


class ByHand(nn.Module):
    """The negative ELBO, by hand.

    Args:
        at_once: evaluate the model, whose terms are independent given the latents, for all time
            steps together, after the loop over the guide's.
    """

    def __init__(self, *, at_once: bool) -> None:
        super().__init__()
        self.networks, self.at_once = Networks(), at_once

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor,
        backwards: torch.Tensor,
        order: torch.Tensor,
        noise: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Sum over the data; ``noise`` is ``(B, 100)`` for each time step."""
        h = self.networks.encode(backwards, order).unbind(1)
        before, z = self.networks.starts(len(x))
        loss, states = x.new_zeros(()), [before]
        for t in range(x.shape[1]):
            loc, scale = self.networks.posterior(z, h[t])
            eps = torch.randn_like(loc) if noise is None else noise[t]
            z = loc + scale * eps
            log_q = -(0.5 * eps**2 + scale.log()).sum(-1)
            loss = loss + (log_q * mask[:, t]).sum()
            if not self.at_once:
                loss = loss + (self.terms(before, z, x[:, t]) * mask[:, t]).sum()
                before = z
            states.append(z)
        if self.at_once:
            z = torch.stack(states, 1)
            loss = loss + (self.terms(z[:, :-1], z[:, 1:], x) * mask).sum()
        return loss

    def terms(self, before: torch.Tensor, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The model's negative log-probabilities."""
        loc, scale = self.networks.prior(before)
        prior = (0.5 * ((z - loc) / scale) ** 2 + scale.log()).sum(-1)
        logits = self.networks.emission(z)
        return prior + binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)


class Programs:
    """Model and guide, in Pyro, of all time steps or of a chunk of them."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks

    def model(self, z: torch.Tensor, x: torch.Tensor, mask: torch.Tensor) -> None:
        """States and notes, from the state before."""
        with pyro.plate("data", len(x)):
            for t in pyro.markov(range(x.shape[1])):
                with poutine.mask(mask=mask[:, t]):
                    loc, scale = self.networks.prior(z)
                    z = pyro.sample(f"z_{t}", dist.Normal(loc, scale).to_event(1))
                    notes = dist.Bernoulli(logits=self.networks.emission(z)).to_event(1)
                    pyro.sample(f"x_{t}", notes, obs=x[:, t])

    def guide(self, z: torch.Tensor, h: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """States ``(B, T, 100)``, from the state before."""
        states = []
        with pyro.plate("data", len(h)):
            # Taken one by one, each would get a gradient of the size of all.
            for t, h_t in pyro.markov(enumerate(h.unbind(1))):
                with poutine.mask(mask=mask[:, t]):
                    loc, scale = self.networks.posterior(z, h_t)
                    z = pyro.sample(f"z_{t}", dist.Normal(loc, scale).to_event(1))
                    states.append(z)
        return torch.stack(states, 1)

    def model_at_once(
        self, before: torch.Tensor, z: torch.Tensor, x: torch.Tensor, mask: torch.Tensor
    ) -> None:
        """The same model of given states, whose time steps are independent."""
        data, time = pyro.plate("data", len(x), dim=-2), pyro.plate("time", x.shape[1], dim=-1)
        with data, time, poutine.mask(mask=mask):
            loc, scale = self.networks.prior(before)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1), obs=z)
            logits = self.networks.emission(z)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def whole(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Model and guide of all time steps, as ``SVI`` takes them."""

        def model(x: torch.Tensor, mask: torch.Tensor, *others: torch.Tensor) -> None:
            pyro.module("networks", self.networks)
            self.model(self.networks.starts(len(x))[0], x, mask)

        def guide(x: torch.Tensor, mask: torch.Tensor, *reversed_: torch.Tensor) -> None:
            pyro.module("networks", self.networks)
            self.guide(self.networks.starts(len(x))[1], self.networks.encode(*reversed_), mask)

        return model, guide


class Chunked(nn.Module):
    """The negative ELBO of the Pyro programs, a compiled chunk of time steps after the other.

    Args:
        chunk: the number of time steps.
        at_once: evaluate the model for all time steps together, after the loop over the guide's.
    """

    def __init__(self, chunk: int, *, at_once: bool) -> None:
        super().__init__()
        self.networks, self.chunk, self.at_once = Networks(), chunk, at_once
        self.programs = Programs(self.networks)
        self.compiled, self.recorded = self.functions("inductor"), self.functions(None)

    def functions(self, backend: str | None) -> dict[str, CompiledFunction]:
        """The parts of the loss as graphs."""
        parts = (self.recur, self.part, self.model_part)
        return {part.__name__: CompiledFunction(part, backend=backend) for part in parts}

    def recur(self, h: torch.Tensor, inputs: torch.Tensor) -> Tensors:
        """A chunk of the recurrent network's hidden states ``(B, T, 600)``, and the last."""
        recurrent, states = self.networks.recurrent, []
        for term in inputs.unbind(1):
            h = relu(term + linear(h, recurrent.weight_hh_l0, recurrent.bias_hh_l0))
            states.append(h)
        return torch.stack(states, 1), h

    def encode(self, recur: CompiledFunction, backwards: torch.Tensor) -> torch.Tensor:
        """The recurrent network's hidden states, a chunk after the other."""
        recurrent, states = self.networks.recurrent, []
        h = self.networks.recurrent_start.expand(len(backwards), RECURRENT)
        inputs = linear(backwards, recurrent.weight_ih_l0, recurrent.bias_ih_l0)
        for chunk in inputs.split(self.chunk, 1):
            part, h = recur(h, chunk)
            states.append(part)
        return torch.cat(states, 1)

    def part(
        self,
        noise: list[torch.Tensor],
        before: torch.Tensor,
        z: torch.Tensor,
        x: torch.Tensor,
        h: torch.Tensor,
        mask: torch.Tensor,
    ) -> Tensors:
        """The loss of a chunk, and its states, as ``Trace_ELBO`` makes them.

        Given noise, if any, replaces the draws.
        """
        with InjectedNoise(noise) if noise else nullcontext():
            guide = poutine.trace(self.programs.guide).get_trace(z, h, mask)
        states, loss = guide.nodes["_RETURN"]["value"], guide.log_prob_sum()
        if not self.at_once:
            replayed = poutine.replay(self.programs.model, trace=guide)
            loss = loss - poutine.trace(replayed).get_trace(before, x, mask).log_prob_sum()
        return loss, states

    def model_part(self, *given: torch.Tensor) -> torch.Tensor:
        """The model's part of the loss, for all time steps."""
        return -poutine.trace(self.programs.model_at_once).get_trace(*given).log_prob_sum()

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor,
        backwards: torch.Tensor,
        order: torch.Tensor,
        noise: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Sum over the data; ``noise`` is ``(B, 100)`` for each time step."""
        functions = self.compiled if noise is None else self.recorded
        h = reorder(self.encode(functions["recur"], backwards), order)
        before, z = self.networks.starts(len(x))
        loss, states = x.new_zeros(()), [before.unsqueeze(1)]
        chunks = zip(*(d.split(self.chunk, 1) for d in (x, h, mask)), strict=True)
        for i, chunk in enumerate(chunks):
            rows = list((noise or [])[i * self.chunk : (i + 1) * self.chunk])
            part, found = functions["part"](rows, before, z, *chunk)
            loss, before = loss + part, found[:, -1]
            z = before
            states.append(found)
        if self.at_once:
            z = torch.cat(states, 1)
            loss = loss + functions["model_part"](z[:, :-1], z[:, 1:], x, mask)
        return loss


def case(
    name: str, *, batch: int = 20, chunk: int = 4, longest: int | None = None, steps: int
) -> Case:
    """A case with so many sequences, each cut at ``longest`` time steps."""
    try:
        size = chorales(batch, chunk, longest)[0].shape[1]
    except NotHereError:
        size = 0  # then every contestant says so, and draws no noise

    def data() -> list[torch.Tensor]:
        return chorales(batch, chunk, longest)

    torch.manual_seed(0)
    values = arrays(list(Networks().parameters()))

    def hand(*, at_once: bool, fused: bool) -> Contestant:
        return by_hand(ByHand(at_once=at_once), data(), values, fused=fused)

    def numpyros(in_loop: bool) -> Contestant:
        from .deep_markov_numpyro import numpyro_contestant

        names = [name for name, _ in Networks().named_parameters()]
        return numpyro_contestant(data(), names, values, in_loop=in_loop)

    def ours(*, at_once: bool) -> Contestant:
        return by_hand(Chunked(chunk, at_once=at_once), data(), values, fused=True)

    def pyros() -> Contestant:
        return pyro_svi(lambda: Programs(Networks()).whole(), Trace_ELBO(), data(), values)

    at_once = "model of all time steps at once"
    contestants = {
        f"CompiledFunction, {chunk} time steps": lambda: ours(at_once=False),
        f"CompiledFunction, {chunk} time steps, {at_once}": lambda: ours(at_once=True),
        "Pyro SVI": pyros,
        "PyTorch by hand": lambda: hand(at_once=False, fused=False),
        "PyTorch by hand, fused Adam": lambda: hand(at_once=False, fused=True),
        f"PyTorch by hand, fused Adam, {at_once}": lambda: hand(at_once=True, fused=True),
        "NumPyro": lambda: numpyros(False),
        "NumPyro, steps in a compiled loop": lambda: numpyros(True),
    }
    title = f"Deep Markov model, {batch} JSB chorales of up to {size} steps"
    return Case(name, title, steps, ((batch, LATENT),) * size, contestants)
