# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Noise-contrastive estimation: a density by telling data from noise."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn.functional import softplus

from .energy_objective import EnergyObjective


class NoiseContrastiveEstimation(EnergyObjective):
    r"""Train an energy, and its normalising constant, by telling data from noise.

    .. math::
        J = -\sum_n \Bigl[\log \sigma(G(x_n) - \log \nu)
            + \sum_{m=1}^{\nu} \log \sigma(\log \nu - G(y_{nm}))\Bigr], \quad
        G(u) = -E(u) - c - \log p_{noise}(u)

    :math:`c` is a parameter, ``log_partition``; where the energy can be that of the data, the
    minimum is there with :math:`c = \log Z`. The noise should be easy to score and close to the
    data; what it hardly ever reaches is hardly learned.

    Args:
        model: see :class:`EnergyObjective`.
        noise: normalised distribution over one datum, with ``sample`` and ``log_prob``. It stays as
            it is: it is not trained, and it is not part of the loss's parameters or state.
        num_noise: :math:`\nu`, draws of noise for each datum, anew at each call.
        log_partition: :math:`c` at the beginning.

    Raises:
        ValueError: for settings out of range; at a call, if noise and data do not go together;
            see also :class:`EnergyObjective`.

    References:
        Noise-contrastive estimation: A new estimation principle for unnormalized statistical
        models, Michael Gutmann and Aapo Hyvärinen, 2010.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> class Unnormalised:
        ...     def energy(self, x):
        ...         return 0.5 * x.square().sum(-1)
        >>> noise = dist.Normal(torch.zeros(1), 1.0).to_event(1)
        >>> loss = NoiseContrastiveEstimation(Unnormalised(), noise, log_partition=0.918939)
        >>> value = loss(torch.randn(10, 1)) / 10  # model and noise are the same: two coins each
        >>> bool(torch.isclose(value, 2 * torch.tensor(2.0).log(), atol=1e-5))
        True
    """

    noise: Any

    def __init__(
        self, model: Any, noise: Any, num_noise: int = 1, *, log_partition: float = 0.0
    ) -> None:
        super().__init__(model)
        for name in ("sample", "log_prob"):
            if not callable(getattr(noise, name, None)):
                raise ValueError(
                    f"expected a distribution as noise, got {type(noise).__name__} without {name}"
                )
        if num_noise < 1:
            raise ValueError(f"expected 1 draw of noise or more, got num_noise={num_noise}")
        self.__dict__["noise"] = noise  # past nn.Module, which would make it part of the loss
        self.num_noise = num_noise
        self.log_partition = nn.Parameter(torch.tensor(float(log_partition)))

    def log_ratio(self, x: torch.Tensor) -> torch.Tensor:
        """``G``, the log-ratio of model and noise, ``(...)`` of ``(..., *event)``.

        Raises:
            ValueError: if the noise does not give one number for each datum.
        """
        energy = self.energy(x)
        with torch.no_grad():
            noise = self.noise.log_prob(x)
        if noise.shape != energy.shape:
            raise ValueError(
                f"expected a log-density of the noise for each of {tuple(energy.shape)} data, got "
                f"shape {tuple(noise.shape)}; make the noise a distribution over one datum, with "
                "an empty batch shape, by to_event"
            )
        ratio: torch.Tensor = -energy - self.log_partition - noise
        return ratio

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The loss of a batch ``(B, *event)``, summed over it."""
        data = self.log_ratio(x)
        with torch.no_grad():
            draws = self.noise.sample((self.num_noise * data.numel(),))
        if draws.shape[1:] != x.shape[data.dim() :]:
            raise ValueError(
                f"expected noise of the shape of a datum, {tuple(x.shape[data.dim() :])}, got "
                f"{tuple(draws.shape[1:])}"
            )
        noise = self.log_ratio(draws.reshape(self.num_noise, *x.shape))
        log_count = math.log(self.num_noise)
        return softplus(log_count - data).sum() + softplus(noise - log_count).sum()
