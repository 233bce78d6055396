# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""General Boltzmann machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import constraints
from typing_extensions import Self

from .centring import as_offset_rate, centred_units
from .colouring import colours
from .context import offsets
from .energy_distribution import EnergyDistribution
from .log_partition import UnknownPartitionError, all_states, log_sum_of, power
from .negative_phase import NegativePhase
from .units import BinaryUnits

# Hidden states that are summed over for each datum at most.
MAX_HIDDEN_STATES = 1 << 12


class BoltzmannMachine(EnergyDistribution):
    r"""A Boltzmann machine: binary units, each pair of which may be coupled.

    .. math:: E(x) = -\sum_i b_i x_i - \sum_{i < j} W_{ij} x_i x_j, \quad x = (v, h)

    Units take values in {0, 1} and each pair counts once. A draw is of the visible units. Without
    hidden ones learning is that of a log-linear model; with them the gradient is

    .. math:: \Delta W_{ij} = \langle x_i x_j \rangle_{\text{data}}
        - \langle x_i x_j \rangle_{\text{model}}

    where in the first mean hidden units are drawn (``positive="gibbs"``), or inferred by mean field
    (``positive="mean_field"``, the gradient of a bound), with the data clamped. The value of
    ``log_prob`` in training is that of the energy with these hidden units. In evaluation mode
    hidden units are summed out if there are 12 at most; with more of them ``log_prob`` is the lower
    bound by mean field, and ``log_prob_is_bound`` says so.

    Chains draw one unit after another, or with sparse ``couplings`` all units of a colour at once,
    where no two coupled units have the same colour.

    Args:
        num_visible: number of visible units ``V``.
        num_hidden: number of hidden units ``H``.
        couplings: which pairs may be coupled, ``(N, N)`` and symmetric, ``N = V + H``; all by
            default.
        weight_scale: standard deviation of the first weights.
        positive: ``"gibbs"`` or ``"mean_field"``.
        positive_steps: steps of either, with the data clamped.
        context_dim: size of a context that shifts the biases; 0 for none.
        bias: a network from ``(..., context_dim)`` to offsets ``(..., N)``; linear by default.
        centred: whether the gradient in training is that of centred units; see :class:`RBM`.
        offset_rate: how fast the offsets follow the means of the data in training.
        negative_phase: see :class:`EnergyDistribution`.
        temperature: see :class:`EnergyDistribution`.
        sampling_steps: see :class:`EnergyDistribution`.
        validate_args: see :class:`EnergyDistribution`.

    Raises:
        ValueError: for sizes out of range, and ``couplings`` that are not symmetric.

    References:
        A Learning Algorithm for Boltzmann Machines, David H. Ackley, Geoffrey E. Hinton and
        Terrence J. Sejnowski, 1985.

    Example:
        >>> import torch
        >>> coins = BoltzmannMachine(2).eval()
        >>> _ = coins.weight.data[0, 1].fill_(1.0)
        >>> both, none = coins.log_prob(torch.ones(2)), coins.log_prob(torch.zeros(2))
        >>> bool(torch.isclose(both - none, torch.tensor(1.0)))  # the pair counts once
        True
    """

    weight: torch.Tensor
    unit_bias: torch.Tensor
    base_bias: torch.Tensor
    pairs: torch.Tensor
    offset: torch.Tensor

    def __init__(
        self,
        num_visible: int,
        num_hidden: int = 0,
        *,
        couplings: torch.Tensor | None = None,
        weight_scale: float = 0.01,
        positive: str = "gibbs",
        positive_steps: int = 10,
        context_dim: int = 0,
        bias: nn.Module | None = None,
        centred: bool = False,
        offset_rate: float = 0.01,
        negative_phase: NegativePhase | None = None,
        temperature: float = 1.0,
        sampling_steps: int = 1000,
        validate_args: bool | None = None,
    ) -> None:
        if num_visible < 1 or num_hidden < 0:
            raise ValueError(
                f"expected 1 visible unit or more and 0 hidden ones or more, got {num_visible} and "
                f"{num_hidden}"
            )
        if positive not in ("gibbs", "mean_field") or positive_steps < 1:
            raise ValueError(
                f'expected positive="gibbs" or "mean_field" with 1 step or more, got {positive!r} '
                f"with {positive_steps}"
            )
        super().__init__(
            (num_visible,),
            negative_phase=negative_phase,
            temperature=temperature,
            sampling_steps=sampling_steps,
            context_dim=context_dim,
            validate_args=validate_args,
        )
        self.num_visible, self.num_hidden = num_visible, num_hidden
        self.positive, self.positive_steps = positive, positive_steps
        size = num_visible + num_hidden
        if couplings is None:
            couplings = torch.ones(size, size, dtype=torch.bool)
        if couplings.shape != (size, size) or not torch.equal(couplings, couplings.mT):
            raise ValueError(
                f"expected symmetric couplings of shape {(size, size)}, got others of shape "
                f"{tuple(couplings.shape)}"
            )
        self.colours: list[str | slice] = []
        for group in colours(couplings):
            if len(group) == 1:
                self.colours.append(slice(group[0], group[0] + 1))
            else:
                self.colours.append(f"colour{len(self.colours)}")
                self.register_buffer(str(self.colours[-1]), torch.tensor(group))
        pairs = couplings.to(torch.get_default_dtype()).triu(1)
        self.register_buffer("pairs", pairs)
        self.weight = nn.Parameter(weight_scale * torch.randn(size, size) * pairs)
        self.unit_bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("base_bias", torch.zeros(size))
        self.centred, self.offset_rate = centred, as_offset_rate(offset_rate)
        if centred:
            self.register_buffer("offset", torch.full((size,), 0.5))
        if context_dim:
            self.bias = offsets(context_dim, (size,)) if bias is None else bias
        elif bias is not None:
            raise ValueError("expected context_dim with a network of the context, got 0")
        self.__dict__["_beta"] = None
        self.ready()

    @property
    def support(self) -> Any:
        """0 or 1 for each unit."""
        return constraints.independent(constraints.boolean, 1)

    # ------------------------------------------------ the energy

    def _weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Symmetric weights and biases, over the temperature, with the context's offsets."""
        w, b = self.weight * self.pairs, self.unit_bias
        if self.centred and self.training and torch.is_grad_enabled():
            w, b = centred_units(w, b, self.offset, self.pairs)
        context = self.context
        if context is not None:
            b = b + self.bias(context)
        return (w + w.mT) / self.temperature, b / self.temperature

    def _from_base(self, field: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        beta: torch.Tensor | None = self.__dict__["_beta"]
        if beta is None:
            return field
        beta = beta[..., None].to(field.dtype)
        return beta * field + (1 - beta) * base

    def energy(self, x: torch.Tensor, h: torch.Tensor | None = None) -> torch.Tensor:
        """``E(x) / T`` of all units, or ``E(v, h) / T``.

        Args:
            x: all units ``(..., N)``, or visible ones ``(..., V)`` beside ``h``.
            h: hidden units ``(..., H)``.

        Raises:
            ValueError: if hidden units are missing.
        """
        if h is not None:
            batch = torch.broadcast_shapes(x.shape[:-1], h.shape[:-1])
            x = torch.cat([x.expand(*batch, -1), h.expand(*batch, -1)], -1)
        if x.shape[-1:] != self.unit_bias.shape:
            raise ValueError(
                f"expected all {len(self.unit_bias)} units, {self.num_visible} of them visible, "
                f"got {x.shape[-1]}: give energy(v, h), or use log_unnormalized(v)"
            )
        w, b = self._weights()
        return -(x * self._from_base(0.5 * (x @ w) + b, self.base_bias)).sum(-1)

    @torch.no_grad()
    def transition(
        self, x: torch.Tensor, num_steps: int = 1, known: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Draw one unit after another, or one colour, given all others, so many times.

        Args:
            x: all units ``(..., N)``.
            num_steps: how many times.
            known: a mask that broadcasts to ``x``; what is known does not move.
        """
        return self._sweep(x, num_steps, known, means=False)

    def _sweep(
        self, x: torch.Tensor, num_steps: int, known: Any, means: bool, first: int = 0
    ) -> torch.Tensor:
        """Sweeps over the units, but for single ones before the first one that may move."""
        w, b = self._weights()
        moving = [at for at in self.colours if isinstance(at, str) or at.start >= first]
        groups = [getattr(self, at) if isinstance(at, str) else at for at in moving]
        columns = [(at, w[:, at], b[..., at], self.base_bias[at]) for at in groups]
        x = x.clone()
        if known is not None:
            known = known.expand(x.shape)
        units = BinaryUnits(1)
        draw = units.mean if means else units.sample
        for _ in range(num_steps):
            for at, weight, bias, base in columns:
                new = draw(self._from_base(x @ weight + bias, base))
                x[..., at] = new if known is None else torch.where(known[..., at], x[..., at], new)
        return x

    @torch.no_grad()
    def start(self, num_chains: int) -> torch.Tensor:
        """All units as their biases alone would have them."""
        probs = (self.unit_bias / self.temperature).sigmoid()
        return torch.bernoulli(probs.expand(num_chains, -1))

    # ------------------------------------------------ hidden units

    @property
    def all_units(self) -> Self:
        """The machine over visible and hidden units, ``(N,)``."""
        if not self.num_hidden:
            return self
        view = self.expand(self.batch_shape)
        view.__dict__.update(num_visible=len(self.unit_bias), num_hidden=0)
        view.__dict__["_event_shape"] = self.unit_bias.shape
        return view

    def visible_part(self, state: torch.Tensor) -> torch.Tensor:
        """The visible units of all units ``(..., N)``."""
        return state[..., : self.num_visible]

    def known_part(self, mask: torch.Tensor) -> torch.Tensor:
        """The mask ``(..., N)`` of all units, of which hidden ones are not known."""
        return torch.cat([mask, mask.new_zeros(*mask.shape[:-1], self.num_hidden)], -1)

    def complete(self, value: torch.Tensor) -> torch.Tensor:
        """Visible units ``(..., V)`` with hidden ones drawn given them, or their means."""
        if not self.num_hidden:
            return value
        means = self.positive == "mean_field"
        with torch.no_grad():
            hidden = self._hidden_given(value, self.positive_steps, means)
        return torch.cat([value, hidden], -1)

    def _hidden_given(self, v: torch.Tensor, num_steps: int, means: bool) -> torch.Tensor:
        hidden = v.new_full((*v.shape[:-1], self.num_hidden), 0.5)
        known = self.known_part(torch.ones_like(v, dtype=torch.bool))
        state = torch.cat([v, hidden if means else torch.bernoulli(hidden)], -1)
        swept = self._sweep(state, num_steps, known, means, first=self.num_visible)
        return swept[..., self.num_visible :]

    def sample_joint(
        self, sample_shape: Sequence[int] = torch.Size()
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws of the visible and of the hidden units, ``(*sample_shape, *batch_shape, ...)``."""
        v, h = self.sample_all(sample_shape).split([self.num_visible, self.num_hidden], -1)
        return v, h

    @property
    def log_prob_is_bound(self) -> bool:
        """Whether there are too many hidden units to sum out."""
        return power(2, self.num_hidden) > MAX_HIDDEN_STATES

    def log_unnormalized(self, value: torch.Tensor) -> torch.Tensor:
        """Minus the free energy of visible units ``(..., V)``, or its bound by mean field."""
        if not self.num_hidden:
            return -self.energy(value)
        if self.log_prob_is_bound:
            with torch.no_grad():
                m = self._hidden_given(value, 10 * self.positive_steps, means=True)
            entropy: torch.Tensor = (torch.special.entr(m) + torch.special.entr(1 - m)).sum(-1)
            return entropy - self.energy(value, m)
        one = [1] * (value.dim() - 1)

        def score(h: torch.Tensor) -> torch.Tensor:
            return -self.energy(value, h.reshape(-1, *one, self.num_hidden))

        states = all_states(self.num_hidden, value)
        return log_sum_of(score, states, value[..., 0].numel() * len(self.unit_bias))

    @torch.no_grad()
    def observe(self, state: torch.Tensor) -> None:
        """Let the offsets follow the means of the data, where units are centred."""
        if self.centred:
            mean = state.reshape(-1, len(self.offset)).mean(0)
            self.offset.lerp_(mean, self.offset_rate)

    # ------------------------------------------------ the normalising constant

    def set_base(self, data: torch.Tensor) -> None:
        """Start annealing from the mean of some data, ``(N, V)``, which shortens the way."""
        mean = data.reshape(-1, self.num_visible).mean(0).clamp(0.02, 0.98)
        self.base_bias[: self.num_visible] = mean.logit()

    def bridge(self, beta: torch.Tensor) -> Self:
        """The machine with its couplings times ``beta``, and biases between the base's and its."""
        view = self.expand(self.batch_shape)
        view.__dict__["_beta"] = beta
        return view

    def path_start(self) -> Any:
        """Independent units with the base's biases."""
        return dist.Bernoulli(logits=self.base_bias).to_event(1)

    def num_states(self) -> float:
        """The states of all units."""
        return power(2, len(self.unit_bias))

    def exact_log_partition(self) -> torch.Tensor:
        """``log Z`` by enumeration of all units."""
        states = self._states()
        return log_sum_of(self._scores, states, states.shape[-1] * self.lead.numel())

    def exact_sample(self, num_draws: int) -> torch.Tensor:
        """Draws of all units by enumeration."""
        states = self._states()
        scores = self._scores(states).expand(-1, *self.lead)
        chosen: torch.Tensor = dist.Categorical(logits=scores.movedim(0, -1)).sample((num_draws,))
        return states[chosen]

    def _states(self) -> torch.Tensor:
        if not self.is_small:
            raise UnknownPartitionError(self._too_large())
        return all_states(len(self.unit_bias), self.unit_bias)

    def _scores(self, states: torch.Tensor) -> torch.Tensor:
        return -self.energy(states.reshape(-1, *[1] * len(self.lead), states.shape[-1]))
