# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Deep Boltzmann machines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import nn
from typing_extensions import Self

from pyro_deepgen.mcmc import AISResult

from .annealing import annealed
from .centring import CentredLayers, as_offset_rate
from .context import offsets
from .copied_units import Copies
from .inferred_layers import InferredLayers
from .mean_field import MeanField
from .negative_phase import ContrastiveDivergence, NegativePhase
from .pretraining import Stage, TiedStage, pretrained_layers, tie
from .rbm import RBM
from .some_layers import SomeLayers
from .units import BinaryUnits, Units


class DeepBoltzmannMachine(InferredLayers):
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
        centred: whether the gradient of ``log_prob`` in training is that of centred units; see
            :class:`RBM`. The machines of :meth:`stages` are not centred.
        offset_rate: how fast the offsets follow the means of the data, and of the hidden units
            given them, in training. They start at those of units without a field.
        negative_phase: see :class:`EnergyDistribution`.
        temperature: see :class:`EnergyDistribution`.
        sampling_steps: see :class:`EnergyDistribution`.
        validate_args: see :class:`EnergyDistribution`.

    Raises:
        ValueError: for sizes out of range.

    References:
        Deep Boltzmann Machines, Ruslan Salakhutdinov and Geoffrey Hinton, 2009. Deep Boltzmann
        Machines and the Centering Trick, Grégoire Montavon and Klaus-Robert Müller, 2012.

    Example:
        >>> import torch
        >>> machine = DeepBoltzmannMachine(4, (3, 2), weight_scale=1.0).eval()
        >>> states = BinaryUnits(4).states(torch.zeros(()))
        >>> bool(torch.isclose(machine.log_prob(states).logsumexp(0), torch.zeros(()), atol=1e-5))
        True
        >>> bool((machine.bound(states) <= machine.log_prob(states) + 1e-5).all())
        True
    """

    bias1: torch.Tensor
    hidden_base: torch.Tensor

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
        centred: bool = False,
        offset_rate: float = 0.01,
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
        self.centred, self.offset_rate = centred, as_offset_rate(offset_rate)
        for level in range(self.num_layers if centred else 0):
            units = self.units(level)
            mean = units.statistic(units.mean(torch.zeros(units.num_units)))
            self.register_buffer(f"offset{level}", mean.detach().clone())
        self.register_buffer("base_bias", torch.zeros(visible.num_units))
        self.register_buffer("hidden_base", torch.zeros(sum(hidden_dims)))
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

    # ------------------------------------------------ layers

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes ``(N_l,)`` of the layers."""
        return [(size,) for size in self.sizes]

    def units(self, level: int) -> Units:
        """The units of a layer; the visible one is the zeroth."""
        return cast(Units, self.hidden[level - 1]) if level else self.visible

    def bias(self, level: int, context: torch.Tensor | None) -> torch.Tensor:
        """The bias ``(..., N_l)`` of a layer, with what a context adds."""
        bias: torch.Tensor = getattr(self, f"bias{level}")
        if context is not None:
            bias = bias + self.offsets(context).split(self.sizes, -1)[level]
        return bias

    def from_below(self, level: int, below: torch.Tensor) -> torch.Tensor:
        """What values of layer ``level - 1`` add to the field of a layer, ``(..., N_l)``."""
        below = self.visible.statistic(below) if level == 1 else below
        added: torch.Tensor = below @ getattr(self, f"weight{level}")
        return added

    def from_above(self, level: int, above: torch.Tensor) -> torch.Tensor:
        """What values of layer ``level + 1`` add to the field of a layer, ``(..., N_l)``."""
        added: torch.Tensor = above @ getattr(self, f"weight{level + 1}").mT
        return added

    def own_score(self, level: int, x: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
        """The log-weight ``(...)`` of a layer's units for themselves, in a field."""
        if level:
            return (x * field).sum(-1)
        return (self.visible.statistic(x) * field).sum(-1) - self.visible.self_energy(x)

    def log_normalizer(self, level: int, field: torch.Tensor) -> torch.Tensor:
        """The logarithm ``(...)`` of the sum over a layer's units given the field on them."""
        return self.units(level).log_normalizer(field)

    def mean_of(self, level: int, field: torch.Tensor) -> torch.Tensor:
        """The means ``(..., N_l)`` of a layer given the field on it."""
        return self.units(level).mean(field)

    def draw(self, level: int, field: torch.Tensor) -> torch.Tensor:
        """A draw ``(..., N_l)`` of a layer given the field on it."""
        return self.units(level).sample(field)

    def log2_states(self, level: int) -> float:
        """The number of units of a hidden layer; for others, of their states the logarithm."""
        return math.log2(self.visible.num_states()) if level == 0 else self.sizes[level]

    def all_states(self, level: int) -> torch.Tensor:
        """All states ``(S, N_l)`` of a layer."""
        return self.units(level).states(self.base_bias)

    def entropy_of(self, level: int, mean: torch.Tensor) -> torch.Tensor:
        """The entropy ``(...)`` of independent units by their means."""
        entropy: torch.Tensor = torch.special.entr(torch.cat([mean, 1 - mean], -1)).sum(-1)
        return entropy

    def drawn_from(self, level: int, mean: torch.Tensor) -> torch.Tensor:
        """Units drawn independently by their means."""
        return torch.bernoulli(mean)

    # ------------------------------------------------ learning

    @torch.no_grad()
    def observe(self, state: torch.Tensor) -> None:
        """Let the offsets follow the means of the data, where units are centred."""
        for level, x in enumerate(self.all_units.split(state) if self.centred else []):
            assert x is not None
            x, offset = self.units(level).statistic(x), self.get_buffer(f"offset{level}")
            offset.lerp_(x.reshape(-1, len(offset)).mean(0), self.offset_rate)

    @property
    def learning(self) -> Self:
        """The machine with the gradient of centred units, if they are to be centred."""
        if not self.centred:
            return self
        names = [f"weight{level}" for level in range(1, self.num_layers)]
        names += [f"bias{level}" for level in range(self.num_layers)]
        values = [getattr(self, name) for name in names]
        values += [getattr(self, f"offset{level}") for level in range(self.num_layers)]
        apply: Any = CentredLayers.apply
        return self.with_parameters(**dict(zip(names, apply(*values), strict=True)))

    def negative_energy(self, draws: torch.Tensor) -> torch.Tensor:
        """Energies of the chains' odd layers: with the even ones summed out they vary less."""
        odd = self.odd_layers
        return odd.energy(odd.join(self.all_units.split(draws)))

    @property
    def odd_layers(self) -> SomeLayers:
        """The machine over its odd layers, with the even ones summed out."""
        return SomeLayers(self, range(1, self.num_layers, 2))

    def stages(
        self, negative_phase: Callable[[], NegativePhase] = ContrastiveDivergence
    ) -> Iterator[Stage]:
        """Pretraining layer by layer; see :func:`~pyro_deepgen.energy.pretrained_layers`."""
        return pretrained_layers(self, negative_phase)

    def stage(self, level: int, up: int, down: int, negative_phase: NegativePhase) -> TiedStage:
        """A machine of a layer and the one below it, as one stage of :meth:`stages` trains it."""
        weight, below, above = (
            getattr(self, name) for name in (f"weight{level}", f"bias{level - 1}", f"bias{level}")
        )
        units = Copies(self.visible if level == 1 else BinaryUnits(self.sizes[level - 1]), up)
        rbm = RBM(
            units,
            self.sizes[level] * down,
            negative_phase=negative_phase,
            temperature=self.temperature,
        ).to(weight.device, weight.dtype)
        tie(
            rbm,
            weight=(weight, (up, down)),
            visible_bias=(below, (up,)),
            hidden_bias=(above, (down,)),
        )
        return TiedStage(rbm, weight, below, above, first=level == 1, num_copies=up)

    # ------------------------------------------------ the normalising constant

    def base(self, level: int) -> torch.Tensor:
        """What acts on a layer ``(N_l,)`` at the beginning of the path of annealing."""
        return self.hidden_base.split(self.sizes[1:])[level - 1] if level else self.base_bias

    @torch.no_grad()
    def set_base(self, data: torch.Tensor) -> None:
        """Start annealing from the means of some data and of the hidden units given them.

        That shortens the way. The way from fair hidden units may lead through a jump of the units'
        state, where estimates forward and in reverse come out far apart. Of forward estimates from
        several bases that differ by more than their standard errors the largest counts: one is too
        low if its chains miss a part of the mass. Call it once the machine is trained.

        Args:
            data: ``(N, V)``.

        Raises:
            ValueError: for visible units for which there is no closed form, or without data.
        """
        data = data.reshape(-1, self.sizes[0])
        if not len(data):
            raise ValueError("expected data to take means of, got none")
        self.base_bias.copy_(self.visible.field_of(data.mean(0)))
        fields = [
            self.units(level).field_of(mean.mean(0))
            for level, mean in enumerate(self.infer(data), start=1)
        ]
        self.hidden_base.copy_(torch.cat(fields))

    def anneal(self, *, compile: bool | str = True, **settings: Any) -> AISResult:
        """Annealed importance sampling of the odd layers, with the even ones summed out."""
        odd = self.odd_layers
        if settings.get("reverse_from") is not None:
            settings["reverse_from"] = odd.join(self.all_units.split(settings["reverse_from"]))
        return annealed(odd, compile, settings)
