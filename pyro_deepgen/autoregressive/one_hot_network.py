# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The masked network of variables that enter as one-hot vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear, one_hot

from ..nn import MaskedLinear, as_order, as_size, as_sizes, spread_degrees
from ..nn.degrees import as_degrees, masks_of, require_same_counts
from ..nn.slices import starts_of

Step = Callable[[int, torch.Tensor], torch.Tensor]


class OneHotMaskedMLP(nn.Module):
    r"""A :class:`~pyro_deepgen.nn.MaskedMLP` whose variables are classes.

    .. math:: \theta_i = n_i(e_{x_{<i}}, c), \qquad i = 1, \dots, D

    where :math:`e_k` is the one-hot vector of a class. :meth:`generate` computes every hidden unit
    once. It takes no gradients: a class has none.

    Args:
        num_variables: number of variables :math:`D`.
        hidden_dims: number of units of every hidden layer; may be empty (a linear map).
        num_parameters: number of parameters of every variable.
        num_classes: number of classes of every variable.
        order: indices of the variables from the first to the last; by default that of the indices.
        context_dim: number of dimensions of a context that all units see.
        degrees: degrees of the units of every hidden layer, as for ``MaskedMLP``.
        skip: whether the inputs also enter the last layer directly.
        activation: makes the nonlinearity that follows each hidden layer.

    Raises:
        ValueError: if a size, the order or the degrees do not fit.

    Example:
        >>> import torch
        >>> net = OneHotMaskedMLP(3, (16,), 4, 4, order=[2, 0, 1])
        >>> x, y = torch.tensor([0, 1, 2]), torch.tensor([3, 1, 2])  # variable 0 differs
        >>> (net(x) != net(y)).any(-1)
        tensor([False,  True, False])
    """

    def __init__(
        self,
        num_variables: int,
        hidden_dims: Sequence[int],
        num_parameters: int,
        num_classes: int,
        *,
        order: Sequence[int] | None = None,
        context_dim: int = 0,
        degrees: Sequence[Sequence[int]] | None = None,
        skip: bool = False,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        size = self.num_variables = as_size(num_variables, "num_variables")
        self.num_parameters = as_size(num_parameters, "num_parameters")
        self.num_classes = as_size(num_classes, "num_classes")
        self.context_dim = context_dim
        sizes = as_sizes(hidden_dims, "hidden_dims")
        if degrees is None:
            hidden = [spread_degrees(h, size, from_none=context_dim > 0) for h in sizes]
        else:
            hidden = [as_degrees(layer, size) for layer in degrees]
        self._num_hidden = len(hidden)
        for i, layer in enumerate(hidden):
            given = degrees is not None
            self.register_buffer(f"degrees_{i}", torch.tensor(layer), persistent=given)
        self.order: torch.Tensor
        self.register_buffer("order", torch.tensor(as_order(order, size)))
        ends = [each.tolist() for each in self.degrees()]
        contexts = [context_dim] + [0] * len(sizes)
        scales = [1.0] * len(sizes) + [0.1]  # as in MaskedMLP: the last layer starts small
        self.layers = nn.ModuleList(
            MaskedLinear(ends[i], ends[i + 1], context_dim=contexts[i], scale=scales[i])
            for i in range(len(sizes) + 1)
        )
        self.activations = nn.ModuleList(activation() for _ in sizes)
        self.skip: MaskedLinear | None = None
        if skip:
            self.skip = MaskedLinear(ends[0], ends[-1], context_dim=context_dim, scale=0.1)

    def degrees(self) -> list[torch.Tensor]:
        """The degrees of the inputs, of the units of each layer, and of the outputs."""
        places = self.order.argsort()
        inputs = (places + 1).repeat_interleave(self.num_classes)
        outputs = places.repeat_interleave(self.num_parameters)
        return [inputs, *self._hidden_degrees(), outputs]

    def _hidden_degrees(self) -> list[torch.Tensor]:
        return [self.get_buffer(f"degrees_{i}") for i in range(self._num_hidden)]

    def forward(
        self,
        x: torch.Tensor,
        context: torch.Tensor | None = None,
        degrees: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return all parameters, ``(*batch, D, P)``, from classes ``(*batch, D)``.

        Args:
            x: classes.
            context: contexts of shape ``(*batch, context_dim)``; batch shapes broadcast.
            degrees: as of :meth:`degrees`, to use the weights under other masks.
        """
        dtype = next(self.parameters()).dtype
        inputs = one_hot(x.long(), self.num_classes).flatten(-2).to(dtype)
        first, *rest = self.layers
        masks = masks_of(degrees, len(self.layers))
        output: torch.Tensor = first(inputs, context, masks[0])
        for activation, layer, mask in zip(self.activations, rest, masks[1:-1], strict=True):
            output = layer(activation(output), None, mask)
        if self.skip is not None:
            output = output + self.skip(inputs, context, masks[-1])
        return output.reshape((*output.shape[:-1], self.num_variables, self.num_parameters))

    @torch.no_grad()
    def generate(
        self, step: Step, batch_shape: Sequence[int] = (), context: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Make the variables one by one, each from its parameters; see ``MaskedMLP.generate``.

        Args:
            step: gives the classes of a variable, ``(N,)``, from its place in the order and its
                parameters ``(N, P)``.
            batch_shape: the batch shape.
            context: contexts of shape ``(*batch, context_dim)``.

        Returns:
            The classes, of shape ``(*batch_shape, D)``.
        """
        num, size = prod(batch_shape), self.num_variables
        layers = [layer for layer in self.layers if isinstance(layer, MaskedLinear)]
        by_degree = [degrees.argsort(stable=True) for degrees in self._hidden_degrees()]
        starts = [starts_of(degrees.tolist(), size) for degrees in self._hidden_degrees()]
        weights = [layer.weight * layer.mask for layer in layers]
        biases = [_start(layer, batch_shape, num, context) for layer in layers[:1]]
        inner: list[torch.Tensor] = [layer.bias for layer in layers]
        for i, rows in enumerate(by_degree):  # slices of units are contiguous then
            weights[i] = weights[i].index_select(0, rows)
            weights[i + 1] = weights[i + 1].index_select(1, rows)
            inner[i] = inner[i].index_select(0, rows)
        if by_degree:
            biases[0] = biases[0].index_select(1, by_degree[0])
        if self.skip is not None:
            weights.append(self.skip.weight * self.skip.mask)
            biases.append(_start(self.skip, batch_shape, num, context))
        # What the variables add to units directly, class by class, as they come to be known.
        entering = [self._by_variable(weights[0].mT, self.num_classes)]
        if self.skip is not None:
            entering.append(self._by_variable(weights[-1].mT, self.num_classes))
        last = self._by_variable(weights[len(layers) - 1], self.num_parameters)
        last_bias = self._by_variable(layers[-1].bias, self.num_parameters)
        hidden = [biases[0].new_empty((num, len(rows))) for rows in by_degree]
        values = []
        for place, outputs in enumerate(self._outputs().unbind()):
            for i, known in enumerate(hidden):  # the units that see the variables before this one
                units = slice(starts[i][place], starts[i][place + 1])
                if i == 0:
                    sums = biases[0][:, units]
                else:
                    below = starts[i - 1][place + 1]
                    shown = weights[i][units, :below]
                    sums = linear(hidden[i - 1][:, :below], shown, inner[i][units])
                known[:, units] = self.activations[i](sums)
            parts = [sums.index_select(1, outputs) for sums in biases[len(hidden[:1]) :]]
            if hidden:
                below = starts[-1][place + 1]
                seen = hidden[-1][:, :below]
                parts.append(linear(seen, last[place, :, :below], last_bias[place]))
            parameters = parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
            values.append(step(place, parameters))
            for sums, weight in zip(biases, entering, strict=True):
                sums += weight[place].index_select(0, values[-1])
        made = torch.stack(values, -1).index_select(-1, self.order.argsort())
        return made.reshape((*batch_shape, size))

    def _by_variable(self, flat: torch.Tensor, width: int) -> torch.Tensor:
        """Return what belongs to each variable, in their order: ``(D, width, ...)``."""
        parted = flat.reshape((self.num_variables, width, *flat.shape[1:]))
        return parted.index_select(0, self.order)

    def _outputs(self) -> torch.Tensor:
        """Return the numbers of the outputs of each variable, in their order: ``(D, P)``."""
        width = self.num_parameters
        return self.order[:, None] * width + torch.arange(width, device=self.order.device)

    def _load_from_state_dict(self, *args: Any) -> None:
        """Let the masks follow the order and the degrees that are loaded."""
        before = [each.tolist() for each in self.degrees()]
        super()._load_from_state_dict(*args)
        as_order(self.order.tolist(), self.num_variables)
        ends = [each.tolist() for each in self.degrees()]
        require_same_counts(before, ends)
        parts = [*zip(self.layers, ends[:-1], ends[1:], strict=True)]
        if self.skip is not None:
            parts.append((self.skip, ends[0], ends[-1]))
        for layer, inputs, outputs in parts:
            assert isinstance(layer, MaskedLinear)
            layer.set_degrees(inputs, outputs)


def _start(
    layer: MaskedLinear, batch_shape: Sequence[int], num: int, context: torch.Tensor | None
) -> torch.Tensor:
    """Return what units are before any variable comes in, ``(N, units)``, to be added to."""
    start: torch.Tensor = layer.bias
    if layer.context_weight is not None:
        assert context is not None
        start = linear(context, layer.context_weight, start)
    units = start.shape[-1]
    return start.expand((*batch_shape, units)).reshape(num, units).clone()
