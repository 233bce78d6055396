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
    r"""Parameters of two layers of unchanged values, whose gradient is that of centred units.

    .. math::
        \Delta W' = \Delta W - \Delta b \lambda^T - \mu \Delta c^T, \quad
        \Delta b' = \Delta b - \Delta W' \lambda, \quad
        \Delta c' = \Delta c - \Delta W'^T \mu

    References:
        Deep Boltzmann Machines and the Centering Trick, Grégoire Montavon and Klaus-Robert Müller,
        2012. How to Center Deep Boltzmann Machines, Jan Melchior, Asja Fischer and Laurenz
        Wiskott, 2016, arXiv 1311.1354.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        weight: torch.Tensor,
        visible_bias: torch.Tensor,
        hidden_bias: torch.Tensor,
        visible_offset: torch.Tensor,
        hidden_offset: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give weights ``(V, H)`` and biases as they are; offsets have the biases' shapes."""
        return (
            weight.view_as(weight),
            visible_bias.view_as(visible_bias),
            hidden_bias.view_as(hidden_bias),
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        """Keep the offsets."""
        # Copies, as the offsets move on in place before the gradient may be asked for.
        ctx.save_for_backward(inputs[3].clone(), inputs[4].clone())

    @staticmethod
    def backward(
        ctx: Any, weight: torch.Tensor, visible_bias: torch.Tensor, hidden_bias: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        """Transform the gradients of the weights and biases."""
        mu, lam = ctx.saved_tensors
        rows, columns = torch.stack([visible_bias, mu], 1), torch.stack([lam, hidden_bias])
        weight = weight.addmm(rows, columns, alpha=-1)
        return weight, visible_bias - weight @ lam, hidden_bias - mu @ weight, None, None


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
