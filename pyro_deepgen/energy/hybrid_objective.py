# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Learning to classify, and to model what is classified."""

from __future__ import annotations

import torch
from torch import nn

from .discriminative_rbm import DiscriminativeRBM


class HybridObjective(nn.Module):
    r"""A loss of data and classes: discriminative, generative, or both; classes may be missing.

    .. math::
        J = -\delta \sum_{n: y_n} \log p(y_n | x_n) - \alpha \sum_{n: y_n} \log p(x_n, y_n)
            - \beta \sum_{n: \text{no } y_n} \log p(x_n)

    The first sum is exact. The others learn through the machine's negative phase, as its
    ``log_prob`` does; where both weights are 0 no chain moves. Data without a class go into the
    negative phase with a class drawn given the data.

    Args:
        machine: the machine.
        discriminative: :math:`\delta`; 0 for the purely generative loss.
        generative: :math:`\alpha`; the paper's hybrid has a small one, such as 0.01.
        unlabelled: :math:`\beta`.

    Raises:
        ValueError: for a negative weight, or weights that are all 0; at a call, for classes that
            are no whole numbers or of another shape.

    References:
        Classification using Discriminative Restricted Boltzmann Machines, Hugo Larochelle and
        Yoshua Bengio, 2008.

    Example:
        >>> import torch
        >>> machine = DiscriminativeRBM(3, 4, num_classes=2, weight_scale=1.0).eval()
        >>> x, y = torch.ones(2, 3), torch.tensor([1, -1])  # the second has no class
        >>> loss = HybridObjective(machine, generative=1.0, unlabelled=1.0)(x, y)
        >>> both = machine.log_prob(machine.join(x, torch.tensor([0, 1])))  # the data are equal
        >>> expected = -both[1] - both.logsumexp(0) - machine.labels_given(x[0]).log_prob(y[0])
        >>> bool(torch.isclose(loss, expected, rtol=1e-4))
        True
    """

    def __init__(
        self,
        machine: DiscriminativeRBM,
        *,
        discriminative: float = 1.0,
        generative: float = 0.0,
        unlabelled: float = 0.0,
    ) -> None:
        super().__init__()
        weights = {
            "discriminative": discriminative,
            "generative": generative,
            "unlabelled": unlabelled,
        }
        if min(weights.values()) < 0 or max(weights.values()) == 0:
            raise ValueError(f"expected weights of 0 or more, and one above 0, got {weights}")
        self.machine = machine
        self.discriminative, self.generative = discriminative, generative
        self.unlabelled = unlabelled

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The loss, summed over the batch.

        Args:
            x: data ``(B, V)``.
            y: classes ``(B,)``, 0 to K - 1, or -1 where unknown.
        """
        labels = self.machine.labels_given(x)
        if y.is_floating_point() or y.dtype == torch.bool or y.shape != labels.batch_shape:
            raise ValueError(
                f"expected classes of whole numbers and shape {tuple(labels.batch_shape)}, -1 "
                f"where unknown, got {y.dtype} of shape {tuple(y.shape)}"
            )
        known = y >= 0
        y = torch.where(known, y, labels.sample())
        conditional = labels.log_prob(y)
        total = self.discriminative * torch.where(known, conditional, 0.0)
        if self.generative or self.unlabelled:
            joint = self.machine.log_prob(self.machine.join(x, y))
            # log p(x) = log p(x, y) - log p(y | x), whichever class was drawn.
            alone = self.unlabelled * (joint - conditional)
            total = total + torch.where(known, self.generative * joint, alone)
        return -total.sum()
