# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Deep belief nets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import Any, cast

import torch
from torch import nn
from typing_extensions import Self

from pyro_deepgen.distributions import DistributionModule
from pyro_deepgen.nn import evaluating

from .deep_belief_layer import DeepBeliefLayer, greedy_stages
from .inferred_layers import MAX_HIDDEN_STATES
from .log_partition import LogPartition, all_states
from .negative_phase import ContrastiveDivergence, NegativePhase
from .pretraining import Stage
from .rbm import RBM
from .units import BinaryUnits, Units


class DeepBeliefNet(DistributionModule):
    r"""A directed net of binary layers below a restricted Boltzmann machine.

    .. math:: p(v, h_1, \dots, h_L) = p(v | h_1)\, p(h_1 | h_2) \cdots p(h_{L-1}, h_L), \qquad
        q(h | v) = q(h_1 | v) \cdots q(h_{L-1} | h_{L-2})

    with :math:`p(h_{L-1}, h_L)` the machine at the top, whose last layer is summed out, and every
    conditional independent over units. A draw is of the visible units.

    Train it layer by layer with :meth:`stages`, then as a whole by ``log_prob`` in training mode
    (by ``SVI`` with an empty guide, for instance), which is the up-down algorithm, a contrastive
    form of wake-sleep: its value is :math:`\log p(v, h) - \log q(h | v)` for one draw of
    :math:`q`, less the last estimate of :math:`\log Z` (or 0); its gradient is, for the generative
    weights, that of :math:`\log p(v, h)`, with the top's negative phase, and for the recognition
    weights that of :math:`\log q` on a dream: a pass downwards from the states that the top's chain
    reaches from :math:`h_{L-1}`.

    In evaluation mode ``log_prob`` is exact where the hidden layers below the top have no more than
    2^12 states; else **a bound**, the logarithm of the mean of ``num_draws`` importance weights,
    which in expectation is at or below the log-density, and meets it for many draws. The top's
    ``log Z`` is exact or as :meth:`estimate_log_partition` has estimated it.

    Args:
        visible: number of binary visible units ``V``, or :class:`Units`.
        hidden_dims: numbers of hidden units ``H_1, ..., H_L``, at least two.
        weight_scale: standard deviation of the first weights.
        negative_phase: of the top; 10 steps of contrastive divergence by default.
        dream_steps: steps of the top's chain before a dream.
        num_draws: draws of ``q`` in evaluation mode.
        context_dim: size of a context that shifts the biases of the top, which the layers below
            follow; 0 for none.
        bias: a network from ``(..., context_dim)`` to offsets ``(..., H_{L-1} + H_L)``; linear by
            default.
        temperature: ``T``, of every layer's conditionals and of the top; their fields and energies
            are divided by it.
        sampling_steps: see :class:`EnergyDistribution`.
        validate_args: see :class:`EnergyDistribution`.

    Raises:
        ValueError: for sizes out of range.

    References:
        A fast learning algorithm for deep belief nets, Geoffrey Hinton, Simon Osindero and Yee-Whye
        Teh, 2006. Evaluating probabilities under high-dimensional latent variable models, Iain
        Murray and Ruslan Salakhutdinov, 2009.

    Example:
        >>> import torch
        >>> net = DeepBeliefNet(4, (3, 2), weight_scale=1.0).eval()
        >>> states = BinaryUnits(4).states(torch.zeros(()))
        >>> bool(torch.isclose(net.log_prob(states).logsumexp(0), torch.zeros(()), atol=1e-5))
        True
        >>> bool((net.bound(states, 500) < net.log_prob(states) + 1e-2).all())
        True
    """

    def __init__(
        self,
        visible: int | Units,
        hidden_dims: Sequence[int],
        *,
        weight_scale: float = 0.01,
        negative_phase: NegativePhase | None = None,
        dream_steps: int = 10,
        num_draws: int = 100,
        context_dim: int = 0,
        bias: nn.Module | None = None,
        temperature: float = 1.0,
        sampling_steps: int = 1000,
        validate_args: bool | None = None,
    ) -> None:
        visible = BinaryUnits(visible) if isinstance(visible, int) else visible
        super().__init__((visible.num_units,), validate_args=validate_args)
        if len(hidden_dims) < 2:
            raise ValueError(
                f"expected the sizes of two hidden layers or more, got {tuple(hidden_dims)}; with "
                "one a deep belief net is an RBM"
            )
        if dream_steps < 1 or num_draws < 1:
            raise ValueError(
                f"expected dream_steps and num_draws of 1 or more, got {dream_steps} and "
                f"{num_draws}"
            )
        self.sizes = visible.num_units, *hidden_dims
        self.dream_steps, self.num_draws = dream_steps, num_draws
        self.temperature = temperature
        units = [visible, *(BinaryUnits(size) for size in hidden_dims[:-2])]
        self.layers = nn.ModuleList(
            DeepBeliefLayer(below, size, weight_scale, temperature)
            for below, size in zip(units, hidden_dims[:-1], strict=True)
        )
        self.top = RBM(
            hidden_dims[-2],
            hidden_dims[-1],
            weight_scale=weight_scale,
            context_dim=context_dim,
            bias=bias,
            negative_phase=negative_phase or ContrastiveDivergence(10),
            temperature=temperature,
            sampling_steps=sampling_steps,
            validate_args=False,
        )

    @property
    def support(self) -> Any:
        """The support of the visible units."""
        return self._directed[0].units.support

    @property
    def _directed(self) -> list[DeepBeliefLayer]:
        return cast("list[DeepBeliefLayer]", list(self.layers))

    # ------------------------------------------------ upwards and downwards

    @torch.no_grad()
    def recognize(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Draw the hidden layers below the last given visible units ``(..., V)``.

        Returns:
            ``[(..., H_1), ..., (..., H_{L-1})]``.
        """
        hidden = []
        for layer in self._directed:
            x = layer.draw_above(x)
            hidden.append(x)
        return hidden

    @torch.no_grad()
    def generate(self, top: torch.Tensor) -> list[torch.Tensor]:
        """Draw the layers below the top machine, given its visible units ``(..., H_{L-1})``.

        Returns:
            ``[(..., V), (..., H_1), ..., (..., H_{L-1})]``.
        """
        drawn = [top]
        for layer in reversed(self._directed):
            drawn.insert(0, layer.draw_below(drawn[0]))
        return drawn

    def directed_log_prob(self, layers: Sequence[torch.Tensor]) -> torch.Tensor:
        r"""The sum of :math:`\log p(h_l | h_{l+1})` below the top, of all layers ``(..., N)``."""
        pairs = zip(self._directed, layers, layers[1:], strict=False)
        return _total(layer.log_below(x, h) for layer, x, h in pairs)

    def recognition_log_prob(self, layers: Sequence[torch.Tensor]) -> torch.Tensor:
        r""":math:`\log q(h | v)`, of all layers ``(..., N)``."""
        pairs = zip(self._directed, layers, layers[1:], strict=False)
        return _total(layer.log_above(x, h) for layer, x, h in pairs)

    # ------------------------------------------------ the distribution

    @property
    def log_prob_is_bound(self) -> bool:
        """Whether ``log_prob`` in evaluation mode is a bound."""
        return 2.0 ** sum(self.sizes[1:-1]) > MAX_HIDDEN_STATES

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """The log-density ``(..., *batch_shape)``; see the class for what it is in training.

        Args:
            value: ``(..., *batch_shape, V)``.

        Raises:
            UnknownPartitionError: in evaluation mode, if the top's ``log Z`` is not known.
        """
        if self._validate_args:
            self._validate_sample(value)
        value = self.broadcast(value)
        if not self.training:
            return self._exact(value) if not self.log_prob_is_bound else self._weighted(value)
        layers = [value, *self.recognize(value)]
        wake = self.directed_log_prob(layers) + self.top.log_prob(layers[-1])
        wake = wake - self.recognition_log_prob(layers).detach()
        if not torch.is_grad_enabled():
            return wake
        with torch.no_grad():
            dream = self.generate(self.top.transition(layers[-1], self.dream_steps))
        sleep = self.recognition_log_prob(dream)
        return wake + (sleep - sleep.detach())

    def _exact(self, x: torch.Tensor) -> torch.Tensor:
        states = all_states(sum(self.sizes[1:-1]), self.top.weight)
        hidden = states.reshape(-1, *[1] * (x.dim() - 1), states.shape[-1])
        layers = [x, *hidden.split(self.sizes[1:-1], -1)]
        return (self.directed_log_prob(layers) + self.top.log_prob(layers[-1])).logsumexp(0)

    def _log_weight(self, layers: Sequence[torch.Tensor]) -> torch.Tensor:
        r""":math:`\log p(v, h) - \log q(h | v) + \log Z` of all layers ``(..., N)``."""
        score = self.directed_log_prob(layers) - self.top.energy(layers[-1])
        return score - self.recognition_log_prob(layers)

    def _draw_weight(self, x: torch.Tensor) -> torch.Tensor:
        return self._log_weight([x, *self.recognize(x)])

    def _weighted(self, x: torch.Tensor) -> torch.Tensor:
        total = self._draw_weight(x)
        for _ in range(self.num_draws - 1):
            total = torch.logaddexp(total, self._draw_weight(x))
        return total - math.log(self.num_draws) - self.top.log_partition()

    @torch.no_grad()
    def bound(self, x: torch.Tensor, num_draws: int = 1) -> torch.Tensor:
        r"""An unbiased estimate ``(...)`` of the variational bound :math:`E_q[\log w] - \log Z`.

        Args:
            x: visible units ``(..., V)``.
            num_draws: draws of ``q`` that are averaged.

        Raises:
            UnknownPartitionError: if the top's ``log Z`` is not known.
        """
        with evaluating(self):
            log_z = self.top.log_partition()
            total = self._draw_weight(x)
            for _ in range(num_draws - 1):
                total = total + self._draw_weight(x)
            return total / num_draws - log_z

    def estimate_log_partition(self, *args: Any, **kwargs: Any) -> LogPartition:
        """Estimate ``log Z`` of the top; see :meth:`EnergyDistribution.estimate_log_partition`."""
        return self.top.estimate_log_partition(*args, **kwargs)

    @torch.no_grad()
    def sample_layers(self, sample_shape: Sequence[int] = torch.Size()) -> list[torch.Tensor]:
        """Draw all layers but the last, ``(*sample_shape, *batch_shape, N_l)``, visible first.

        Exact where the top's draws are; else from the ends of its chains.
        """
        shape = torch.Size(sample_shape)
        return self.generate(self.top.sample(shape if self.top.lead else shape + self.batch_shape))

    def condition(self, context: torch.Tensor) -> Self:
        """The net given a context ``(*batch_shape, context_dim)``, of its batch shape.

        Raises:
            ValueError: for a net without a context, or one of another size.
        """
        view = self.expand(self.batch_shape)
        view.__dict__["_modules"] = {**self._modules, "top": self.top.condition(context)}
        view.__dict__["_batch_shape"] = context.shape[:-1]
        return view

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """A view with another batch shape; that of a context is the top's too."""
        view = super().expand(batch_shape)
        if self.top.lead:
            view.__dict__["_modules"] = {**self._modules, "top": self.top.expand(batch_shape)}
        return view

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> torch.Tensor:
        """Draw visible units ``(*sample_shape, *batch_shape, V)``: the top, then a pass down."""
        return self.sample_layers(sample_shape)[0]

    @torch.no_grad()
    def impute(self, x: torch.Tensor, mask: torch.Tensor, num_steps: int = 1000) -> torch.Tensor:
        """Fill in what is not known, by Metropolis within Gibbs.

        One step proposes hidden layers by ``q``, accepts or rejects them for each datum, and draws
        the unknown units given the first of them. The limit is the net's own conditional.

        Args:
            x: values ``(..., V)``; what is not known may be anything, also NaN.
            mask: what is known, broadcastable to ``x``.
            num_steps: steps of the chain.

        Returns:
            Values of the shape of ``x``, equal to it where it is known.
        """
        mask = mask.to(torch.bool).expand(x.shape)
        start = self.generate(self.top.start(x[..., 0].numel()))[0].reshape(x.shape)
        layers = [torch.where(mask, x, start)]
        layers += self.recognize(layers[0])
        for _ in range(num_steps):
            proposed = [layers[0], *self.recognize(layers[0])]
            ratio = self._log_weight(proposed) - self._log_weight(layers)
            accept = (torch.rand_like(ratio).log() < ratio)[..., None]
            layers = [
                torch.where(accept, new, old) for new, old in zip(proposed, layers, strict=True)
            ]
            layers[0] = torch.where(mask, x, self._directed[0].draw_below(layers[1]))
        return layers[0]

    # ------------------------------------------------ training layer by layer

    def stages(
        self, negative_phase: Callable[[], NegativePhase] = ContrastiveDivergence
    ) -> Iterator[Stage]:
        r"""Greedy training: each layer as an RBM on draws of the layer below, the top last.

        Each stage gives the net what it has learned when the next is asked for, so run through all
        of them::

            for stage in net.stages():
                fit(stage.loss, data, transform=stage.transform, num_epochs=10)

        A machine starts as the one below turned upside down where its sizes allow it: then the net
        starts as the same distribution, and training the machine raises a bound of its likelihood.

        What a context adds to the top's biases is not trained here.

        Args:
            negative_phase: makes the negative phase of the stages below the top, which has its own.
        """
        return greedy_stages(self._directed, self.top, negative_phase)


def _total(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    return reduce(torch.add, parts)
