# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Pseudo-likelihood: each unit given all others."""

from __future__ import annotations

import torch
from torch.nn.functional import softplus

from .single_flips import SingleFlips


class PseudoLikelihood(SingleFlips):
    r"""Minus the log-pseudo-likelihood of binary data.

    .. math::
        J = -\sum_n \sum_i \log p(x_i | x_{-i}), \quad
        p(x_i | x_{-i}) = \sigma(E(x^{(i)}) - E(x))

    with :math:`x^{(i)}` the datum with unit :math:`i` flipped. It has its minimum at the density of
    the data where the energy can be that of it. The cost is that of the energy of as many states
    as a datum has units, or ``num_sites``.

    Args:
        model: see :class:`SingleFlips`.
        num_sites: see :class:`SingleFlips`.

    Raises:
        ValueError: see :class:`SingleFlips`.

    References:
        Statistical Analysis of Non-Lattice Data, Julian Besag, 1975. Consistency of
        Pseudolikelihood Estimation of Fully Visible Boltzmann Machines, Aapo Hyvärinen, 2006.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> coins = dist.Bernoulli(torch.tensor([0.2, 0.7])).to_event(1)
        >>> x = coins.sample((5,))  # for independent units it is the likelihood
        >>> bool(torch.isclose(PseudoLikelihood(coins)(x), -coins.log_prob(x).sum()))
        True
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The loss of a batch ``(B, *event)``, summed over it."""
        differences, share = self.differences(x)
        return share * softplus(-differences).sum()
