# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What the objectives for energies share: the energy of a batch, and its gradient by the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributions import constraints


class EnergyObjective(nn.Module):
    """Base class of losses that train an unnormalised density without its constant.

    A loss is called as ``loss(x)`` and is the sum over the data of a batch, as
    :func:`pyro_deepgen.fit.fit` wants it. It needs no sampler of the model and leaves the state of
    one alone.

    Args:
        model: has ``energy(x)``, from ``(..., *event)`` to ``(...)``, or else ``log_prob(x)``,
            which need not be normalised. Its parameters are the loss's if it is a module.

    Raises:
        ValueError: if it has neither; at a call, if it does not give one number for each datum.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> class SquaredScore(EnergyObjective):
        ...     def forward(self, x):
        ...         score, _ = self.score(x)
        ...         return score.detach().square().sum()
        >>> x = torch.tensor([[1.0, 2.0]])  # the score of a standard normal is -x
        >>> float(SquaredScore(dist.Normal(torch.zeros(2), 1.0).to_event(1))(x))
        5.0
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        if not any(callable(getattr(model, name, None)) for name in ("energy", "log_prob")):
            raise ValueError(
                f"expected an object with energy(x) or log_prob(x), got {type(model).__name__}"
            )
        self.model = model

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        """The energy ``(...)`` of ``(..., *event)``, or minus the log-density."""
        known = hasattr(self.model, "energy")
        energy: torch.Tensor = self.model.energy(x) if known else -self.model.log_prob(x)
        if energy.dim() == 0 or energy.shape != x.shape[: energy.dim()]:
            raise ValueError(
                f"expected one energy for each datum of a batch {tuple(x.shape)}, (B,) of "
                f"(B, *event), got {tuple(energy.shape)}; sum over the event's dimensions only"
            )
        return energy

    def score(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradient of the log-density by the data, differentiable; gradients must be enabled.

        Args:
            x: a batch ``(B, *event)``.

        Returns:
            The score ``(B, D)``, and what it was differentiated by, ``(B, *event)``.
        """
        x = x.detach().requires_grad_()
        energy = self.energy(x)
        (gradient,) = torch.autograd.grad(-energy.sum(), x, create_graph=True)
        # A constant in the energy has no part in the score: its gradient is to be 0, not missing,
        # which means to `fit` that the loss does not reach a parameter.
        score = gradient.reshape(*energy.shape, -1) + 0.0 * energy[..., None]
        return score, x


def jacobian_product(score: torch.Tensor, x: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """``vector @ (d score / d x)``, differentiable, ``(B, D)``.

    Args:
        score: ``(B, D)``, each row of which depends on the same row of ``x`` only.
        x: ``(B, *event)``.
        vector: ``(B, D)``.
    """
    if not score.requires_grad:  # an energy that is linear in x, without parameters
        return torch.zeros_like(score)
    (product,) = torch.autograd.grad(
        (score * vector).sum(), x, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return product.reshape(score.shape)


def require_support(model: Any, wanted: constraints.Constraint, instead: str) -> None:
    """Refuse a model that says that its values are of another kind than an objective is for.

    Args:
        model: what is to be trained; one without ``support`` passes.
        wanted: the support of one element.
        instead: what to do instead.

    Raises:
        ValueError: if its support is another.
    """
    support: Any = getattr(model, "support", wanted)
    if constraints.is_dependent(support):
        return
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if not isinstance(support, type(wanted)):
        raise ValueError(
            f"expected a model whose support is {wanted}, got {type(model).__name__} with "
            f"{support}; {instead}"
        )
