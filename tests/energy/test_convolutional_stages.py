# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Convolutional deep Boltzmann machines, pretrained layer by layer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pyro_deepgen.energy.convolutional_dbm import ConvolutionalDBM
from pyro_deepgen.energy.convolutional_layers import ConvolutionalLayer
from pyro_deepgen.energy.negative_phase import ContrastiveDivergence
from pyro_deepgen.energy.pretraining import of_one_copy
from pyro_deepgen.energy.units import GaussianUnits
from pyro_deepgen.fit.stages import fit_stages
from tests.energy.rows_convolutional import randomized

pytestmark = pytest.mark.usefixtures("float64")


def machine_of(**settings: Any) -> ConvolutionalDBM:
    """Three layers over 2 x 5 x 5 pixels, the first two with blocks of 2 x 2."""
    layers = [
        ConvolutionalLayer(3, 2),
        ConvolutionalLayer(2, 3, padding=2),
        ConvolutionalLayer(2, 1, 1),
    ]
    return randomized(ConvolutionalDBM((2, 5, 5), layers, **settings))


@pytest.mark.parametrize(("up", "down"), [(2, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("level", [1, 2])
def test_a_stage_counts_one_side_as_often_as_it_has_copies(level: int, up: int, down: int) -> None:
    machine = machine_of(temperature=1.3)
    stage = machine.stage(level, up, down, ContrastiveDivergence())
    layers: Any = machine.sample_layers((4,))
    alone: Any = [None] * 4
    own = machine.field_in(level, alone)
    below = alone.copy()
    below[level - 1] = layers[level - 1]
    seen = layers[0] if level == 1 else machine.pooling[0].pool(layers[1])
    on = stage.rbm.field_in(1, [stage.copied(seen), None])[:, : machine.shapes[level][0]]
    expected = own + up * (machine.field_in(level, below) - own)
    torch.testing.assert_close(on, expected)
    # And what comes down acts on a pooling unit as on each unit of its block.
    h = torch.cat([layers[level]] * down, -3)
    above = alone.copy()
    above[level] = layers[level]
    own = machine.field_in(level - 1, alone)
    down_field = down * (machine.field_in(level - 1, above) - own) + own
    found = stage.rbm.field_in(0, [None, h])[:, : machine.shapes[level - 1][0]]
    if level == 1:
        torch.testing.assert_close(found, down_field)
    else:  # the pooling unit is on as often as any of the four
        probs = machine.pooling[0].pool(machine.pooling[0].mean(down_field))
        torch.testing.assert_close(found, probs.logit())


def test_stages_give_what_they_learn_to_the_machine() -> None:
    machine = machine_of()
    before = machine.bias1.detach().clone()
    x = machine.sample((5,))
    shapes = []
    for level, stage in enumerate(machine.stages(), start=1):
        seen = stage.transform(x)
        shapes.append(tuple(seen.shape[1:]))
        loss: Any = stage.loss
        loss(seen).backward()
        weight, below, above = of_one_copy(loss.distribution)
        assert all(p.grad is not None for p in (weight, below, above))
        if level == 2:  # the bias of blocks as that of pooling units
            torch.testing.assert_close(below, machine.bias1 + math.log(4))
        with torch.no_grad():
            weight.fill_(float(level))
            above.fill_(10.0 * level)
            below.fill_(4.0 + (math.log(4) if level > 1 else 0.0))
    assert shapes == [(4, 5, 5), (6, 2, 2), (2, 2, 2)]
    for level in (1, 2, 3):
        assert bool((machine.own_weight(level) == level).all())
    # A layer between two machines has the mean of both biases.
    means = [machine.own_bias(level)[0].item() for level in range(4)]
    assert means == pytest.approx([4.0, 7.0, 12.0, 30.0])
    assert not torch.allclose(machine.bias1, before)


@pytest.mark.parametrize("units", [None, GaussianUnits(1)], ids=["binary", "gaussian"])
def test_pretraining_raises_the_likelihood(units: GaussianUnits | None) -> None:
    torch.set_default_dtype(torch.float32)
    layers = [ConvolutionalLayer(2, 2), ConvolutionalLayer(2, 1, 1)]
    machine = ConvolutionalDBM((1, 3, 5), layers, weight_scale=0.1, visible=units).float()
    data = torch.zeros(40, 1, 3, 5)
    data[:20, :, :, ::2], data[20:, :, :, 1::2] = 1.0, 1.0
    if units is not None:
        data = data + 0.3 * torch.randn_like(data)

    @torch.no_grad()
    def score() -> float:
        value = machine.eval().log_prob(data).mean()
        machine.train()
        return float(value)

    before = score()
    histories = fit_stages(
        machine.stages(lambda: ContrastiveDivergence(5)),
        data,
        lambda parameters: torch.optim.Adam(parameters, lr=0.03),
        num_epochs=40,
        batch_size=40,
        progress=False,
    )
    assert [len(h.train) for h in histories] == [40, 40]
    assert score() > before + 1
