# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What only restricted Boltzmann machines can get wrong."""

from typing import Any

import pytest
import torch
from torch import nn

from pyro_deepgen.energy.log_partition import log_sum_of
from pyro_deepgen.energy.negative_phase import ContrastiveDivergence, PersistentChains
from pyro_deepgen.energy.rbm import RBM
from pyro_deepgen.energy.rbm_kinds import gaussian_rbm, multinomial_rbm, rectified_rbm
from pyro_deepgen.energy.rectified_units import RectifiedUnits
from pyro_deepgen.energy.units import BinaryUnits, FreeUnits, GaussianUnits, SoftmaxUnits
from pyro_deepgen.mcmc import BlockGibbs
from tests.energy.rows_boltzmann import bits, rbm
from tests.energy.statistics import follows

FINITE = [
    BinaryUnits(3),
    SoftmaxUnits(2, 3),
    RectifiedUnits(2, 4),
    BinaryUnits(2).at(1.5),
    RectifiedUnits(2, 3).at(0.6),
]


@pytest.mark.parametrize("units", FINITE, ids=lambda units: type(units).__name__)
def test_units_sum_to_their_normaliser(units: Any, float64: torch.dtype) -> None:
    field = torch.randn(units.num_units)
    states = units.states(field)
    assert len(states) == units.num_states()
    assert bool(units.support.check(states).all())
    scores = (units.statistic(states) * field).sum(-1) - units.self_energy(states)
    torch.testing.assert_close(scores.logsumexp(0), units.log_normalizer(field))
    torch.testing.assert_close(scores.softmax(0) @ states, units.mean(field))
    draws = units.sample(field.expand(10_000, -1).contiguous())
    assert follows(draws, states, scores.softmax(0), True)
    assert follows(FreeUnits(units, field).sample((10_000,)), states, scores.softmax(0), True)


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_gaussian_units_at_a_temperature(temperature: float, float64: torch.dtype) -> None:
    units, field = GaussianUnits(1), torch.tensor([0.7])
    with torch.no_grad():
        units.log_variance.fill_(0.4)
    units = units.at(temperature)
    grid = torch.linspace(-30, 30, 60_001)[:, None]
    scores = (units.statistic(grid) * field).sum(-1) - units.self_energy(grid)
    total = scores.logsumexp(0) + torch.tensor(0.001).log()
    torch.testing.assert_close(total, units.log_normalizer(field), atol=1e-6, rtol=0)
    draws = units.sample(field.expand(10_000, 1))
    assert follows(draws, grid, scores.softmax(0), False)
    # The variances are parameters of the units that were given, whatever the temperature.
    given = GaussianUnits(2)
    assert RBM(given, 2, temperature=2.0).visible.log_variance is given.log_variance


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RBM(0, 3), "1 unit or more, got 0"),
        (lambda: RBM(3, 3, temperature=0.0), "positive temperature"),
        (lambda: RBM(3, 3, sampling_steps=0), "1 sampling step"),
        (lambda: RBM(3, 3, bias=nn.Linear(2, 6)), "context_dim"),
        (lambda: RBM(3, 3, context_dim=2, negative_phase=PersistentChains()), "at the data"),
        (lambda: RBM(GaussianUnits(3), GaussianUnits(2)), "no lower bound"),
        (lambda: SoftmaxUnits(3, 1), "2 classes"),
        (lambda: RectifiedUnits(3, 0), "1 copy"),
        (lambda: RBM(3, 3).condition(torch.zeros(2)), "takes no context"),
        (lambda: RBM(3, 3, context_dim=2).condition(torch.zeros(3)), "last dimension is 2"),
        (lambda: RBM(3, 3).log_prob(torch.zeros(4)), "event_shape|last dimensions|shape"),
        (lambda: RBM(3, 3).log_prob(torch.full((3,), 0.5)), "support"),
        (lambda: RBM(RectifiedUnits(2), 3).set_base(torch.zeros(4, 2)), "no field"),
        (lambda: RBM(GaussianUnits(2), 2).visible.states(torch.zeros(())), "no finite"),
    ],
)
def test_errors_tell_the_way_out(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_negative_phase_belongs_to_one_machine() -> None:
    phase = PersistentChains()
    RBM(3, 2, negative_phase=phase)
    with pytest.raises(ValueError, match="make one for each"):
        RBM(3, 2, negative_phase=phase)


def test_log_z_of_8_by_5_units_is_that_of_brute_force(float64: torch.dtype) -> None:
    machine = rbm(8, 5)
    v, h = bits(8)[:, None], bits(5)[None]
    brute = (-machine.joint_energy(v, h)).flatten().logsumexp(0)
    assert (machine.exact_log_partition() - brute).abs() < 1e-10
    free = -torch.logsumexp(-machine.joint_energy(v, h), 1)
    torch.testing.assert_close(machine.energy(bits(8)), free)
    probs = (-machine.joint_energy(v, h)).softmax(1)
    torch.testing.assert_close(probs @ bits(5), machine.hidden.mean(machine.hidden_field(bits(8))))


def test_sums_in_parts_have_the_same_value_and_gradient(float64: torch.dtype) -> None:
    w = torch.randn(6, requires_grad=True)
    states = bits(6)
    whole = log_sum_of(lambda s: s @ w, states, 1)
    parts = log_sum_of(lambda s: s @ w, states, 1 << 20)
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(*[torch.autograd.grad(total, w)[0] for total in (whole, parts)])
    with torch.no_grad():
        torch.testing.assert_close(log_sum_of(lambda s: s @ w, states, 1 << 20), whole)


def test_hidden_units_come_with_the_visible_ones_on_request(float64: torch.dtype) -> None:
    machine = rbm(3, 2)
    v, h = machine.sample_joint((10_000,))
    pairs = torch.cat([bits(3)[:, None].expand(8, 4, 3), bits(2)[None].expand(8, 4, 2)], -1)
    pairs = pairs.flatten(0, 1)
    probs = (-machine.joint_energy(pairs[:, :3], pairs[:, 3:])).softmax(0)
    assert follows(torch.cat([v, h], -1), pairs, probs, True)


def test_a_base_near_the_data_shortens_the_way(float64: torch.dtype) -> None:
    machine = rbm(6, 4)
    with torch.no_grad():
        machine.visible_bias.sub_(3)
    exact, data, errors = machine.exact_log_partition(), machine.sample((200,)), []
    for based in (False, True):
        if based:
            machine.set_base(data)
        path = machine.anneal(compile=False, num_steps=20, num_chains=500)
        assert (path.log_z - exact).abs() < 5 * path.standard_error
        errors.append(path.standard_error)
    assert errors[1] < 0.7 * errors[0]


def test_annealing_by_another_kernel(float64: torch.dtype) -> None:
    machine = rbm(4, 3)
    made = []

    def kernel(path: Any, **settings: Any) -> Any:
        made.append(BlockGibbs(path, **settings))
        return made[-1]

    path = machine.anneal(kernel=kernel, compile=False, num_steps=30, num_chains=300)
    assert len(made) == 1
    assert (path.log_z - machine.exact_log_partition()).abs() < 5 * path.standard_error


def test_factories() -> None:
    assert isinstance(gaussian_rbm(4, 2).visible, GaussianUnits)
    machine = multinomial_rbm(3, 4, 2)
    assert machine.event_shape == (12,) and machine.sample((5,)).sum() == 15
    assert isinstance(rectified_rbm(4, 2).hidden, RectifiedUnits)


def test_contexts_through_a_network_learn() -> None:
    """Two contexts, two different data: each is drawn under its own."""
    machine = RBM(3, 2, context_dim=2, negative_phase=ContrastiveDivergence(3))
    context = torch.eye(2).repeat(10, 1)
    x = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).repeat(10, 1)
    optim = torch.optim.Adam(machine.parameters(), 0.05)
    for _ in range(80):
        optim.zero_grad()
        (-machine.condition(context).log_prob(x).sum()).backward()
        optim.step()
    machine.eval()
    assert bool((machine.condition(context[:2]).log_prob(x[:2]) > -0.7).all())
