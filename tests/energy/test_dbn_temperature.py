# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Deep belief nets at a temperature."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pyro_deepgen.energy.deep_belief_layer import turn_upside_down
from pyro_deepgen.energy.units import GaussianUnits
from tests.energy.test_dbn import bits, net_of

pytestmark = pytest.mark.usefixtures("float64")


def test_a_temperature_divides_all_fields() -> None:
    net, x = net_of((2, 3, 2), temperature=1.7).eval(), bits(4)
    cold = net_of((2, 3, 2)).eval()
    with torch.no_grad():
        for parameter, value in zip(cold.parameters(), net.parameters(), strict=True):
            parameter.copy_(value / 1.7)
        torch.testing.assert_close(net.log_prob(x), cold.log_prob(x))
        torch.manual_seed(0)
        bound = net.bound(x, 100)
        torch.manual_seed(0)
        torch.testing.assert_close(bound, cold.bound(x, 100))
    with pytest.raises(ValueError, match="positive temperature"):
        net_of(temperature=0.0)


def test_a_net_at_a_temperature_starts_as_the_machine_below_it() -> None:
    net = net_of((3, 4), temperature=1.7)
    loss: Any = next(iter(net.stages())).loss
    machine, x = loss.distribution, bits(4)
    with torch.no_grad():
        machine.weight.normal_()
        net.layers[0].take(machine)
        turn_upside_down(machine, net.top)
        torch.testing.assert_close(net.eval().log_prob(x), machine.eval().log_prob(x))


def test_gaussian_units_at_a_temperature() -> None:
    net = net_of((3, 2), GaussianUnits(1), temperature=1.7).eval()
    line = torch.linspace(-30, 30, 6001)[:, None]
    with torch.no_grad():
        assert abs(net.log_prob(line).logsumexp(0) + math.log(0.01)) < 1e-6
        h = net.recognize(line[:1])[0]
        spread = net.layers[0].draw_below(h.expand(10_000, -1)).var()
        variance = 1.7 * net.layers[0].units.log_variance.exp()
        assert abs(spread / variance - 1) < 4 * math.sqrt(2 / 10_000)
