# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Networks that predict what is missing from any part that is known."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from typing_extensions import Self

from ..nn import as_order, as_size
from .autoregressive_distribution import AutoregressiveDistribution
from .drawing import Drawing
from .imputation import Imputation, as_known
from .outputs import Output

MAX_PLACES = 64  # conditionals that one pass computes, each with a mask of its own


class OrderAgnostic(AutoregressiveDistribution):
    r"""A network with an input for what is known, which gives a model for every order.

    .. math:: \theta = n(x \odot m, m), \qquad
        p_o(x) = \prod_{d=1}^D p(x_{o_d}; \theta_{o_d}(x_{o_{<d}}))

    The models of two orders are in general different. In evaluation mode, or under
    ``torch.no_grad``, ``log_prob`` is exact for :attr:`order`, or for the ensemble of
    :meth:`ensemble`. In training mode with gradients enabled it is the estimate of the mean
    :math:`\mathbb E_o \log p_o(x)` over all orders that the paper trains by: with a number of known
    variables :math:`k` from 0 to :math:`D - 1` and a set of them taken at random for each datum,

    .. math:: \frac{D}{D - k} \sum_{i \text{ not known}} \log p(x_i; \theta_i)

    It has no bias, and takes one pass. So it is for a model that learns, not for a guide.

    A subclass writes :meth:`predict`.

    Args:
        num_variables: number of variables :math:`D`.
        output: the family of one variable.
        order: indices of the variables from the first to the last; by default that of the indices.
        context_dim: number of dimensions of a context.
        validate_args: whether ``log_prob`` checks its argument.
    """

    def __init__(
        self,
        num_variables: int,
        output: Output,
        *,
        order: Sequence[int] | None = None,
        context_dim: int = 0,
        validate_args: bool | None = None,
    ) -> None:
        size = as_size(num_variables, "num_variables")
        super().__init__((size,), output, context_dim=context_dim, validate_args=validate_args)
        self.order_indices: torch.Tensor
        self.register_buffer("order_indices", torch.tensor([as_order(order, size)]))

    @abstractmethod
    def predict(
        self, x: torch.Tensor, known: torch.Tensor, context: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Parameters of all variables, those of missing ones given what is known.

        Args:
            x: values of shape ``(*batch, D)``; those not known must not matter.
            known: booleans of shape ``(*batch, D)``.
            context: contexts of shape ``(*batch, context_dim)``; batch shapes broadcast.

        Returns:
            Parameters of shape ``(*batch, D, P)``.
        """

    @property
    def orders(self) -> torch.Tensor:
        """The orders, of shape ``(M, D)``."""
        return self.order_indices

    def ensemble(self, num_orders: int) -> Self:
        """Return the mean of the densities of orders taken at random; parameters are shared.

        Args:
            num_orders: number of orders.

        Raises:
            ValueError: if it is not a positive whole number.
        """
        num, size = as_size(num_orders, "num_orders"), self.event_shape.numel()
        like = self.order_indices
        new = self.expand(self.batch_shape)
        orders = torch.rand(num, size, device=like.device).argsort(-1)
        new.__dict__["_buffers"] = {**self._buffers, "order_indices": orders}
        return new

    def training_score(
        self, value: torch.Tensor, context: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The estimate of the mean of log-densities over all orders."""
        size = value.shape[-1]
        uniform = torch.rand(value.shape, device=value.device)
        num_known = torch.randint(size, (*value.shape[:-1], 1), device=value.device)
        known = uniform.argsort(-1) < num_known
        scores = self.output.log_prob(self.predict(value, known, context), value)
        return (scores * ~known).sum(-1) * (size / (size - num_known.squeeze(-1)))

    def conditionals(
        self, x: torch.Tensor, context: torch.Tensor | None = None, component: int = 0
    ) -> torch.Tensor:
        """Parameters ``(*batch, D, P)``, from a prediction with a mask for each variable."""
        order = self.order_indices[component]
        places = order.argsort()
        context = None if context is None else context.unsqueeze(-2)
        pieces = []
        for variables in torch.arange(len(order), device=x.device).split(MAX_PLACES):
            known = places < places[variables].unsqueeze(-1)
            predicted = self.predict(x.unsqueeze(-2), known, context)
            index = variables.reshape(-1, 1, 1).expand(
                (*predicted.shape[:-2], 1, predicted.shape[-1])
            )
            pieces.append(predicted.gather(-2, index).squeeze(-2))
        return torch.cat(pieces, -2)

    def generate(
        self,
        drawing: Drawing,
        batch_shape: torch.Size,
        context: torch.Tensor | None = None,
        component: int = 0,
    ) -> torch.Tensor:
        """Make the variables one by one, with one prediction for each."""
        num, size = batch_shape.numel(), self.event_shape.numel()
        if context is not None:
            context = context.expand((*batch_shape, self.context_dim)).reshape(
                num, self.context_dim
            )
        x = value = drawing.noise.new_zeros((num, size))
        order = self.order_indices[component]
        places = order.argsort()
        for place in range(size):
            predicted = self.predict(x, places < place, context)
            value = drawing(place, predicted.index_select(1, order[place : place + 1]).squeeze(1))
            x = torch.where(places == place, value.to(x.dtype).unsqueeze(-1), x)
        return x.to(value.dtype).reshape((*batch_shape, size))

    @torch.no_grad()
    def impute(self, x: torch.Tensor, mask: torch.Tensor, num_particles: int = 1) -> Imputation:
        """Draw what is missing of values, given what is known of them.

        Each datum has an order of its own, with the known variables first and the missing ones
        after them at random. In the model of that order the draw is exact.

        Args:
            x: values of shape ``(*batch, *event_shape)``; what is missing may be anything.
            mask: booleans that broadcast to the shape of ``x``, true where it is known.
            num_particles: is of no account here, where no weights are needed.

        Returns:
            The completed values, and how they were drawn.

        Raises:
            ValueError: if a shape or the mask's type does not fit.
        """
        by_variable = as_known(self, x, mask)
        values, known, batch = by_variable[0].mT, by_variable[1].mT, by_variable[2]
        num, size = known.shape
        context = self._given_context()
        if context is not None:
            context = context.expand((*batch, self.context_dim)).reshape(num, self.context_dim)
        noise = self.output.noise((num, size), next(self.parameters()))
        state = values.to(noise.dtype)
        missing = size - known.sum(-1, keepdim=True)
        # The missing variables of each datum, in an order at random, come first here.
        turns = (torch.rand_like(noise[..., 0]) + known).argsort(-1)
        for turn in range(int(missing.max())):
            variable = turns[:, turn : turn + 1]
            active = turn < missing
            predicted = self.predict(state, known, context)
            index = variable.unsqueeze(-1)
            parameters = predicted.gather(1, index.expand(-1, 1, predicted.shape[-1]))
            drawn = self.output.draw(
                parameters, noise.gather(1, index.expand(-1, 1, noise.shape[-1]))
            )
            old = state.gather(1, variable)
            state = state.scatter(1, variable, torch.where(active, drawn.to(state.dtype), old))
            known = known.scatter(1, variable, known.gather(1, variable) | active)
        result = state.reshape(batch + self.event_shape).to(x.dtype)
        ones = noise.new_ones(batch)
        return Imputation(torch.where(mask, x, result), "any order", ones.bool(), ones)
