# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
r"""The gradient of a machine whose units are centred, without other parameters.

With offsets :math:`\mu, \lambda` and biases :math:`b + W\lambda, c + W^T\mu` the energy
:math:`-(v - \mu)^T b' - (h - \lambda)^T c' - (v - \mu)^T W (h - \lambda)` is the same density. A
step down its gradient is one down :math:`J J^T g` in the plain parameters, with :math:`g` their
plain gradient and :math:`J` the linear map from centred to plain parameters. The functions here
give parameters of unchanged values whose gradients are transformed so: first by a map whose
transpose is :math:`J`, then by :math:`J` itself, each of what differs from its own value by 0.
"""

from __future__ import annotations

import torch


def _zero(x: torch.Tensor) -> torch.Tensor:
    """Zeros that have the gradient of ``x``."""
    return x - x.detach()


def centred_layers(
    weight: torch.Tensor,
    visible_bias: torch.Tensor,
    hidden_bias: torch.Tensor,
    visible_offset: torch.Tensor,
    hidden_offset: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Parameters of two layers of unchanged values, whose gradient is that of centred units.

    .. math::
        \Delta W' = \Delta W - \Delta b \lambda^T - \mu \Delta c^T, \quad
        \Delta b' = \Delta b - \Delta W' \lambda, \quad
        \Delta c' = \Delta c - \Delta W'^T \mu

    Args:
        weight: ``W``, ``(V, H)``.
        visible_bias: ``b``, ``(V,)``.
        hidden_bias: ``c``, ``(H,)``.
        visible_offset: :math:`\mu`, ``(V,)``.
        hidden_offset: :math:`\lambda`, ``(H,)``.

    References:
        Deep Boltzmann Machines and the Centering Trick, Grégoire Montavon and Klaus-Robert Müller,
        2012. How to Center Deep Boltzmann Machines, Jan Melchior, Asja Fischer and Laurenz
        Wiskott, 2016, arXiv 1311.1354.
    """
    moved = torch.outer(_zero(visible_bias), hidden_offset)
    weight = weight - moved - torch.outer(visible_offset, _zero(hidden_bias))
    change = _zero(weight)
    return weight, visible_bias - change @ hidden_offset, hidden_bias - visible_offset @ change


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
