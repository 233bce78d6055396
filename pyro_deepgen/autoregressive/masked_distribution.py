# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What distributions on masked networks have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..nn import MaskedMLP
from .autoregressive_distribution import AutoregressiveDistribution
from .drawing import Drawing
from .one_hot_network import OneHotMaskedMLP
from .outputs import CategoricalOutput, Output

MaskedNetwork = MaskedMLP | OneHotMaskedMLP


def masked_network(
    num_variables: int,
    hidden_dims: Sequence[int],
    output: Output,
    *,
    num_parameters: int | None = None,
    order: Sequence[int] | None = None,
    context_dim: int = 0,
    degrees: Sequence[Sequence[int]] | None = None,
    skip: bool = False,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> MaskedNetwork:
    """Make the masked network for a family of outputs.

    Args:
        num_variables: number of variables.
        hidden_dims: number of units of every hidden layer.
        output: the family of one variable.
        num_parameters: number of parameters of a variable, by default those of the family.
        order: the order of the variables.
        context_dim: number of dimensions of a context.
        degrees: degrees of the hidden units.
        skip: whether the inputs enter the last layer directly.
        activation: makes the nonlinearity.

    Returns:
        A network in which classes enter as one-hot vectors, and other values as they are.
    """
    width = output.num_parameters if num_parameters is None else num_parameters
    if isinstance(output, CategoricalOutput):
        return OneHotMaskedMLP(
            num_variables,
            hidden_dims,
            width,
            output.num_classes,
            order=order,
            context_dim=context_dim,
            degrees=degrees,
            skip=skip,
            activation=activation,
        )
    return MaskedMLP(
        num_variables,
        hidden_dims,
        width,
        order=order,
        context_dim=context_dim,
        degrees=degrees,
        skip=skip,
        activation=activation,
    )


class MaskedDistribution(AutoregressiveDistribution):
    """A distribution whose conditionals one pass of a masked network gives.

    Args:
        networks: a network for each order.
        output: the family of one variable.
        validate_args: whether ``log_prob`` checks its argument.
    """

    def __init__(
        self,
        networks: Sequence[MaskedNetwork],
        output: Output,
        *,
        validate_args: bool | None = None,
    ) -> None:
        first = networks[0]
        super().__init__(
            (first.num_variables,),
            output,
            context_dim=first.context_dim,
            validate_args=validate_args,
        )
        self.networks = nn.ModuleList(networks)

    @property
    def orders(self) -> torch.Tensor:
        """The orders of the networks, of shape ``(M, D)``."""
        return torch.stack([self._network(m).order for m in range(len(self.networks))])

    @property
    def num_orders(self) -> int:
        """The number of networks :math:`M`."""
        return len(self.networks)

    def conditionals(
        self, x: torch.Tensor, context: torch.Tensor | None = None, component: int = 0
    ) -> torch.Tensor:
        """Parameters ``(*batch, D, P)`` from values ``(*batch, D)``, in one pass."""
        network = self._network(component)
        like = next(network.parameters())
        return self.complete(network(x.to(like.dtype), context))

    def generate(
        self,
        drawing: Drawing,
        batch_shape: torch.Size,
        context: torch.Tensor | None = None,
        component: int = 0,
    ) -> torch.Tensor:
        """Make the variables by unit order: every hidden unit is computed once."""
        network = self._network(component)
        variables = network.order.split(1)

        def step(place: int, parameters: torch.Tensor) -> torch.Tensor:
            return drawing(place, self.complete(parameters, variables[place]))

        return network.generate(step, batch_shape, context)

    def complete(
        self, parameters: torch.Tensor, variable: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Add to what the network gives what does not depend on the variables.

        Args:
            parameters: what the network gives, ``(*batch, D, P')``, or ``(N, P')`` of one variable.
            variable: the number of that variable, of shape ``(1,)``.
        """
        return parameters

    def _network(self, component: int) -> MaskedNetwork:
        network = self.networks[component]
        assert isinstance(network, MaskedMLP | OneHotMaskedMLP)
        return network
