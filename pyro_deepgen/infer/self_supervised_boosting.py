# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Boosting of an energy: features that tell data from draws of what was learned so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import softplus


class BoostingRound(NamedTuple):
    """What a round of boosting came to.

    Args:
        coefficient: ``a`` of the feature ``()``.
        gain: estimate of the rise of the mean log-likelihood ``()``, never negative.
        effective_size: effective number of the negative examples behind it ``()``; where it is a
            small part of them, the estimate is poor, and a smaller ``max_coefficient`` is better.

    Example:
        >>> import torch
        >>> BoostingRound(torch.tensor(1.0), torch.tensor(0.5), torch.tensor(80.0)).gain.item()
        0.5
    """

    coefficient: torch.Tensor
    gain: torch.Tensor
    effective_size: torch.Tensor


class SelfSupervisedBoosting(nn.Module):
    r"""An energy that grows by a feature a round, each trained to tell data from the model's draws.

    .. math:: E_t(x) = E_0(x) + \sum_{s=1}^{t} a_s f_s(x)

    A round has three parts. :meth:`begin_round` takes negative examples, draws of the present
    energy (by any kernel of ``mcmc``, as this module has ``energy``, ``event_shape`` and
    ``support``). Then the module is a loss of the data, for :func:`pyro_deepgen.fit.fit` or any
    optimiser, which trains the feature to be the log-odds of a negative example,

    .. math:: J = \sum_n \bigl[-\log \sigma(-f(x_n)) - \log \sigma(f(y_n))\bigr],

    with one negative example :math:`y_n` for each datum. Last, :meth:`end_round` finds the
    coefficient that maximises the likelihood, with the negative examples weighted:

    .. math:: a = \arg\max_a \Bigl[-a \, \overline{f(x)} - \log \overline{\exp(-a f(y))}\Bigr],

    which is concave. A feature that could be any function would be the exact log-odds after one
    round, with :math:`a = 1` and the density of the data.

    Args:
        start: has ``energy(x)`` or ``log_prob(x)``, and ``event_shape``; it is frozen.
        features: modules from ``(..., *event)`` to ``(...)``, one for each round to come. Only that
            of the present round has parameters that require gradients.
        max_coefficient: coefficients stay between minus this and this.

    Raises:
        ValueError: if there is no feature, or ``start`` has no density; if rounds are begun and
            ended out of order.

    References:
        Self Supervised Boosting, Max Welling, Richard Zemel and Geoffrey Hinton, 2002.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> class OneUnit(torch.nn.Linear):
        ...     def forward(self, x):
        ...         return super().forward(x).squeeze(-1)
        >>> coin = dist.Bernoulli(torch.tensor([0.5])).to_event(1)
        >>> boosting = SelfSupervisedBoosting(coin, [OneUnit(1, 1)])
        >>> boosting.begin_round(torch.tensor([[0.0], [1.0]]))
        >>> data = torch.tensor([[0.0], [1.0], [1.0], [1.0]])
        >>> optimizer = torch.optim.LBFGS(boosting.features[0].parameters(), max_iter=50)
        >>> _ = boosting.eval()  # all negative examples in every step, not a random choice
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = boosting(data)
        ...     loss.backward()
        ...     return loss
        >>> _ = optimizer.step(closure)
        >>> found = boosting.end_round(data)
        >>> odds = boosting.energy(torch.tensor([[0.0]])) - boosting.energy(torch.tensor([[1.0]]))
        >>> bool((odds.exp() - 3).abs() < 1e-2)
        True
    """

    coefficients: torch.Tensor
    negatives: torch.Tensor | None

    def __init__(
        self, start: Any, features: Sequence[nn.Module], *, max_coefficient: float = 10.0
    ) -> None:
        super().__init__()
        if not features:
            raise ValueError("expected 1 feature or more, one for each round")
        if not any(callable(getattr(start, name, None)) for name in ("energy", "log_prob")):
            raise ValueError(
                f"expected a start with energy(x) or log_prob(x), got {type(start).__name__}"
            )
        if not max_coefficient > 0:
            raise ValueError(f"expected a positive max_coefficient, got {max_coefficient}")
        self.start, self.features = start, nn.ModuleList(features)
        self.event_shape = torch.Size(start.event_shape)
        if hasattr(start, "support"):
            self.support = start.support
        self.max_coefficient = max_coefficient
        self.requires_grad_(False)
        self.register_buffer("coefficients", torch.zeros(len(features)))
        self.register_buffer("negatives", None, persistent=False)
        self.num_rounds = 0

    def get_extra_state(self) -> int:
        """The number of rounds that have ended, for ``state_dict``."""
        return self.num_rounds

    def set_extra_state(self, state: int) -> None:
        """Take the number of rounds from a ``state_dict``."""
        self.num_rounds = state

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        """The energy after the rounds that have ended, ``(...)`` of ``(..., *event)``."""
        known = hasattr(self.start, "energy")
        energy: torch.Tensor = self.start.energy(x) if known else -self.start.log_prob(x)
        for t in range(self.num_rounds):
            energy = energy + self.coefficients[t] * self.features[t](x)
        return energy

    def begin_round(self, negatives: torch.Tensor) -> None:
        """Take negative examples, and let the next feature learn.

        Args:
            negatives: draws ``(M, *event)`` of the present energy.

        Raises:
            ValueError: for another shape, or if no feature is left.
        """
        if self.num_rounds == len(self.features):
            raise ValueError(
                f"all {len(self.features)} features have had their round: make a new module, with "
                "this one as its start"
            )
        if negatives.shape[1:] != self.event_shape or negatives.dim() == 0 or not len(negatives):
            raise ValueError(
                f"expected negative examples (M, {', '.join(map(str, self.event_shape))}), got "
                f"shape {tuple(negatives.shape)}"
            )
        self.negatives = negatives.detach()
        self.features[self.num_rounds].requires_grad_(True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The classification loss of a batch ``(B, *event)`` and as many negative examples.

        In evaluation mode all negative examples take part, with that weight together.
        """
        feature, negatives = self._present()
        count = len(x)
        if self.training:
            # A random choice for each batch, which has the same mean.
            chosen = torch.randint(len(negatives), (count,), device=negatives.device)
            negatives = negatives[chosen]
        odds_data, odds_negative = feature(x), feature(negatives)
        if odds_data.shape != x.shape[:1]:
            raise ValueError(
                f"expected a feature from {tuple(x.shape)} to ({count},), got "
                f"{tuple(odds_data.shape)}"
            )
        total: torch.Tensor = softplus(odds_data).sum() + count * softplus(-odds_negative).mean()
        return total

    @torch.no_grad()
    def end_round(self, x: torch.Tensor) -> BoostingRound:
        """Find the coefficient of the present feature, and add it to the energy.

        Args:
            x: data ``(N, *event)``, all of them or a large part.
        """
        feature, negatives = self._present()
        feature.requires_grad_(False)
        of_data, of_negatives = feature(x).mean(), feature(negatives)
        low = torch.full_like(of_data, -self.max_coefficient)
        high = -low
        # The slope falls with the coefficient: halve the interval to the last bit of a double.
        for _ in range(60):
            middle = (low + high) / 2
            weights = (-middle * of_negatives).softmax(0)
            rises = (weights * of_negatives).sum() > of_data
            low, high = torch.where(rises, middle, low), torch.where(rises, high, middle)
        best = (low + high) / 2
        scores = -best * of_negatives
        gain = -best * of_data - (scores.logsumexp(0) - scores.new_tensor(len(scores)).log())
        self.coefficients[self.num_rounds] = best
        self.num_rounds += 1
        self.negatives = None
        return BoostingRound(best, gain, 1 / scores.softmax(0).square().sum())

    def _present(self) -> tuple[nn.Module, torch.Tensor]:
        if self.negatives is None:
            raise ValueError("expected begin_round(negatives) first: no round is in progress")
        return self.features[self.num_rounds], self.negatives
