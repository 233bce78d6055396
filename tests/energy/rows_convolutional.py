# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Rows for the convolutional machines, with energies summed term by term."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from pyro_deepgen.energy.convolutional_dbm import ConvolutionalDBM
from pyro_deepgen.energy.convolutional_layers import ConvolutionalLayer
from pyro_deepgen.energy.convolutional_rbm import ConvolutionalRBM
from pyro_deepgen.energy.mean_field import MeanField
from pyro_deepgen.energy.units import GaussianUnits
from tests.energy.energy_row import EnergyRow


def randomized(machine: Any, scale: float = 0.7) -> Any:
    """Give all parameters random values."""
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.normal_(0, scale)
    return machine


def small_rbm(**settings: Any) -> ConvolutionalRBM:
    """Two filters of 2 x 2 on 3 x 3 binary pixels, and one block each."""
    return randomized(ConvolutionalRBM((1, 3, 3), 2, 2, **settings))


def padded_rbm(**settings: Any) -> ConvolutionalRBM:
    """A filter of 2 x 2 on two channels of 3 x 1 pixels with zeros around: 4 x 2 units."""
    return randomized(ConvolutionalRBM((2, 3, 1), 1, 2, padding=1, temperature=1.5, **settings))


def gaussian_rbm(**settings: Any) -> ConvolutionalRBM:
    """A filter of 2 x 2 on three real pixels in a row, with zeros around: two blocks."""
    units = GaussianUnits(1)
    machine = ConvolutionalRBM((1, 1, 3), 1, 2, padding=1, visible=units, **settings)
    return randomized(machine, 0.4)


def small_dbm(**settings: Any) -> ConvolutionalDBM:
    """Two layers with pooling over 3 x 3 binary pixels, the second with zeros around its input."""
    layers = [ConvolutionalLayer(2, 2), ConvolutionalLayer(1, 2, padding=1)]
    return randomized(ConvolutionalDBM((1, 3, 3), layers, **settings))


def deep_dbm(**settings: Any) -> ConvolutionalDBM:
    """Three layers over 3 x 3 binary pixels."""
    layers = [ConvolutionalLayer(1, 2), ConvolutionalLayer(2, 1, 1), ConvolutionalLayer(1, 1, 1)]
    return randomized(ConvolutionalDBM((1, 3, 3), layers, temperature=0.8, **settings))


# ---------------------------------------------------------------- sums that are written out


def parameters_of(machine: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Weights ``[W_1, ...]`` and biases ``[c, b_1, ...]`` with what a context adds to them."""
    if isinstance(machine, ConvolutionalRBM):
        weights, biases = [machine.weight], [machine.visible_bias, machine.hidden_bias]
    else:
        weights = [getattr(machine, f"weight{i + 1}") for i in range(len(machine.layers))]
        biases = [getattr(machine, f"bias{i}") for i in range(len(machine.layers) + 1)]
    context = machine.__dict__["_context"]
    if context is not None:
        moved = context @ machine.offsets.weight.mT + machine.offsets.bias
        moved = moved.split([len(bias) for bias in biases], -1)
        biases = [bias + offset for bias, offset in zip(biases, moved, strict=True)]
    return weights, biases


def fields_above(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, padding: int
) -> torch.Tensor:
    """Bias and filtered image ``(S, K, H', W')`` of ``(S, C, H, W)``, weight by weight."""
    (height, width), side = x.shape[2:], weight.shape[-1]
    rows, columns = height + 2 * padding - side + 1, width + 2 * padding - side + 1
    fields = bias[:, None, None].expand(len(x), -1, rows, columns).clone()
    for i, j, r, s in itertools.product(range(rows), range(columns), range(side), range(side)):
        row, column = i + r - padding, j + s - padding
        if 0 <= row < height and 0 <= column < width:
            fields[:, :, i, j] += x[:, :, row, column] @ weight[:, :, r, s].mT
    return fields


def hidden_states(shape: tuple[int, int, int], side: int) -> Iterator[torch.Tensor]:
    """All detection units ``(K, H, W)`` of which each block has at most one on."""
    maps, height, width = shape
    places = list(itertools.product(range(side), range(side)))
    corners = itertools.product(range(maps), range(0, height, side), range(0, width, side))
    for choice in itertools.product([None, *places], repeat=len(list(corners))):
        state = torch.zeros(shape, dtype=torch.float64)
        corners = itertools.product(range(maps), range(0, height, side), range(0, width, side))
        for (k, i, j), place in zip(corners, choice, strict=True):
            if place is not None:
                state[k, i + place[0], j + place[1]] = 1
        yield state


def is_any_on(h: torch.Tensor, side: int) -> torch.Tensor:
    """The pooling units ``(1, K, H', W')`` over detection units ``(K, H, W)``."""
    maps, height, width = h.shape
    pooled = torch.zeros(1, maps, height // side, width // side, dtype=h.dtype)
    for k, i, j in itertools.product(range(maps), range(height), range(width)):
        if h[k, i, j] == 1:
            pooled[0, k, i // side, j // side] = 1
    return pooled


def reference(machine: Any, x: torch.Tensor) -> torch.Tensor:
    """``log sum_h exp(-E(x, h) / T)`` of images ``(S, C, H, W)``, state by state."""
    weights, biases = parameters_of(machine)
    seen, own = x, torch.zeros(len(x), dtype=x.dtype)
    if isinstance(machine.visible, GaussianUnits):
        variance = machine.visible.log_variance.exp()[:, None, None]
        seen, own = x / variance, (x.square() / (2 * variance)).sum((1, 2, 3))
    own = own - (seen * biases[0][:, None, None]).sum((1, 2, 3))
    # Energies of all hidden states so far, with the pooling units of the last layer.
    terms = [(own, seen)]
    for layer, weight, bias in zip(machine.layers, weights, biases[1:], strict=True):
        extended = []
        for energy, below in terms:
            field = fields_above(below, weight, bias, layer.padding)
            for h in hidden_states(tuple(field.shape[1:]), layer.pool_size):
                higher = energy - (h * field).sum((1, 2, 3))
                extended.append((higher, is_any_on(h, layer.pool_size)))
        terms = extended
    return (-torch.stack([energy for energy, _ in terms]) / machine.temperature).logsumexp(0)


def mean_field_bound(machine: Any, x: torch.Tensor) -> torch.Tensor:
    """The best bound of `reference` by independent blocks, of binary images ``(S, C, H, W)``.

    The mean of the negative energy is linear in each block's probabilities, so that its slope is
    the field that they follow.
    """
    weights, biases = parameters_of(machine)

    def score(means: list[torch.Tensor]) -> torch.Tensor:
        total = (x * biases[0][:, None, None]).sum((1, 2, 3))
        below = x
        for layer, weight, bias, mean in zip(
            machine.layers, weights, biases[1:], means, strict=True
        ):
            field = fields_above(below, weight, bias, layer.padding)
            total = total + (mean * field).sum((1, 2, 3))
            below = blocks(mean, layer.pool_size).sum((-1, -3))
        return total / machine.temperature

    means = [torch.zeros(len(x), *shape, dtype=x.dtype) for shape in machine.shapes[1:]]
    for _ in range(25):
        for level, layer in enumerate(machine.layers):
            means[level].requires_grad_()
            (field,) = torch.autograd.grad(score(means).sum(), means[level])
            weight = blocks(field, layer.pool_size).exp()
            probs = weight / (1 + weight.sum((-1, -3), keepdim=True))
            means[level] = probs.reshape(field.shape).detach()
    entropy = torch.zeros(())
    for mean, layer in zip(means, machine.layers, strict=True):
        off = 1 - blocks(mean, layer.pool_size).sum((-1, -3))
        entropy = entropy - (mean * mean.log()).sum((1, 2, 3)) - (off * off.log()).sum((1, 2, 3))
    return score(means) + entropy


def blocks(units: torch.Tensor, side: int) -> torch.Tensor:
    """Detection units ``(S, K, H, W)`` by blocks, ``(S, K, H / C, C, W / C, C)``."""
    height, width = units.shape[-2:]
    return units.reshape(*units.shape[:2], height // side, side, width // side, side)


def binary_images(machine: Any) -> torch.Tensor:
    """All binary images ``(S, C, H, W)``."""
    shape = tuple(machine.event_shape)
    states = list(itertools.product([0.0, 1.0], repeat=math.prod(shape)))
    return torch.tensor(states, dtype=torch.float64).reshape(-1, *shape)


GRID = torch.linspace(-9, 9, 55, dtype=torch.float64)


def real_images(machine: Any) -> torch.Tensor:
    """A grid ``(S, 1, 1, 3)`` of real images."""
    return torch.cartesian_prod(GRID, GRID, GRID).reshape(-1, 1, 1, 3)


CELL = 3 * math.log(float(GRID[1] - GRID[0]))

ROWS = [
    EnergyRow(
        "convolutional_rbm",
        ConvolutionalRBM,
        small_rbm,
        reference,
        binary_images,
        chain_steps=10,
    ),
    EnergyRow(
        "gaussian_convolutional_rbm",
        ConvolutionalRBM,
        gaussian_rbm,
        reference,
        real_images,
        CELL,
        chain_steps=10,
    ),
    EnergyRow(
        "convolutional_dbm",
        ConvolutionalDBM,
        partial(small_dbm, mean_field=MeanField(40)),
        reference,
        binary_images,
        chain_steps=10,
        bound=mean_field_bound,
    ),
    EnergyRow(
        "convolutional_dbm_clamped",
        ConvolutionalDBM,
        partial(small_dbm, clamped_steps=1),
        reference,
        binary_images,
        chain_steps=10,
    ),
]
