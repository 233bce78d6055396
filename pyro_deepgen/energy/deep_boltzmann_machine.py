# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Deep Boltzmann machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from typing_extensions import Self

from pyro_deepgen.mcmc import AISResult, BlockGibbs, ais

from .annealing import Annealed
from .context import offsets
from .deep_enumeration import Enumeration
from .deep_layers import AllLayers, OddLayers
from .energy_distribution import EnergyDistribution
from .mean_field import MeanField
from .negative_phase import ContrastiveDivergence, NegativePhase
from .pretraining import Stage, pretrained_layers
from .units import BinaryUnits, FreeUnits, Units

# Hidden states that are summed over for each datum at most.
MAX_HIDDEN = 1 << 12


class DeepBoltzmannMachine(EnergyDistribution):
    r"""A Boltzmann machine whose hidden units lie in layers, each coupled to its neighbours.

    .. math:: E(v, h_1, \dots, h_L) = e(v) - b_0^T s(v) - s(v)^T W_1 h_1
        - \sum_{l=1}^L b_l^T h_l - \sum_{l=2}^L h_{l-1}^T W_l h_l

    A draw is of the visible units; :meth:`sample_layers` gives the hidden ones too.

    In training mode the hidden units are inferred by mean field, :math:`q(h) = \prod_l \prod_j
    q(h_{lj})` with means :math:`\mu`, and ``log_prob`` is the bound

    .. math:: \log p(v) \ge -E(v, \mu_1, \dots, \mu_L) + H(q) - \log Z

    with the gradient of :math:`\log Z` from the negative phase, whose chains run over all layers.
    In evaluation mode it is exact where both sums can be enumerated (2^20 states for ``log Z``,
    2^12 hidden states for a datum), else **the mean-field bound**: ``log_prob_is_bound`` tells.

    Training goes well after pretraining layer by layer, :meth:`stages`.

    Args:
        visible: number of binary visible units ``V``, or :class:`Units`.
        hidden_dims: numbers of binary hidden units ``H_1, ..., H_L``.
        mean_field: how the hidden units are inferred; ``MeanField()`` by default.
        clamped_steps: if given, the positive phase of learning is a draw of the hidden units in
            place of mean field, and the gradient that of the likelihood: an exact draw where
            ``log_prob_is_bound`` is false, else so many steps of Gibbs sampling with the visible
            units clamped, from a draw of the mean field.
        weight_scale: standard deviation of the first weights.
        context_dim: size of a context that shifts all biases; 0 for none.
        bias: a network from ``(..., context_dim)`` to offsets ``(..., V + H_1 + ... + H_L)``;
            linear by default.
        negative_phase: see :class:`EnergyDistribution`.
        temperature: see :class:`EnergyDistribution`.
        sampling_steps: see :class:`EnergyDistribution`.
        validate_args: see :class:`EnergyDistribution`.

    Raises:
        ValueError: for sizes out of range.

    References:
        Deep Boltzmann Machines, Ruslan Salakhutdinov and Geoffrey Hinton, 2009.

    Example:
        >>> import torch
        >>> machine = DeepBoltzmannMachine(4, (3, 2), weight_scale=1.0).eval()
        >>> states = BinaryUnits(4).states(torch.zeros(()))
        >>> bool(torch.isclose(machine.log_prob(states).logsumexp(0), torch.zeros(()), atol=1e-5))
        True
        >>> bool((machine.bound(states) <= machine.log_prob(states) + 1e-5).all())
        True
    """

    base_bias: torch.Tensor
    bias1: torch.Tensor

    def __init__(
        self,
        visible: int | Units,
        hidden_dims: Sequence[int],
        *,
        mean_field: MeanField | None = None,
        clamped_steps: int = 0,
        weight_scale: float = 0.01,
        context_dim: int = 0,
        bias: nn.Module | None = None,
        negative_phase: NegativePhase | None = None,
        temperature: float = 1.0,
        sampling_steps: int = 1000,
        validate_args: bool | None = None,
    ) -> None:
        visible = BinaryUnits(visible) if isinstance(visible, int) else visible
        super().__init__(
            (visible.num_units,),
            negative_phase=negative_phase,
            temperature=temperature,
            sampling_steps=sampling_steps,
            context_dim=context_dim,
            validate_args=validate_args,
        )
        if len(hidden_dims) < 1:
            raise ValueError("expected the sizes of one hidden layer or more, got none")
        if clamped_steps < 0:
            raise ValueError(f"expected 0 clamped steps or more, got {clamped_steps}")
        self.clamped_steps = clamped_steps
        self.visible = visible.at(temperature)
        self.hidden = nn.ModuleList(BinaryUnits(size) for size in hidden_dims)
        self.sizes = visible.num_units, *hidden_dims
        for level, size in enumerate(self.sizes):
            self.register_parameter(f"bias{level}", nn.Parameter(torch.zeros(size)))
            if level:
                first = weight_scale * torch.randn(self.sizes[level - 1], size)
                self.register_parameter(f"weight{level}", nn.Parameter(first))
        self.register_buffer("base_bias", torch.zeros(visible.num_units))
        self.mean_field = MeanField() if mean_field is None else mean_field
        if context_dim:
            self.offsets = offsets(context_dim, self.sizes) if bias is None else bias
        elif bias is not None:
            raise ValueError("expected context_dim with a network of the context, got 0")
        self.__dict__["_beta"] = None
        self.ready()

    @property
    def support(self) -> Any:
        """The support of the visible units."""
        return self.visible.support

    # ------------------------------------------------ energies

    def energy(self, x: torch.Tensor, *hidden: torch.Tensor) -> torch.Tensor:
        r"""The energy :math:`E(v, h_1, \dots, h_L) / T`; or the free energy of visible units alone.

        Args:
            x: visible units ``(..., V)``.
            hidden: all hidden layers ``(..., H1), ..., (..., HL)``, or none. Without them they are
                summed out if every other layer has no more than 2^12 states, and else the value is
                the upper bound of the free energy by mean field.

        Raises:
            ValueError: for some but not all of the hidden layers.
        """
        if hidden:
            if len(hidden) != len(self.sizes) - 1:
                raise ValueError(
                    f"expected {len(self.sizes) - 1} hidden layers or none, got {len(hidden)}"
                )
            return self.all_units.summed_energy([x, *hidden])
        return (
            self.variational_energy(x)
            if self.log_prob_is_bound
            else -Enumeration(self.all_units, x).log_sum()
        )

    def variational_energy(
        self, x: torch.Tensor, means: Sequence[torch.Tensor] | None = None
    ) -> torch.Tensor:
        r"""The mean-field bound :math:`E(v, \mu) / T - H(q)`, at or above the free energy.

        At a fixed point its gradient is that of the bound although the means are held fixed.

        Args:
            x: visible units ``(..., V)``.
            means: of the hidden layers; inferred, without gradients, by default.
        """
        if means is None:
            with torch.no_grad():
                means = self.infer(x)
        both = torch.cat([*means, *(1 - mean for mean in means)], -1)
        entropy: torch.Tensor = torch.special.entr(both).sum(-1)
        return self.all_units.summed_energy([x, *means]) - entropy

    def infer(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The mean-field means of the hidden layers ``[(..., H1), ..., (..., HL)]``: features."""
        means: list[torch.Tensor] = self.mean_field(self.all_units, x)
        return means

    # ------------------------------------------------ the distribution

    @property
    def log_prob_is_bound(self) -> bool:
        """Whether ``log_prob`` in evaluation mode is the mean-field bound."""
        return Enumeration(self.all_units, self.base_bias).num_states() > MAX_HIDDEN

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """The log-density or the bound ``(..., *batch_shape)``; see the class for which.

        Args:
            value: ``(..., *batch_shape, V)``.

        Raises:
            UnknownPartitionError: in evaluation mode, or where a parameter is a result of other
                computations, if the normalising constant is not known.
        """
        if self.__dict__["_replaced"] or not self.training:
            return super().log_prob(value)
        if self._validate_args:
            self._validate_sample(value)
        value = self.broadcast(value)
        last = self.log_partition_values[0].nan_to_num(0.0).to(value.dtype)
        if not (torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())):
            return -self.variational_energy(value) - last
        self.observe(value)
        drawn = self.clamped_steps > 0
        state = self.complete(value) if drawn or self.negative_phase.for_each_datum else value
        score = -self.all_units.energy(state) if drawn else -self.variational_energy(value)
        odd = OddLayers(self.all_units)
        draws = self.negative_phase(self.all_units, state)
        negative = odd.energy(odd.part(draws))  # with the even layers summed out it varies less
        if not self.negative_phase.for_each_datum:
            negative = negative.mean()
        return score - last + (negative - negative.detach())

    def bound(self, x: torch.Tensor) -> torch.Tensor:
        """The mean-field bound of the log-density ``(...)``, also where that is known.

        Args:
            x: visible units ``(..., V)``.

        Raises:
            UnknownPartitionError: if the normalising constant is not known.
        """
        return -self.variational_energy(x) - self.log_partition()

    def stages(
        self, negative_phase: Callable[[], NegativePhase] = ContrastiveDivergence
    ) -> Iterator[Stage]:
        """Pretraining layer by layer; see :func:`~pyro_deepgen.energy.pretrained_layers`."""
        return pretrained_layers(self, negative_phase)

    # ------------------------------------------------ all layers

    @property
    def all_units(self) -> AllLayers:
        """The machine over the units of all layers, the visible ones first."""
        return AllLayers(self, self.__dict__["_beta"])

    def visible_part(self, state: torch.Tensor) -> torch.Tensor:
        """The visible units."""
        return state[..., : self.sizes[0]]

    def known_part(self, mask: torch.Tensor) -> torch.Tensor:
        """No hidden unit is known."""
        hidden = mask.new_zeros(*mask.shape[:-1], sum(self.sizes[1:]))
        return torch.cat([mask, hidden], -1)

    @torch.no_grad()
    def complete(self, value: torch.Tensor) -> torch.Tensor:
        """States with hidden units drawn given the visible ones.

        The draws are exact where ``log_prob_is_bound`` is false, else from the mean field, moved by
        ``clamped_steps`` steps.
        """
        if not self.log_prob_is_bound:
            return Enumeration(self.all_units, value).draw(1)[0]
        state = torch.cat([value, *(torch.bernoulli(mean) for mean in self.infer(value))], -1)
        clamped = self.known_part(torch.ones_like(value, dtype=torch.bool))
        return self.all_units.transition(state, self.clamped_steps, clamped)

    @torch.no_grad()
    def transition(
        self, x: torch.Tensor, num_steps: int = 1, known: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Draw the hidden units given the visible ones, then move all layers so many times."""
        mask = None if known is None else self.known_part(known.expand(x.shape))
        return self.visible_part(self.all_units.transition(self.complete(x), num_steps, mask))

    def start(self, num_chains: int) -> torch.Tensor:
        """Visible units as their biases alone would have them."""
        return self.visible_part(self.all_units.start(num_chains))

    def sample_layers(self, sample_shape: Sequence[int] = torch.Size()) -> list[torch.Tensor]:
        """Draw all layers, ``(*sample_shape, *batch_shape, N_l)`` each, the visible one first."""
        return self.all_units.split(self.sample_all(sample_shape))

    # ------------------------------------------------ the normalising constant

    def num_states(self) -> float:
        """The states of the odd or of the even layers, whichever are fewer."""
        return self.all_units.num_states()

    def exact_log_partition(self) -> torch.Tensor:
        """``log Z`` by enumeration of every other layer."""
        return self.all_units.exact_log_partition()

    def exact_sample(self, num_draws: int) -> torch.Tensor:
        """Draws by enumeration of every other layer."""
        return self.visible_part(self.all_units.exact_sample(num_draws))

    def set_base(self, data: torch.Tensor) -> None:
        """Start annealing from the mean of some data, ``(N, V)``, which shortens the way.

        Raises:
            ValueError: for units for which there is no closed form.
        """
        mean = data.reshape(-1, self.sizes[0]).mean(0)
        self.base_bias.copy_(self.visible.field_of(mean))

    def bridge(self, beta: torch.Tensor) -> Self:
        """The machine with its couplings times ``beta``, and biases between the base's and its."""
        view = self.expand(self.batch_shape)
        view.__dict__["_beta"] = beta
        return view

    def path_start(self) -> FreeUnits:
        """Independent visible units with the base's biases."""
        return FreeUnits(self.visible, self.base_bias)

    def anneal(self, *, compile: bool | str = True, **settings: Any) -> AISResult:
        """Annealed importance sampling of the odd layers, with the even ones summed out."""
        odd = OddLayers(self.all_units)
        path = Annealed(odd)  # type: ignore[arg-type]
        if settings.get("reverse_from") is not None:
            settings["reverse_from"] = odd.part(settings["reverse_from"])
        settings = {"schedule": "linear", "tune": False, **settings}
        return ais(path, kernel=BlockGibbs(path, compile=compile), **settings)
