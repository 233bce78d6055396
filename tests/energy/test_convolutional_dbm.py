# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Convolutional machines of several layers, against sums over all their states."""

import itertools
import math
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam

from pyro_deepgen.energy.convolutional_dbm import ConvolutionalDBM
from pyro_deepgen.energy.convolutional_layers import ConvolutionalLayer
from pyro_deepgen.energy.convolutional_rbm import ConvolutionalRBM
from pyro_deepgen.energy.layer_states import LayerStates
from pyro_deepgen.energy.log_partition import UnknownPartitionError
from pyro_deepgen.energy.machine import Machine
from pyro_deepgen.energy.mean_field import MeanField
from pyro_deepgen.energy.negative_phase import ContrastiveDivergence, PersistentChains
from pyro_deepgen.energy.units import GaussianUnits
from tests.energy.rows_convolutional import (
    binary_images,
    deep_dbm,
    hidden_states,
    randomized,
    reference,
    small_dbm,
)
from tests.energy.statistics import FAILURE_RATE, counts_of, p_value

pytestmark = pytest.mark.usefixtures("float64")


def many_maps() -> ConvolutionalDBM:
    """A machine whose even layers have fewer states than its odd ones."""
    layers = [ConvolutionalLayer(3, 1, 1), ConvolutionalLayer(1, 1, 1)]
    return randomized(ConvolutionalDBM((1, 1, 2), layers))


def gaussian() -> ConvolutionalDBM:
    layers = [ConvolutionalLayer(2, 2, padding=1), ConvolutionalLayer(2, 1, 1)]
    units = GaussianUnits(1)
    return randomized(ConvolutionalDBM((1, 1, 3), layers, visible=units, temperature=1.3), 0.4)


def joint(machine: ConvolutionalDBM) -> list[torch.Tensor]:
    """All hidden states ``(S, *shape)`` of every layer, side by side."""
    each = [
        list(hidden_states(shape, layer.pool_size))
        for shape, layer in zip(machine.shapes[1:], machine.layers, strict=True)
    ]
    return [torch.stack(states) for states in zip(*itertools.product(*each), strict=True)]


# ---------------------------------------------------------------- sums over states


@pytest.mark.parametrize("make", [deep_dbm, many_maps, small_dbm])
def test_density_and_parities_against_written_out_sums(make: Any) -> None:
    machine = make().eval()
    images = binary_images(machine)
    exact = reference(machine, images)
    torch.testing.assert_close(-machine.energy(images), exact)
    torch.testing.assert_close(machine.log_prob(images), exact - exact.logsumexp(0))
    every = machine.log_weight([images[:, None], *joint(machine)])
    torch.testing.assert_close(every.logsumexp(1), exact)
    # The even or the odd layers are listed: both give the same sum.
    states = LayerStates(machine)
    assert states.levels[0] == (0 if make is many_maps else 1)
    for first in (0, 1):
        states = LayerStates(machine)
        states.levels = range(first, machine.num_layers, 2)
        states.count = 2.0 ** sum(machine.log2_states(level) for level in states.levels)
        torch.testing.assert_close(states.log_sum(), exact.logsumexp(0))


def test_real_images() -> None:
    machine = gaussian().eval()
    images = torch.randn(20, 1, 1, 3)
    torch.testing.assert_close(-machine.energy(images), reference(machine, images))
    grid = torch.linspace(-9, 9, 25)
    points = torch.cartesian_prod(grid, grid, grid).reshape(-1, 1, 1, 3)
    total = machine.log_prob(points).logsumexp(0) + 3 * math.log(float(grid[1] - grid[0]))
    assert total.abs() < 1e-4


def test_each_layer_follows_its_neighbours() -> None:
    machine = deep_dbm()
    image = torch.bernoulli(torch.full((1, 3, 3), 0.5))
    hidden = joint(machine)
    probs = machine.log_weight([image, *hidden]).softmax(0)
    states = torch.cat([h.flatten(1) for h in hidden], 1)
    # Long chains with the image clamped have the law of the hidden layers given it.
    layers: Any = [image.expand(10_000, 1, 3, 3)]
    layers += [torch.zeros(10_000, *shape) for shape in machine.shapes[1:]]
    known = torch.ones(1, 3, 3, dtype=torch.bool)
    for _ in range(15):
        layers = machine.redrawn(machine.redrawn(layers, 1), 0, [known, None, None, None])
    drawn = torch.cat([h.flatten(1) for h in layers[1:]], 1)
    assert (layers[0] == image).all()
    assert p_value(counts_of(drawn, states), probs) > FAILURE_RATE
    layers[2] = layers[2].flip(0)  # layers of different chains do not belong together
    drawn = torch.cat([h.flatten(1) for h in layers[1:]], 1)
    assert p_value(counts_of(drawn, states), probs) < FAILURE_RATE


def test_one_layer_is_the_restricted_machine() -> None:
    deep = randomized(ConvolutionalDBM((2, 3, 3), [ConvolutionalLayer(2, 2)]))
    flat = ConvolutionalRBM((2, 3, 3), 2, 2)
    names = {"weight": "weight1", "visible_bias": "bias0", "hidden_bias": "bias1"}
    with torch.no_grad():
        for mine, other in names.items():
            getattr(flat, mine).copy_(getattr(deep, other))
    x = torch.bernoulli(torch.full((5, 2, 3, 3), 0.5))
    torch.testing.assert_close(deep.energy(x), flat.energy(x))
    torch.testing.assert_close(deep.variational_energy(x), flat.energy(x))
    torch.testing.assert_close(deep.exact_log_partition(), flat.exact_log_partition())
    assert deep.all_units.event_shape == (2, 3, 3)


def test_draws_of_all_layers() -> None:
    machine = small_dbm()
    layers = machine.sample_layers((10_000,))
    assert [tuple(x.shape[1:]) for x in layers] == machine.shapes
    images, hidden = binary_images(machine), joint(machine)
    every = machine.log_weight([images[:, None], *hidden]).flatten().softmax(0)
    every = every.reshape(len(images), -1).sum(0)
    states = torch.cat([h.flatten(1) for h in hidden], 1)
    drawn = torch.cat([h.flatten(1) for h in layers[1:]], 1)
    assert p_value(counts_of(drawn, states), every) > FAILURE_RATE


# ---------------------------------------------------------------- mean field


def test_mean_field_climbs_to_a_bound_below_the_density() -> None:
    machine = deep_dbm().eval()
    images, energies = binary_images(machine), []
    for steps in (1, 2, 5, 100):
        machine.mean_field.num_steps = steps
        energies.append(machine.variational_energy(images))
    for before, after in itertools.pairwise(energies):
        assert (after <= before + 1e-10).all()
    assert (energies[-1] >= machine.energy(images) - 1e-10).all()
    assert (energies[-1] - machine.energy(images)).max() > 1e-4
    # It is E_q[E] - H(q), state by state.
    image, hidden, means = images[37], joint(machine), machine.infer(images[37])
    log_q = torch.zeros(len(hidden[0]))
    for h, mean, pooling in zip(hidden, means, machine.pooling, strict=True):
        off = (1 - pooling.pool(mean)).log() * (1 - pooling.pool(h))
        log_q = log_q + (h * mean.log()).sum((1, 2, 3)) + off.sum((1, 2, 3))
    torch.testing.assert_close(log_q.logsumexp(0), torch.zeros(()))
    bound = (log_q.exp() * (machine.energy(image, *hidden) + log_q)).sum()
    torch.testing.assert_close(bound, energies[-1][37])
    # Other laws of the same kind are worse.
    for level in range(3):
        other = [mean.clone() for mean in means]
        other[level] = 0.9 * other[level]
        assert machine.variational_energy(image, other) > bound


def test_too_many_hidden_states_leave_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = deep_dbm().eval()
    images = binary_images(machine)
    exact, bound = machine.log_prob(images), machine.bound(images)
    assert not machine.log_prob_is_bound
    monkeypatch.setattr("pyro_deepgen.energy.inferred_layers.MAX_HIDDEN_STATES", 1)
    assert machine.log_prob_is_bound
    torch.testing.assert_close(machine.log_prob(images), bound)
    assert (bound <= exact + 1e-10).all() and (bound < exact - 1e-4).any()
    drawn = machine.complete(images)  # from the mean field: blocks keep their rule
    (h,) = [x for x in machine.all_units.split(drawn)[2:] if x is not None]
    assert drawn.shape == (512, 9 + 2) and h.max() <= 1


def gradients(machine: ConvolutionalDBM, score: torch.Tensor) -> torch.Tensor:
    found = torch.autograd.grad(score, list(machine.parameters()))
    return torch.cat([g.flatten() for g in found])


def test_svi_follows_the_gradient_of_the_bound() -> None:
    phase = PersistentChains(200)
    machine = deep_dbm(negative_phase=phase, mean_field=MeanField(60))
    data = torch.bernoulli(torch.full((6, 1, 3, 3), 0.5))
    log_z = machine.exact_log_partition()
    through = machine.infer(data)  # with the gradient of the iteration itself
    bound = -machine.variational_energy(data, through).sum() - 6 * log_z
    exact = gradients(machine, bound)
    drawn = []
    for _ in range(60):
        phase.chains.copy_(machine.all_units.exact_sample(200))
        drawn.append(gradients(machine, machine.log_prob(data).sum()))
    mean, error = torch.stack(drawn).mean(0), torch.stack(drawn).std(0) / 60**0.5
    assert ((mean - exact).abs() < 4.5 * error + 1e-8).all()
    likelihood = machine.log_unnormalized(data).sum() - 6 * machine.exact_log_partition()
    off = (mean - gradients(machine, likelihood)).abs() / error
    assert off.max() > 8  # the likelihood has another one
    positive = gradients(machine, -machine.variational_energy(data).sum())
    assert ((2 * positive - mean - exact).abs() / error).max() > 10  # and so has -log Z


# ---------------------------------------------------------------- chains, sizes, learning


def test_annealing_with_the_image_and_the_even_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = deep_dbm().eval()
    exact, draws = machine.exact_log_partition().detach(), machine.all_units.exact_sample(400)
    result = machine.anneal(num_chains=400, num_steps=60, reverse_from=draws, compile=False)
    assert (result.log_z - exact).abs() < 5 * result.standard_error
    spread = result.log_weights.std() / 20
    assert exact - 0.5 < result.lower < exact + 4 * spread
    assert result.upper is not None and exact - 4 * spread < result.upper < exact + 0.5
    monkeypatch.setattr(Machine, "is_small", property(lambda machine: False))
    with pytest.raises(UnknownPartitionError, match="not been estimated"):
        machine.log_prob(binary_images(machine))


def test_filling_in_follows_the_conditional() -> None:
    machine = deep_dbm()
    images = binary_images(machine)
    known = torch.zeros(3, 3, dtype=torch.bool)
    known[:, :2] = True
    image = torch.bernoulli(torch.full((1, 3, 3), 0.5))
    agrees = ((images == image) | ~known).flatten(1).all(1)
    given = torch.where(known, image, torch.nan).expand(10_000, 1, 3, 3)
    drawn = machine.impute(given, known, num_steps=15)
    probs = reference(machine, images[agrees]).softmax(0)
    assert p_value(counts_of(drawn, images[agrees]), probs) > FAILURE_RATE


def test_another_size() -> None:
    layers = [ConvolutionalLayer(1, 2, padding=1), ConvolutionalLayer(1, 1, 1)]
    machine = randomized(ConvolutionalDBM((1, 1, 3), layers)).eval()
    tall = machine.resized(3, 3)
    assert tall.shapes == [(1, 3, 3), (1, 4, 4), (1, 2, 2)] and tall.weight1 is machine.weight1
    images = binary_images(tall)[::7]
    torch.testing.assert_close(-tall.energy(images), reference(tall, images))
    assert tall.negative_phase.chains.shape == (100, 9 + 4)
    assert machine.negative_phase.chains.shape == (100, 3 + 2)
    with pytest.raises(ValueError, match="tile"):
        machine.resized(2, 3)


@pytest.mark.parametrize("phase", [PersistentChains(200, 5), ContrastiveDivergence(10)])
def test_svi_raises_the_likelihood(phase: Any) -> None:
    layers = [ConvolutionalLayer(2, 2), ConvolutionalLayer(2, 1, 1)]
    machine = ConvolutionalDBM((1, 3, 5), layers, weight_scale=0.1, negative_phase=phase)
    data = torch.zeros(40, 1, 3, 5)
    data[:20, :, :, ::2], data[20:, :, :, 1::2] = 1.0, 1.0

    def model() -> None:
        pyro.module("machine", machine)
        with pyro.plate("data", len(data)):
            pyro.sample("x", machine, obs=data)

    @torch.no_grad()
    def score() -> float:
        value = machine.eval().log_prob(data).mean()
        machine.train()
        return float(value)

    before = {name: p.detach().clone() for name, p in machine.named_parameters()}
    first = score()
    svi = SVI(model, lambda: None, Adam({"lr": 0.03}), Trace_ELBO())
    for _ in range(80):
        svi.step()
    assert all((p != before[name]).all() for name, p in machine.named_parameters())
    assert score() > first + 2


def test_it_runs_on_the_device(device: torch.device) -> None:
    machine = small_dbm().to(device)
    v = machine.sample((3,))
    machine.log_prob(v).sum().backward()
    assert v.device.type == device.type and machine.weight2.grad is not None


@pytest.mark.parametrize(
    ("layers", "settings", "message"),
    [
        ([], {}, "one layer or more"),
        ([ConvolutionalLayer(1, 2)], {"clamped_steps": -1}, "0 clamped steps"),
        ([ConvolutionalLayer(1, 2), ConvolutionalLayer(1, 2)], {}, "tile, got 0 x 0"),
    ],
)
def test_what_does_not_fit_is_refused(
    layers: list[ConvolutionalLayer], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ConvolutionalDBM((1, 3, 3), layers, **settings)


def test_some_but_not_all_hidden_layers_are_refused() -> None:
    machine = small_dbm()
    image, h1, _ = machine.sample_layers()
    with pytest.raises(ValueError, match="expected 2 hidden layers or none, got 1"):
        machine.energy(image, h1)
