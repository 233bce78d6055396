# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The neural autoregressive distribution estimator."""

from __future__ import annotations

from collections.abc import Sequence

from .outputs import BinaryOutput, Output
from .shared_weights import SharedWeights


class NADE(SharedWeights):
    r"""A neural autoregressive distribution estimator.

    .. math::
        h_d &= \sigma(c + W_{\cdot, <d}\, x_{<d}) \\
        p(x_d = 1 \mid x_{<d}) &= \sigma(b_d + V_d h_d)

    All conditionals share the weights :math:`W`, so that the log-density and a draw take
    :math:`O(DH)`.

    Args:
        num_variables: number of variables :math:`D`.
        num_hidden: number of hidden units :math:`H`.
        output: the family of one variable, binary by default; with :class:`CategoricalOutput` the
            values enter as one-hot vectors.
        order: indices of the variables from the first to the last; by default that of the indices.
        context_dim: number of dimensions of a context, which shifts :math:`c` and :math:`b`.
        validate_args: whether ``log_prob`` checks its argument.

    Raises:
        ValueError: if a size is not a positive whole number, or the order is not a permutation.

    References:
        Larochelle and Murray, The neural autoregressive distribution estimator, AISTATS, 2011.

        Uria, Cote, Gregor, Murray and Larochelle, Neural autoregressive distribution estimation,
        2016, arXiv:1605.02226.

    Example:
        >>> import torch
        >>> nade = NADE(5, 8, context_dim=2)
        >>> given = nade.condition(torch.tensor([1.0, -1.0]))
        >>> torch.allclose(given.log_prob(given.enumerate_support()).exp().sum(), torch.tensor(1.0))
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
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(
            num_variables,
            num_hidden,
            output or BinaryOutput(),
            order=order,
            context_dim=context_dim,
            validate_args=validate_args,
        )
