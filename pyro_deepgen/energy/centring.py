# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
r"""The gradient of a machine whose units are centred, without other parameters.

With offsets :math:`\mu, \lambda` and biases :math:`b + W\lambda, c + W^T\mu` the energy
:math:`-(v - \mu)^T b' - (h - \lambda)^T c' - (v - \mu)^T W (h - \lambda)` is the same density. A
step down its gradient is one down :math:`J J^T g` in the plain parameters, with :math:`g` their
plain gradient and :math:`J` the linear map from centred to plain parameters. What is here
gives parameters of unchanged values whose gradients are transformed so, by a backward pass of its
own, or by maps that differ from the identity by 0: one whose transpose is :math:`J`, then
:math:`J` itself.
"""

from __future__ import annotations

from typing import Any

import torch


def _zero(x: torch.Tensor) -> torch.Tensor:
    """Zeros that have the gradient of ``x``."""
    return x - x.detach()


class CentredLayers(torch.autograd.Function):
    r"""Parameters of layers of unchanged values, whose gradient is that of centred units.

    .. math::
        \Delta W'_l = \Delta W_l - \Delta b_{l-1} \mu_l^T - \mu_{l-1} \Delta b_l^T, \quad
        \Delta b'_l = \Delta b_l - \Delta W'_{l+1} \mu_{l+1} - \Delta W_l'^T \mu_{l-1}

    References:
        Deep Boltzmann Machines and the Centering Trick, Grégoire Montavon and Klaus-Robert Müller,
        2012. How to Center Deep Boltzmann Machines, Jan Melchior, Asja Fischer and Laurenz
        Wiskott, 2016, arXiv 1311.1354.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Give weights and biases as they are.

        Args:
            values: weights ``(N_{l-1}, N_l)`` from below to above, biases ``(N_l,)`` of all layers,
                and offsets of the biases' shapes.
        """
        layers = (len(values) + 1) // 3
        return tuple(value.view_as(value) for value in values[:-layers])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        """Keep the offsets."""
        # Copies, as the offsets move on in place before the gradient may be asked for.
        ctx.save_for_backward(*(x.clone() for x in inputs[-((len(inputs) + 1) // 3) :]))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Transform the gradients of the weights and biases."""
        offsets = ctx.saved_tensors
        top = len(offsets) - 1
        biases, weights = gradients[top:], []
        for level in range(top):
            rows = torch.stack([biases[level], offsets[level]], 1)
            columns = torch.stack([offsets[level + 1], biases[level + 1]])
            weights.append(gradients[level].addmm(rows, columns, alpha=-1))
        moved = list(biases)
        for level, weight in enumerate(weights):
            moved[level] = moved[level] - weight @ offsets[level + 1]
            moved[level + 1] = moved[level + 1] - offsets[level] @ weight
        return *weights, *moved, *[None] * len(offsets)


def as_offset_rate(rate: float) -> float:
    """A share of the way from an offset to the mean of a batch.

    Raises:
        ValueError: if it is not in [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"expected an offset_rate from 0 to 1, got {rate}")
    return rate


def centred_units(
    weight: torch.Tensor, bias: torch.Tensor, offset: torch.Tensor, pairs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for units of one layer, of which each pair is counted once.

    Args:
        weight: ``(N, N)``, 0 but for ``pairs``.
        bias: ``(N,)``.
        offset: ``(N,)``.
        pairs: ``(N, N)``, 1 for each pair that is coupled, in the upper triangle.
    """
    outer = torch.outer(_zero(bias), offset)
    weight = weight - (outer + outer.mT) * pairs
    change = _zero(weight) * pairs
    return weight, bias - (change + change.mT) @ offset
