# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Completing values that are known in part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from .drawing import Drawing

if TYPE_CHECKING:
    from .autoregressive_distribution import AutoregressiveDistribution


@dataclass(frozen=True)
class Imputation:
    """Completed values, and how far their law is from the exact conditional distribution.

    Args:
        value: the values, of shape ``(*batch, *event_shape)``, as given where they are known.
        method: ``"exact"`` (all known variables come before all missing ones), ``"importance"``
            (sampling-importance-resampling, exact as the particles grow many) or ``"any order"``
            (exact for the model's own order of this mask, which has the known variables first).
        exact: whether the draw of each datum is exact, booleans of shape ``(*batch)``.
        effective_sample_size: of the particles of each datum, of shape ``(*batch)``; where it is
            near 1, take more particles, or a model of any order.

    Example:
        >>> import torch
        >>> from pyro_deepgen.autoregressive import NADE
        >>> nade, x = NADE(4, 8), torch.tensor([1.0, 0.0, 0.0, 0.0])
        >>> nade.impute(x, torch.tensor([True, True, False, False])).method
        'exact'
        >>> nade.impute(x, torch.tensor([False, False, True, True])).method
        'importance'
    """

    value: torch.Tensor
    method: Literal["exact", "importance", "any order"]
    exact: torch.Tensor
    effective_sample_size: torch.Tensor


def as_known(
    model: AutoregressiveDistribution, x: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Size]:
    """Check a partly known value, and put zeros where it is missing.

    Args:
        model: the distribution.
        x: values of shape ``(*batch, *event_shape)``.
        mask: booleans that broadcast to the shape of ``x``.

    Returns:
        The values and the mask, of shape ``(D, N)``, and the batch shape, of ``N`` points.

    Raises:
        ValueError: if a shape or the mask's type does not fit, or what is known is no value that
            the distribution has.

    Example:
        >>> import torch
        >>> from pyro_deepgen.autoregressive import NADE
        >>> x, known = torch.tensor([1.0, torch.nan]), torch.tensor([True, False])
        >>> as_known(NADE(2, 3), x, known)[0].tolist()
        [[1.0], [0.0]]
    """
    event_shape = model.event_shape
    if x.shape[x.dim() - len(event_shape) :] != event_shape:
        raise ValueError(
            f"expected values whose last dimensions are {tuple(event_shape)}, got shape "
            f"{tuple(x.shape)}"
        )
    if mask.dtype != torch.bool:
        raise ValueError(
            f"expected a boolean mask, true where x is known, got {mask.dtype}; make one with "
            "mask.bool()"
        )
    try:
        known = mask.expand(x.shape)
    except RuntimeError as error:
        raise ValueError(
            f"expected a mask that broadcasts to the shape of x, {tuple(x.shape)}, got "
            f"{tuple(mask.shape)}"
        ) from error
    values = torch.where(known, x, torch.zeros_like(x))
    if model._validate_args and not bool(model.support.check(values).all()):
        raise ValueError(
            f"expected known values in the support of {type(model).__name__}, {model.support}, got "
            f"values from {float(values.min()):g} to {float(values.max()):g}"
        )
    batch = torch.broadcast_shapes(x.shape[: x.dim() - len(event_shape)], model.batch_shape)
    values, known = (
        part.expand(batch + event_shape).reshape(batch.numel(), event_shape.numel()).mT
        for part in (values, known)
    )
    return values, known, batch


def impute_by_weights(
    model: AutoregressiveDistribution, x: torch.Tensor, mask: torch.Tensor, num_particles: int
) -> Imputation:
    """Complete values in the model's order; see :meth:`AutoregressiveDistribution.impute`.

    Args:
        model: the distribution.
        x: values of shape ``(*batch, *event_shape)``.
        mask: booleans that broadcast to the shape of ``x``, true where it is known.
        num_particles: number of particles.

    Raises:
        ValueError: if a shape or the mask's type does not fit.
    """
    values, known, batch = as_known(model, x, mask)
    size, num = known.shape
    # A known variable after a missing one is a place where a difference of 0 and 1 is positive.
    in_order = known.index_select(0, model.order)
    exact = (~(in_order[1:] & ~in_order[:-1]).any(0)).reshape(batch)
    if model.num_orders > 1:  # particles choose an order each, for which weights make up
        exact = exact.new_zeros(batch)
    particles = 1 if bool(exact.all()) else num_particles
    noise = model.output.noise((size, particles * num), next(model.parameters()))
    drawing = Drawing(model.output, noise, values.repeat(1, particles), known.repeat(1, particles))
    drawn = model.run(drawing, torch.Size((particles,)) + batch)
    weights = drawing.log_weight.reshape(particles, num).softmax(0)
    chosen = torch.multinomial(weights.mT, 1).squeeze(-1)
    points = torch.arange(num, device=chosen.device)
    result = drawn.reshape(particles, num, size)[chosen, points].reshape(batch + model.event_shape)
    return Imputation(
        torch.where(mask, x, result.to(x.dtype)),
        "exact" if particles == 1 and bool(exact.all()) else "importance",
        exact,
        (1 / weights.square().sum(0)).reshape(batch),
    )
