# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The neural network of Bengio and Bengio, with a group of hidden units for each variable."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from ..nn import as_size
from .masked_distribution import MaskedDistribution, masked_network
from .outputs import BinaryOutput, Output


class NeuralAutoregressiveNet(MaskedDistribution):
    r"""Groups of hidden units, one for each variable but the last.

    .. math::
        h_j &= \tanh\Big(c_j + \sum_{k \leq j} W_{jk} x_k\Big), \qquad j = 1, \dots, D - 1 \\
        \theta_d &= b_d + \sum_{j < d} V_{dj} h_j + \sum_{j < d} R_{dj} x_j

    The group :math:`h_j` sees the first :math:`j` variables, and serves all variables after them.
    The direct connections :math:`R` are optional. With ``num_hidden`` units a group there are
    :math:`O(D^2)` connections for each unit of a group.

    Args:
        num_variables: number of variables :math:`D`.
        num_hidden: number of units of each group.
        output: the family of one variable, binary by default.
        order: indices of the variables from the first to the last; by default that of the indices.
        context_dim: number of dimensions of a context that all hidden units see; there is then one
            more group, which sees the context alone.
        skip: whether there are direct connections.
        activation: makes the nonlinearity.
        validate_args: whether ``log_prob`` checks its argument.

    Raises:
        ValueError: if a size is not a positive whole number, or the order is not a permutation.

    References:
        Bengio and Bengio, Modeling high-dimensional discrete data with multi-layer neural
        networks, NIPS, 2000.

    Example:
        >>> import torch
        >>> net = NeuralAutoregressiveNet(5, 3)
        >>> torch.allclose(net.log_prob(net.enumerate_support()).exp().sum(), torch.tensor(1.0))
        True
    """

    def __init__(
        self,
        num_variables: int,
        num_hidden: int,
        output: Output | None = None,
        *,
        order: Sequence[int] | None = None,
        context_dim: int = 0,
        skip: bool = True,
        activation: Callable[[], nn.Module] = nn.Tanh,
        validate_args: bool | None = None,
    ) -> None:
        size, units = as_size(num_variables, "num_variables"), as_size(num_hidden, "num_hidden")
        output = output or BinaryOutput()
        groups = range(0 if context_dim or size == 1 else 1, size)
        degrees = [group for group in groups for _ in range(units)]
        network = masked_network(
            size,
            (len(degrees),),
            output,
            order=order,
            context_dim=context_dim,
            degrees=[degrees],
            skip=skip,
            activation=activation,
        )
        super().__init__([network], output, validate_args=validate_args)
