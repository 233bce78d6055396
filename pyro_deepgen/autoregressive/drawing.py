# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What gives the variables their values while they are made one by one."""

from __future__ import annotations

import torch

from .outputs import Output


class Drawing:
    r"""Values of variables from their parameters: drawn, or known beforehand.

    .. math:: \log w = \sum_{d \text{ known}} \log p(x_d; \theta_d)

    is kept as the log-weight of each point: what an importance sampler needs that draws the other
    variables.

    Args:
        output: the family of one variable.
        noise: random numbers of :meth:`Output.noise`, of shape ``(D, N, R)``, for the variables in
            the order in which they are made.
        values: what is known, of shape ``(D, N)``, with any number where it is not.
        known: booleans of shape ``(D, N)``; ``None`` where nothing is known.

    Example:
        >>> import torch
        >>> from pyro_deepgen.autoregressive import GaussianOutput
        >>> output, zeros = GaussianOutput(), torch.zeros(2, 3)
        >>> values, known = torch.full((2, 3), 5.0), torch.tensor([[True] * 3, [False] * 3])
        >>> drawing = Drawing(output, zeros.unsqueeze(-1), values, known)
        >>> [drawing(d, torch.zeros(3, 2)).tolist() for d in range(2)]
        [[5.0, 5.0, 5.0], [0.0, 0.0, 0.0]]
    """

    def __init__(
        self,
        output: Output,
        noise: torch.Tensor,
        values: torch.Tensor | None = None,
        known: torch.Tensor | None = None,
    ) -> None:
        self.output, self.noise, self.values, self.known = output, noise, values, known
        self.log_weight = noise.new_zeros(noise.shape[1])

    def __call__(self, place: int, parameters: torch.Tensor) -> torch.Tensor:
        """Give a variable's values ``(N,)`` from its place and its parameters ``(N, P)``."""
        drawn = self.output.draw(parameters, self.noise[place])
        if self.known is None or self.values is None:
            return drawn
        known = self.known[place]
        value = torch.where(known, self.values[place].to(drawn.dtype), drawn)
        scores = self.output.log_prob(parameters, value)
        self.log_weight = self.log_weight + torch.where(known, scores, 0.0)
        return value

    def points(self, index: torch.Tensor) -> Drawing:
        """The drawing of some of the points."""
        return self._select(1, index)

    def in_order(self, order: torch.Tensor) -> Drawing:
        """The drawing of variables that are made in an order, from one of them as numbered."""
        return self._select(0, order)

    def _select(self, dim: int, index: torch.Tensor) -> Drawing:
        values, known = (
            None if part is None else part.index_select(dim, index)
            for part in (self.values, self.known)
        )
        return Drawing(self.output, self.noise.index_select(dim, index), values, known)
