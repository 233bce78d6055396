# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Sums of products of tensors of logarithms, as a backend of ``opt_einsum``.

Pyro's own computes them as logarithms of sums of exponentials of terms that are shifted one by one,
which ``torch.func.vmap`` does not take and which underflows where the terms peak at different
places. Here the terms are added first.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import torch


def einsum(equation: str, *operands: torch.Tensor) -> torch.Tensor:
    r"""The logarithm of a sum of products, :math:`\log \sum_k \prod_i \exp a_i`.

    Args:
        equation: as in :func:`torch.einsum`, without ellipses and without a symbol that occurs
            twice in one operand.
        operands: logarithms; ``-inf`` is that of 0, from which no gradient flows.

    Example:
        >>> import torch
        >>> a, b = torch.rand(3, 4), torch.rand(4, 5)
        >>> torch.allclose(einsum("ij,jk->ik", a.log(), b.log()), (a @ b).log())
        True
    """
    inputs, output = equation.split("->")
    terms = inputs.split(",")
    summed = sorted(set("".join(terms)) - set(output))
    dims = [*output, *summed]
    total = sum(_aligned(a, term, dims) for a, term in zip(operands, terms, strict=True))
    assert isinstance(total, torch.Tensor)
    if not summed:
        return total.clone() if total is operands[0] else total
    return _log_sum_exp(total, tuple(range(-len(summed), 0)))


def _aligned(operand: torch.Tensor, symbols: str, dims: list[str]) -> torch.Tensor:
    """Give an operand all the dimensions, in their order, of size 1 where it has none."""
    order = sorted(range(len(symbols)), key=lambda i: dims.index(symbols[i]))
    if order != list(range(len(symbols))):
        operand = operand.permute(order)
    for place, dim in enumerate(dims):
        if dim not in symbols:
            operand = operand.unsqueeze(place)
    return operand


def _log_sum_exp(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """The log of the sum of exponentials, with the gradient 0 where the sum is 0."""
    limits = torch.finfo(x.dtype)
    shift = x.detach().amax(dims, keepdim=True).clamp(limits.min, limits.max)
    mass = (x - shift).exp().sum(dims)
    possible = mass > 0
    log_mass = torch.where(possible, mass, 1.0).log()
    return torch.where(possible, log_mass + shift.squeeze(dims), -torch.inf)


def transpose(a: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    """Permute the dimensions; asked for by ``opt_einsum``."""
    return a.permute(axes)


def tensordot(x: torch.Tensor, y: torch.Tensor, axes: Any = 2) -> torch.Tensor:
    """Contract given dimensions of two tensors; asked for by ``opt_einsum``."""
    if isinstance(axes, int):
        axes = range(x.dim() - axes, x.dim()), range(axes)
    fresh = (chr(ord("a") + i) for i in count())
    left, right = [next(fresh) for _ in range(x.dim())], [next(fresh) for _ in range(y.dim())]
    pairs = list(zip(*axes, strict=True))
    for i, j in pairs:
        right[j] = left[i]
    shared = {left[i] for i, _ in pairs}
    output = "".join(s for s in (*left, *right) if s not in shared)
    return einsum(f"{''.join(left)},{''.join(right)}->{output}", x, y)
