# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The base class of distributions that are a product of conditionals."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.distributions import constraints

from ..nn import as_size
from .context_distribution import ContextDistribution
from .drawing import Drawing
from .enumeration import enumerate_events
from .imputation import Imputation, impute_by_weights
from .outputs import Output

Generate = Callable[[Drawing, torch.Size, torch.Tensor | None, int], torch.Tensor]


class AutoregressiveDistribution(ContextDistribution):
    r"""A product of conditionals in an order of the variables, or the mean of several products.

    .. math:: p(x \mid c) = \frac1M \sum_{m=1}^M \prod_{d=1}^D
        p(x_{o^m_d} \mid x_{o^m_1}, \dots, x_{o^m_{d-1}}, c)

    Almost always :math:`M = 1`. ``log_prob`` is exact, by one pass of the network for each order,
    and a draw costs about as much as one pass, since nothing is computed twice. The variables are
    the numbers of an event, whatever its shape, numbered as in its flattened form.

    With :math:`M > 1`, in training mode and with gradients enabled, ``log_prob`` is that of an
    order taken at random, whose mean over orders is a lower bound of the exact one. Evaluation
    mode, or ``torch.no_grad``, gives the exact value.

    A subclass writes :attr:`orders` and :meth:`conditionals`, and overrides :meth:`generate`, which
    by itself runs the whole network for every variable.

    Args:
        event_shape: shape of one draw.
        output: the family of one variable.
        context_dim: number of dimensions of a context :math:`c`, 0 for none; with one,
            :meth:`condition` gives the distribution to use.
        validate_args: whether ``log_prob`` checks its argument; ``None`` follows Pyro's setting.

    Raises:
        ValueError: if a size is not a positive whole number (``context_dim`` may be 0).

    Example:
        >>> import torch
        >>> from pyro_deepgen.autoregressive import MADE
        >>> made = MADE(4, (8,))
        >>> isinstance(made, AutoregressiveDistribution)
        True
        >>> torch.allclose(made.log_prob(made.enumerate_support()).exp().sum(), torch.tensor(1.0))
        True
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        output: Output,
        *,
        context_dim: int = 0,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(event_shape, context_dim=context_dim, validate_args=validate_args)
        if not isinstance(output, Output):
            raise ValueError(
                "expected as output an instance of an Output, such as BinaryOutput() or "
                f"CategoricalOutput(3), got {output!r}"
            )
        self.output = output

    # ------------------------------------------------ what a subclass writes

    @property
    @abstractmethod
    def orders(self) -> torch.Tensor:
        """The orders :math:`o^m`, whole numbers of shape ``(M, D)``."""

    @abstractmethod
    def conditionals(
        self, x: torch.Tensor, context: torch.Tensor | None = None, component: int = 0
    ) -> torch.Tensor:
        """Parameters of every variable, each a function of the variables before it.

        Args:
            x: values of shape ``(*batch, *event_shape)``.
            context: contexts of shape ``(*batch, context_dim)``; batch shapes broadcast.
            component: the number :math:`m` of the order.

        Returns:
            Parameters of shape ``(*batch, *event_shape, P)``.
        """

    def generate(
        self,
        drawing: Drawing,
        batch_shape: torch.Size,
        context: torch.Tensor | None = None,
        component: int = 0,
    ) -> torch.Tensor:
        """Make the variables one by one, by a pass of the whole network for each.

        Args:
            drawing: gives the values ``(N,)`` of a variable from its place in the order, counted
                from 0, and its parameters ``(N, P)``, where ``N`` is the number of points.
            batch_shape: the batch shape.
            context: contexts whose batch shape broadcasts to ``batch_shape``.
            component: the number of the order.

        Returns:
            Values of shape ``(*batch_shape, D)``, as they are numbered.
        """
        size, num = self.event_shape.numel(), batch_shape.numel()
        numbers = torch.arange(size, device=drawing.noise.device)
        x = drawing.noise.new_zeros((num, size))
        value = x[:, 0]
        for place, variable in enumerate(self.orders[component].tolist()):
            events = x.reshape(batch_shape + self.event_shape)
            parameters = self.conditionals(events, context, component)
            parameters = parameters.reshape((num, size, parameters.shape[-1]))[:, variable]
            value = drawing(place, parameters)
            x = torch.where(numbers == variable, value.to(x.dtype).unsqueeze(-1), x)
        return x.to(value.dtype).reshape((*batch_shape, size))

    # ------------------------------------------------ the distribution

    @property
    def order(self) -> torch.Tensor:
        """The order, whole numbers of shape ``(D,)``; of several, the first."""
        return self.orders[0]

    @property
    def num_orders(self) -> int:
        """The number of orders :math:`M`."""
        return len(self.orders)

    @constraints.dependent_property
    def support(self) -> Any:
        """The values of every variable."""
        return constraints.independent(self.output.support, len(self.event_shape))

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether draws carry gradients: with Gaussian outputs."""
        return self.output.has_rsample and self.num_orders == 1

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        """Whether the variables are discrete."""
        return self.output.num_values is not None

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Log-density of ``(*sample, *batch, *event)`` values, of shape ``(*sample, *batch)``."""
        context = self._given_context()
        value = self.broadcast(value)
        if self._validate_args:
            self._validate_sample(value)
        if self.training and torch.is_grad_enabled():
            return self.training_score(value, context)
        scores = [self.score(value, context, m) for m in range(self.num_orders)]
        if len(scores) == 1:
            return scores[0]
        return torch.stack(scores).logsumexp(0) - math.log(len(scores))

    def score(
        self, value: torch.Tensor, context: torch.Tensor | None = None, component: int = 0
    ) -> torch.Tensor:
        """Log-density under one order, from values ``(*batch, *event)`` to ``(*batch)``."""
        scores = self.output.log_prob(self.conditionals(value, context, component), value)
        return scores.flatten(scores.dim() - len(self.event_shape)).sum(-1)

    def training_score(
        self, value: torch.Tensor, context: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What ``log_prob`` is in training mode: the score under an order taken at random."""
        num = self.num_orders
        component = int(torch.randint(num, ())) if num > 1 else 0
        return self.score(value, context, component)

    def sample(self, sample_shape: Any = torch.Size()) -> torch.Tensor:  # noqa: B008
        """Draw ``(*sample_shape, *batch_shape, *event_shape)``, without gradients."""
        with torch.no_grad():
            return self._draw(sample_shape, self.generate)

    def rsample(self, sample_shape: Any = torch.Size()) -> torch.Tensor:  # noqa: B008
        """Draw with gradients, which Gaussian outputs have.

        Raises:
            ValueError: if draws have no gradients.
        """
        if not self.has_rsample:
            raise ValueError(
                f"expected a GaussianOutput and one order for draws with gradients, got "
                f"{self.output!r} and {self.num_orders} orders: use sample()"
            )
        return self._draw(sample_shape, self.generate)

    @torch.no_grad()
    def naive_sample(self, sample_shape: Any = torch.Size()) -> torch.Tensor:  # noqa: B008
        """Draw as :meth:`sample` does, from the same random numbers, in the slowest way.

        The whole network runs once for each variable. It is what the quick ways are tested
        against.
        """

        def slowest(*given: Any) -> torch.Tensor:
            return AutoregressiveDistribution.generate(self, *given)

        return self._draw(sample_shape, slowest)

    def enumerate_support(self, expand: bool = True) -> torch.Tensor:
        """All values, of shape ``(S, *batch_shape, *event_shape)`` (ones where not expanded).

        Raises:
            ValueError: if the variables are real, or there are more than :math:`2^{20}` values.
        """
        events = enumerate_events(self.output, self.event_shape, like=next(self.parameters()))
        events = events.reshape((-1, *[1] * len(self.batch_shape), *self.event_shape))
        shape = (-1, *self.batch_shape, *self.event_shape)
        return events.expand(shape) if expand else events

    @torch.no_grad()
    def impute(self, x: torch.Tensor, mask: torch.Tensor, num_particles: int = 100) -> Imputation:
        r"""Draw what is missing of values, given what is known of them.

        Where all known variables come before all missing ones in the order, the draw is exact.
        Elsewhere it is one of ``num_particles`` that are drawn in the order with the known
        variables put in, taken with a probability proportional to
        :math:`w = \prod_{d \text{ known}} p(x_d \mid x_{<d})`: exact as their number grows.

        Args:
            x: values of shape ``(*batch, *event_shape)``; what is missing may be anything.
            mask: booleans that broadcast to the shape of ``x``, true where it is known.
            num_particles: number of particles where the draw is not exact.

        Returns:
            The completed values, and how they were drawn.

        Raises:
            ValueError: if a shape or the mask's type does not fit, or ``num_particles`` is below 1.
        """
        return impute_by_weights(self, x, mask, as_size(num_particles, "num_particles"))

    # ------------------------------------------------ inside

    def run(
        self, drawing: Drawing, batch_shape: torch.Size, generate: Generate | None = None
    ) -> torch.Tensor:
        """Make all variables, each point in an order taken at random: ``(*batch_shape, D)``."""
        context, generate = self._given_context(), generate or self.generate
        num, orders = batch_shape.numel(), self.orders
        if self.num_orders == 1:
            part = drawing.in_order(orders[0])
            made = generate(part, batch_shape, context, 0)
            drawing.log_weight = part.log_weight
            return made
        if context is not None:
            context = context.expand((*batch_shape, self.context_dim))
            context = context.reshape(num, self.context_dim)
        taken = torch.randint(self.num_orders, (num,), device=drawing.noise.device)
        values, weights, rows = [], [], []
        for component in range(self.num_orders):
            index = (taken == component).nonzero().squeeze(-1)
            part = drawing.points(index).in_order(orders[component])
            given = None if context is None else context.index_select(0, index)
            values.append(generate(part, index.shape, given, component))
            weights.append(part.log_weight)
            rows.append(index)
        back = torch.cat(rows).argsort()
        drawing.log_weight = torch.cat(weights).index_select(0, back)
        made = torch.cat(values).index_select(0, back)
        return made.reshape(batch_shape + made.shape[1:])

    def _draw(self, sample_shape: Sequence[int], generate: Generate) -> torch.Tensor:
        batch = torch.Size(sample_shape) + self.batch_shape
        size = (self.event_shape.numel(), batch.numel())
        noise = self.output.noise(size, next(self.parameters()))
        values = self.run(Drawing(self.output, noise), batch, generate)
        return values.reshape(batch + self.event_shape)
