# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Training of deep Boltzmann machines by the predictions of their own inference."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import softplus

from .deep_boltzmann_machine import DeepBoltzmannMachine
from .mean_field import MeanField
from .units import BinaryUnits, GaussianUnits, SoftmaxUnits


class MultiPrediction(nn.Module):
    r"""The loss of a multi-prediction deep Boltzmann machine.

    Each datum is divided at random into what is known, :math:`S`, and what is to be predicted. Mean
    field with the known part clamped infers all other units, and the loss is that of its prediction

    .. math:: L = -\sum_{i \notin S} \log q(v_i | v_S)

    with the gradient through all steps of mean field. There is neither a normalising constant nor a
    chain, so that no pretraining is needed; but nothing holds down probabilities of states that
    inference never visits, so the machine answers questions (:meth:`DeepBoltzmannMachine.infer`,
    ``impute``) better than its chains sample.

    Args:
        machine: the machine to train; its visible units are binary, one-hot or Gaussian.
        mean_field: steps to go through; those of the machine by default.
        known: the probability of a unit (of a one-hot group) to be known.

    Raises:
        ValueError: for other units, or a probability that is not between 0 and 1.

    References:
        Multi-Prediction Deep Boltzmann Machines, Ian Goodfellow, Mehdi Mirza, Aaron Courville and
        Yoshua Bengio, 2013.

    Example:
        >>> import torch
        >>> loss = MultiPrediction(DeepBoltzmannMachine(4, (3, 2), weight_scale=0.0))
        >>> float(loss(torch.ones(500, 4))) <= 500 * 4 * 0.7  # coins: log 2 for each unknown unit
        True
    """

    def __init__(
        self,
        machine: DeepBoltzmannMachine,
        mean_field: MeanField | None = None,
        known: float = 0.5,
    ) -> None:
        super().__init__()
        if not isinstance(machine.visible, BinaryUnits | SoftmaxUnits | GaussianUnits):
            raise ValueError(
                "expected visible units to predict that are BinaryUnits, SoftmaxUnits or "
                f"GaussianUnits, got {type(machine.visible).__name__}"
            )
        if not 0 <= known < 1:
            raise ValueError(f"expected known to be a probability below 1, got {known}")
        self.machine, self.known = machine, known
        self.mean_field = machine.mean_field if mean_field is None else mean_field

    def forward(self, x: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
        """The loss ``()`` of a batch.

        Args:
            x: data ``(B, V)``.
            known: a mask that broadcasts to ``x``, of what is known; drawn by default.
        """
        known = self._drawn(x) if known is None else known.to(torch.bool).expand(x.shape)
        losses = torch.where(known, torch.zeros_like(x), -self.predict(x, known))
        return losses.sum()

    def predict(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """The terms ``(B, V)`` of the log-probabilities of the units, given those that are known.

        Args:
            x: data ``(B, V)``.
            known: a mask ``(B, V)``.
        """
        means = self.mean_field(self.machine, x, known)
        field = self.machine.field_in(0, [x, *means])
        units = self.machine.visible
        scores: torch.Tensor
        if isinstance(units, BinaryUnits):
            scores = x * field - softplus(field)
        elif isinstance(units, SoftmaxUnits):
            grouped = field.unflatten(-1, (units.num_groups, units.num_classes))
            scores = x * grouped.log_softmax(-1).flatten(-2)
        else:
            assert isinstance(units, GaussianUnits)
            scale = (0.5 * units.log_variance).exp() * units.temperature**0.5
            scores = torch.distributions.Normal(units.mean(field), scale).log_prob(x)
        return scores

    def _drawn(self, x: torch.Tensor) -> torch.Tensor:
        units = self.machine.visible
        if not isinstance(units, SoftmaxUnits):
            return torch.rand_like(x) < self.known
        # A group whose class is known but for one unit would be no question.
        groups = torch.rand(*x.shape[:-1], units.num_groups, device=x.device) < self.known
        return groups.repeat_interleave(units.num_classes, -1)
