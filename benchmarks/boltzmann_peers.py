# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Restricted Boltzmann machines of others: scikit-learn's, and loops written by hand in PyTorch.

All are binary, start at the same parameters, and are trained by persistent contrastive divergence
with one step a gradient, and plain gradient steps of a mean over the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch.nn.functional import softplus

from .harness import Array

Draw = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Start:
    """Where everyone starts.

    Args:
        weight: ``(V, H)``.
        visible_bias: ``(V,)``.
        hidden_bias: ``(H,)``.
    """

    weight: torch.Tensor
    visible_bias: torch.Tensor
    hidden_bias: torch.Tensor

    def copies(self) -> list[torch.Tensor]:
        """Of their own memory."""
        return [t.clone() for t in (self.weight, self.visible_bias, self.hidden_bias)]


def by_bernoulli(probs: torch.Tensor) -> torch.Tensor:
    """As one writes it."""
    return torch.bernoulli(probs)


def by_uniform(probs: torch.Tensor) -> torch.Tensor:
    """As it is fastest on a CPU."""
    return torch.rand_like(probs).lt_(probs)


class ByHand:
    """A loop with the gradient written out: six products of matrices a step.

    Args:
        start: the first parameters.
        num_chains: persistent chains.
        rate: the learning rate.
        draw: draws coins.
    """

    def __init__(self, start: Start, num_chains: int, rate: float, draw: Draw) -> None:
        self.w, self.b, self.c = start.copies()
        self.rate, self.draw = rate, draw
        self.chains = draw(torch.full((num_chains, len(self.b)), 0.5))

    def step(self, v: torch.Tensor) -> None:
        """A gradient step for a batch ``(B, V)``."""
        on = torch.sigmoid(v @ self.w + self.c)
        self.chains = self.gibbs(self.chains)
        negative = torch.sigmoid(self.chains @ self.w + self.c)
        self.w.addmm_(v.T, on, alpha=self.rate / len(v))
        self.w.addmm_(self.chains.T, negative, alpha=-self.rate / len(negative))
        self.b.add_(v.mean(0) - self.chains.mean(0), alpha=self.rate)
        self.c.add_(on.mean(0) - negative.mean(0), alpha=self.rate)

    def gibbs(self, v: torch.Tensor) -> torch.Tensor:
        """One update of chains ``(C, V)``."""
        h = self.draw(torch.sigmoid(v @ self.w + self.c))
        return self.draw(torch.sigmoid(h @ self.w.T + self.b))

    def anneal(self, num_chains: int, num_steps: int) -> torch.Tensor:
        """Log-weights ``(C,)`` of annealed importance sampling: two products a temperature."""
        betas = torch.linspace(0, 1, num_steps + 1)
        v = self.draw(torch.full((num_chains, len(self.b)), 0.5))
        log_weights = torch.full((num_chains,), len(self.b) * np.log(2.0) + len(self.c) * np.log(2))
        for before, beta in pairwise(betas):
            field = v @ self.w + self.c
            log_weights += (beta - before) * (v @ self.b)
            log_weights += (softplus(beta * field) - softplus(before * field)).sum(1)
            h = self.draw(torch.sigmoid(beta * field))
            v = self.draw(torch.sigmoid(beta * (h @ self.w.T + self.b)))
        return log_weights

    def parameters(self) -> list[torch.Tensor]:
        """Weights and biases."""
        return [self.w, self.b, self.c]


class ByHandFromHidden(ByHand):
    """The same with chains of hidden units, as scikit-learn has them: five products a step.

    The field that the gradient needs is that of which the next hidden units are drawn.
    """

    def __init__(self, start: Start, num_chains: int, rate: float, draw: Draw) -> None:
        super().__init__(start, num_chains, rate, draw)
        self.hidden = draw(torch.full((num_chains, len(self.c)), 0.5))

    def step(self, v: torch.Tensor) -> None:
        """A gradient step for a batch ``(B, V)``."""
        on = torch.sigmoid(v @ self.w + self.c)
        chains = self.draw(torch.sigmoid(self.hidden @ self.w.T + self.b))
        negative = torch.sigmoid(chains @ self.w + self.c)
        self.hidden = self.draw(negative)
        self.w.addmm_(v.T, on, alpha=self.rate / len(v))
        self.w.addmm_(chains.T, negative, alpha=-self.rate / len(negative))
        self.b.add_(v.mean(0) - chains.mean(0), alpha=self.rate)
        self.c.add_(on.mean(0) - negative.mean(0), alpha=self.rate)


class ScikitLearn:
    """``sklearn.neural_network.BernoulliRBM``, in single precision.

    Args:
        start: the first parameters.
        num_chains: persistent chains, as many as the data of a batch.
        rate: the learning rate.
        seed: of its random numbers.
    """

    def __init__(self, start: Start, num_chains: int, rate: float, seed: int = 0) -> None:
        from sklearn.neural_network import BernoulliRBM

        num_hidden = start.weight.shape[1]
        self.machine = BernoulliRBM(
            num_hidden, learning_rate=rate, batch_size=num_chains, random_state=seed
        )
        # What its `fit` makes, but for the values: it takes a batch by `_fit`, in the data's type.
        self.random = np.random.RandomState(seed)
        self.machine.random_state_ = self.random
        w, b, c = (t.numpy().copy() for t in start.copies())
        self.machine.components_ = np.asarray(w.T, order="F")
        self.machine.intercept_visible_, self.machine.intercept_hidden_ = b, c
        coins = self.random.binomial(1, 0.5, (num_chains, num_hidden))
        self.machine.h_samples_ = coins.astype(np.float32)

    def step(self, v: Array) -> None:
        """A gradient step for a batch ``(B, V)``."""
        self.machine._fit(v, self.random)

    def gibbs(self, v: Array) -> Array:
        """One update of chains ``(C, V)``."""
        moved: Array = self.machine.gibbs(v)
        return moved

    def parameters(self) -> list[torch.Tensor]:
        """Weights and biases."""
        found = (
            self.machine.components_.T,
            self.machine.intercept_visible_,
            self.machine.intercept_hidden_,
        )
        return [torch.from_numpy(np.ascontiguousarray(p)).float() for p in found]
