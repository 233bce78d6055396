# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Pretraining, prediction and classification with deep Boltzmann machines."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule
from pyro.optim import OneCycleLR

from pyro_deepgen.energy.deep_boltzmann_machine import DeepBoltzmannMachine
from pyro_deepgen.energy.mean_field import MeanField
from pyro_deepgen.energy.mean_field_classifier import MeanFieldClassifier
from pyro_deepgen.energy.multi_prediction import MultiPrediction
from pyro_deepgen.energy.negative_phase import ContrastiveDivergence, PersistentChains
from pyro_deepgen.energy.pretraining import of_one_copy
from pyro_deepgen.energy.rectified_units import RectifiedUnits
from pyro_deepgen.energy.units import (
    GaussianUnits,
    SoftmaxUnits,
)
from pyro_deepgen.fit import fit
from pyro_deepgen.fit.stages import fit_stages
from tests.energy.rows_deep import bits, deep, in_layers

pytestmark = pytest.mark.usefixtures("float64")


def bars_and_stripes() -> torch.Tensor:
    lines = bits(3)
    across = lines[:, :, None].expand(-1, 3, 3).flatten(1)
    down = lines[:, None, :].expand(-1, 3, 3).flatten(1)
    return torch.cat([across, down]).unique(dim=0)


# ---------------------------------------------------------------- pretraining


@pytest.mark.parametrize(("up", "down"), [(2, 1), (2, 2), (1, 2), (1, 1)])
def test_a_tied_machine_counts_one_side_as_often_as_it_has_copies(up: int, down: int) -> None:
    machine = deep(3, (2,), temperature=1.5)
    stage = machine.stage(1, up, down, ContrastiveDivergence())
    rbm, weight = stage.rbm, machine.weight1 / 1.5
    v, h = bits(3)[5], bits(2)[1]
    copies = torch.cat([v] * up), torch.cat([h] * down)
    on = rbm.hidden_field(copies[0])[:2]
    torch.testing.assert_close(on, up * v @ weight + machine.bias1 / 1.5)
    below = down * weight @ h + machine.bias0 / 1.5
    torch.testing.assert_close(rbm.visible_field(copies[1])[:3], below)
    # As many parameters as one copy, which all get a gradient.
    assert sum(p.numel() for p in rbm.parameters()) == 6 + 3 + 2
    rbm.log_prob(copies[0]).backward()
    assert all(p.grad is not None for p in of_one_copy(rbm))
    torch.testing.assert_close(of_one_copy(rbm)[0], machine.weight1)


def test_stages_double_the_weights_and_leave_single_ones() -> None:
    machine = deep(4, (3, 2, 2))
    stages = machine.stages(lambda: PersistentChains(10))
    x = bits(4)
    for level, (stage, copies) in enumerate(zip(stages, (2, 2, 1), strict=True), start=1):
        loss: Any = stage.loss
        width = machine.sizes[level - 1]
        seen = stage.transform(x)
        assert seen.shape == (16, width * copies)
        assert bool((seen.unflatten(-1, (copies, width)) == seen[:, None, :width]).all())
        loss(seen).backward()
        with torch.no_grad():
            of_one_copy(loss.distribution)[0].fill_(float(level))
            of_one_copy(loss.distribution)[1].fill_(10.0 * level)
            of_one_copy(loss.distribution)[2].fill_(30.0)
    for level in (1, 2, 3):
        assert bool((getattr(machine, f"weight{level}") == level).all())
    # A layer between two machines has the mean of both biases.
    biases = [getattr(machine, f"bias{level}")[0].item() for level in range(4)]
    assert biases == [10.0, 25.0, 30.0, 30.0]


def test_pretraining_raises_the_likelihood() -> None:
    torch.set_default_dtype(torch.float32)
    data = torch.tensor([[1.0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]])
    machine = DeepBoltzmannMachine(6, (5, 4), weight_scale=0.1)
    with torch.no_grad():
        before = float(machine.eval().log_prob(data).mean())
    fit_stages(
        machine.stages(),
        data.repeat(50, 1),
        lambda parameters: torch.optim.Adam(parameters, lr=0.03),
        num_epochs=30,
        batch_size=50,
        progress=False,
    )
    with torch.no_grad():
        assert float(machine.eval().log_prob(data).mean()) > before + 0.5


def test_gaussian_units_share_their_variances_with_the_stage() -> None:
    machine = deep(GaussianUnits(3), (3, 2))
    stage = next(machine.stages())
    loss: Any = stage.loss
    loss(stage.transform(torch.randn(5, 3))).backward()
    assert machine.visible.log_variance.grad is not None
    assert float(machine.visible.log_variance.grad.abs().sum()) > 0


@pytest.mark.slow
def test_bars_and_stripes_by_svi() -> None:
    """The mean log-density comes within 0.05 nats of the most there is."""
    torch.set_default_dtype(torch.float32)
    data = bars_and_stripes()
    machine = DeepBoltzmannMachine(
        9,
        (12, 6),
        weight_scale=0.1,
        mean_field=MeanField(4),
        negative_phase=PersistentChains(500, num_steps=8),
    )

    class Program(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.machine = machine

        def forward(self, x: torch.Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("x", self.machine, obs=x)

    # A high rate finds the modes, and the chains keep up with the low one at the end.
    steps = 2400
    optimizer = OneCycleLR(
        {
            "optimizer": torch.optim.Adam,
            "optim_args": {"lr": 0.02, "betas": (0.5, 0.999)},
            "max_lr": 0.02,
            "total_steps": steps + 1,
            "pct_start": 0.1,
            "cycle_momentum": False,
        }
    )
    svi = SVI(Program(), lambda x: None, optimizer, Trace_ELBO())
    for _ in range(steps):
        svi.step(data)
        optimizer.step()
    with torch.no_grad():
        mean = float(machine.eval().log_prob(data).mean())
    assert not machine.log_prob_is_bound and machine.is_small
    assert mean <= -math.log(14) + 1e-4
    assert mean > -math.log(14) - 0.05


# ---------------------------------------------------------------- multi-prediction


def weak(scale: float) -> DeepBoltzmannMachine:
    machine = deep(4, (3, 2), mean_field=MeanField(100))
    with torch.no_grad():
        for level in (1, 2):
            getattr(machine, f"weight{level}").mul_(scale)
        machine.bias0[0] = 0
    return machine


def gap_to_exact(machine: DeepBoltzmannMachine) -> float:
    """How far the prediction of one unit is from its conditional, on the average.

    Its bias is 0, so that it is on and off about equally often, as the second order in its
    couplings supposes.
    """
    with torch.no_grad():
        scores = in_layers(machine, bits(4)).reshape(2, 8)
        exact = scores.log_softmax(0).reshape(16)
        known = torch.tensor([False, True, True, True]).expand(16, 4)
        found = MultiPrediction(machine).predict(bits(4), known)[:, 0]
        return float((found - exact).abs().mean())


def test_predictions_are_exact_to_the_third_order_of_the_couplings() -> None:
    gaps = [gap_to_exact(weak(scale)) for scale in (0.4, 0.2, 0.0)]
    assert gaps[2] < 1e-12
    assert gaps[1] < gaps[0] / 5  # a wrong factor in a field would be an error of first order


def test_the_loss_counts_unknown_units_alone() -> None:
    machine, x = weak(0.5), bits(4)
    loss = MultiPrediction(machine)
    assert loss(x, torch.ones(4)).item() == 0
    mask = torch.tensor([True, True, False, False])
    scores = loss.predict(x, mask.expand(16, 4))
    torch.testing.assert_close(loss(x, mask), -scores[:, 2:].sum())
    # What the unknown units are makes no difference to what is predicted of them.
    other = torch.where(mask, x, 1 - x)
    fields = [loss.predict(v, mask.expand(16, 4)) for v in (x, other)]
    total = torch.logaddexp(fields[0], fields[1])[:, 2:]
    torch.testing.assert_close(total, torch.zeros_like(total))


def test_softmax_and_gaussian_units_are_predicted() -> None:
    groups = MultiPrediction(deep(SoftmaxUnits(2, 3), (3, 2)))
    x = torch.eye(3)[torch.tensor([[0, 1], [2, 2]])].flatten(1)
    mask = groups._drawn(x.repeat(50, 1)).unflatten(-1, (2, 3))
    assert bool((mask == mask[..., :1]).all()) and bool(mask.any()) and not bool(mask.all())
    no = torch.zeros(2, 6, dtype=torch.bool)
    total = torch.stack(
        [
            groups.predict(torch.eye(3)[[k, k]].flatten().expand(2, -1), no)[:, :3].sum(-1)
            for k in range(3)
        ]
    ).logsumexp(0)
    torch.testing.assert_close(total, torch.zeros(2))
    real = MultiPrediction(deep(GaussianUnits(1), (3, 2), temperature=1.5))
    line = torch.linspace(-20, 20, 4001)[:, None]
    density = real.predict(line, torch.zeros(4001, 1, dtype=torch.bool))
    assert abs(density.logsumexp(0) + math.log(0.01)) < 1e-6
    with pytest.raises(ValueError, match="BinaryUnits"):
        MultiPrediction(deep(RectifiedUnits(2, 3), (3, 2)))
    with pytest.raises(ValueError, match="known"):
        MultiPrediction(deep(4, (3, 2)), known=1.0)


def test_multi_prediction_learns_to_fill_in() -> None:
    torch.set_default_dtype(torch.float32)
    data = bars_and_stripes()
    machine = DeepBoltzmannMachine(9, (12, 6), weight_scale=0.3)
    loss = MultiPrediction(machine)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
    history = fit(loss, data.repeat(20, 1), optimizer, num_epochs=80, batch_size=70, progress=False)
    assert history.train[-1] < 0.8 * history.train[0]
    # The first row of a picture that is on in part tells of stripes, that is of all the others.
    x = data[(data[:, :3].sum(-1) > 0) & (data[:, :3].sum(-1) < 3)]
    known = torch.tensor([True] * 3 + [False] * 6).expand(x.shape)
    with torch.no_grad():
        right = (loss.predict(x, known)[:, 3:].exp() > 0.5).float().mean()
    assert right > 0.95


# ---------------------------------------------------------------- classification


def test_a_classifier_starts_as_the_mean_field_and_leaves_the_machine_alone() -> None:
    for hidden in itertools.product((3,), (2,), (2,)):
        machine = deep(4, hidden, mean_field=MeanField(500), temperature=1.3)
        network = MeanFieldClassifier(machine, 3)
        x = bits(4)
        torch.testing.assert_close(network.features(x), machine.infer(x)[-1])
        before = [p.detach().clone() for p in machine.parameters()]
        optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0)
        labels = (x.sum(-1) % 3).long()
        torch.nn.functional.cross_entropy(network(x), labels).backward()
        optimizer.step()
        assert all(bool((p == b).all()) for p, b in zip(machine.parameters(), before, strict=True))
        assert not torch.allclose(network.features(x), machine.infer(x)[-1])
    with pytest.raises(ValueError, match="classes"):
        MeanFieldClassifier(machine, 1)


def test_a_classifier_learns() -> None:
    machine = deep(4, (6, 5))
    network = MeanFieldClassifier(machine, 2)
    x = bits(4)
    labels = (x[:, 0] != x[:, 1]).long()
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), labels).backward()
        optimizer.step()
    assert bool((network(x).argmax(-1) == labels).all())
