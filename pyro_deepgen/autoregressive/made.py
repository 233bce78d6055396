# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The masked autoencoder for distribution estimation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..nn import as_size, as_sizes, spread_degrees
from .masked_distribution import MaskedDistribution, MaskedNetwork, masked_network
from .outputs import BinaryOutput, Output


class MADE(MaskedDistribution):
    r"""An autoencoder with masks, whose output for a variable sees the variables before it only.

    .. math::
        h^{l} = \mathrm{relu}\big(c^l + (W^l \odot M^l) h^{l-1}\big), \quad h^0 = x, \qquad
        \theta = b + (V \odot M^V) h^L

    One pass gives all conditionals. A draw is made by unit order, and costs about as much as one
    pass. With ``num_masks`` above 1, the same weights are used under masks of as many orders, drawn
    at random when the object is made and kept in its ``state_dict``: an ensemble, whose density is
    the mean over the masks. It trains one mask at a time (see :class:`AutoregressiveDistribution`).
    With ``shuffle_units`` the masks also differ in their connections: each but the first deals the
    degrees of a hidden layer (the numbers of variables that its units see) to its units at random.
    Every degree occurs as often as before, where the paper draws each unit's by itself.

    Args:
        num_variables: number of variables :math:`D`.
        hidden_dims: number of units of every hidden layer.
        output: the family of one variable: binary by default, :class:`CategoricalOutput`,
            :class:`GaussianOutput` or :class:`MixtureOutput`.
        num_masks: number of masks.
        shuffle_units: whether hidden units have other degrees under each mask.
        order: indices of the variables from the first to the last, of the first mask; by default
            that of the indices.
        context_dim: number of dimensions of a context that all hidden units see.
        skip: whether the inputs also enter the last layer directly. With fewer units than
            variables some numbers of variables are those of no unit, so that some variables miss
            the ones right before them; direct connections show them.
        activation: makes the nonlinearity.
        validate_args: whether ``log_prob`` checks its argument.

    Raises:
        ValueError: if a size is not a positive whole number, or the order is not a permutation.

    References:
        Germain, Gregor, Murray and Larochelle, MADE: masked autoencoder for distribution
        estimation, 2015, arXiv:1502.03509.

    Example:
        >>> import torch
        >>> made = MADE(5, (16, 16), num_masks=3).eval()
        >>> torch.allclose(made.log_prob(made.enumerate_support()).exp().sum(), torch.tensor(1.0))
        True
    """

    def __init__(
        self,
        num_variables: int,
        hidden_dims: Sequence[int],
        output: Output | None = None,
        *,
        num_masks: int = 1,
        shuffle_units: bool = False,
        order: Sequence[int] | None = None,
        context_dim: int = 0,
        skip: bool = False,
        activation: Callable[[], nn.Module] = nn.ReLU,
        validate_args: bool | None = None,
    ) -> None:
        size, output = as_size(num_variables, "num_variables"), output or BinaryOutput()
        further = range(as_size(num_masks, "num_masks") - 1)
        orders = [order, *(torch.randperm(size).tolist() for _ in further)]
        units = as_sizes(hidden_dims, "hidden_dims")
        degrees = [spread_degrees(num, size, from_none=context_dim > 0) for num in units]
        networks = [
            masked_network(
                size,
                units,
                output,
                order=each,
                context_dim=context_dim,
                degrees=_dealt(degrees, again=mask > 0) if shuffle_units else None,
                skip=skip,
                activation=activation,
            )
            for mask, each in enumerate(orders)
        ]
        for network in networks[1:]:
            _share_weights(networks[0], network)
        super().__init__(networks, output, validate_args=validate_args)

    def training_score(
        self, value: torch.Tensor, context: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The score under a mask taken at random, whose number Python need not know."""
        num = self.num_orders
        if num == 1:
            return self.score(value, context)
        networks = [self._network(mask) for mask in range(num)]
        taken = torch.randint(num, (1,), device=networks[0].order.device)
        of_masks = zip(*(network.degrees() for network in networks), strict=True)
        degrees = [torch.stack(each).index_select(0, taken).squeeze(0) for each in of_masks]
        x = value.to(next(self.parameters()).dtype)
        parameters = networks[0](x, context, degrees)
        return self.output.log_prob(parameters, value).sum(-1)


def _dealt(degrees: Sequence[Sequence[int]], *, again: bool) -> list[list[int]]:
    """Return the degrees of each layer, as they are or dealt again at random."""
    if not again:
        return [list(layer) for layer in degrees]
    return [[layer[i] for i in torch.randperm(len(layer)).tolist()] for layer in degrees]


def _share_weights(first: MaskedNetwork, network: MaskedNetwork) -> None:
    """Let a network have the parameters of another, under its own masks."""
    for name, parameter in first.named_parameters():
        path, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(path), leaf, parameter)
