# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Layers of a convolutional machine as machines of their own, to pretrain it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .convolutional_rbm import ConvolutionalRBM
from .copied_units import Copies
from .negative_phase import NegativePhase
from .pretraining import TiedStage, tie
from .units import BinaryUnits

if TYPE_CHECKING:
    from .convolutional_dbm import ConvolutionalDBM


def convolutional_stage(
    machine: ConvolutionalDBM, level: int, up: int, down: int, negative_phase: NegativePhase
) -> TiedStage:
    r"""A layer and what it sees of the one below as a machine of their own.

    Its image is the image, or the pooling units of the layer below; its copies are channels and
    maps. A pooling unit over :math:`n` detection units of bias ``b`` is on as often as a binary
    unit of bias :math:`b + T \log n`.

    Args:
        machine: the whole machine.
        level: the layer.
        up: copies of what it sees.
        down: copies of the layer.
        negative_phase: of the machine.
    """
    weight, below, above = (
        machine.own_weight(level),
        machine.own_bias(level - 1),
        machine.own_bias(level),
    )
    layer, shape, shift = machine.layers[level - 1], machine.shapes[level - 1], 0.0
    units = machine.visible
    if level > 1:
        pooling = machine.pooling[level - 2]
        shape = (shape[0], *pooling.pooled_shape(*shape[1:]))
        units, shift = BinaryUnits(shape[0]), machine.temperature * math.log(pooling.size**2)
    rbm = ConvolutionalRBM(
        (shape[0] * up, *shape[1:]),
        layer.num_filters * down,
        layer.filter_size,
        layer.pool_size,
        padding=layer.padding,
        visible=Copies(units, up),
        negative_phase=negative_phase,
        temperature=machine.temperature,
    ).to(weight.device, weight.dtype)
    tie(
        rbm,
        weight=(weight, (down, up, 1, 1)),
        visible_bias=(below + shift, (up,)),
        hidden_bias=(above, (down,)),
    )
    return TiedStage(
        rbm,
        weight,
        below,
        above,
        first=level == 1,
        num_copies=up,
        dim=-3,
        pool=rbm.pool,
        shift=shift,
    )
