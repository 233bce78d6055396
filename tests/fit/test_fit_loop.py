# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What every run does: batches, optimisers, schedulers, clipping, bar, warnings, errors."""

import warnings
from itertools import chain

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pyro_deepgen.fit import fit
from tests.fit.models import SquaredError, assert_same, pair_loss, pixels, regression, state_of


def quietly(loss, data, optimizer=None, **settings):
    return fit(loss, data, optimizer, progress=False, **{"num_epochs": 1, **settings})


def sgd(loss, lr=0.1):
    return torch.optim.SGD(loss.parameters(), lr=lr)


# ---------------------------------------------------------------- the mean loss


def test_a_step_goes_down_the_mean_of_the_batch():
    x, y, _ = regression(12)
    one, by_hand = SquaredError(), SquaredError()
    history = quietly(one, (x, y), sgd(one), batch_size=12)
    loss = by_hand(x, y) / 12
    loss.backward()
    assert history.train == pytest.approx([loss.item()], rel=1e-12)
    assert torch.allclose(one.weight, by_hand.weight - 0.1 * by_hand.weight.grad, rtol=1e-12)


def test_data_twice_over_with_twice_the_batch_size_is_the_same_step():
    x, y, _ = regression(12)
    one, two = SquaredError(), SquaredError()
    quietly(one, (x, y), sgd(one), batch_size=12, clip_norm=0.5)
    quietly(two, (x.repeat(2, 1), y.repeat(2)), sgd(two), batch_size=24, clip_norm=0.5)
    assert torch.allclose(one.weight, two.weight, rtol=1e-12)


def test_an_epoch_shows_every_row_once_in_an_order_of_seed_and_epoch():
    x, y, rows = regression(10)
    orders = {}
    for seed in (0, 1):
        loss = SquaredError()
        history = quietly(loss, (x, y, rows), sgd(loss), batch_size=4, num_epochs=2, seed=seed)
        assert history.num_steps == 6
        assert [len(batch) for batch in loss.rows] == [4, 4, 2] * 2
        for epoch in (0, 1):
            orders[seed, epoch] = tuple(chain(*loss.rows[3 * epoch : 3 * epoch + 3]))
    assert all(sorted(order) == list(range(10)) for order in orders.values())
    assert len(set(orders.values())) == 4


def test_history_holds_the_mean_over_the_data_with_a_short_last_batch():
    x, y, _ = regression(10)
    loss = SquaredError()
    # Nothing moves at a learning rate of 0, so the mean of the epoch is that of the data.
    history = quietly(loss, (x, y), sgd(loss, lr=0.0), batch_size=4)
    assert history.train[0] == pytest.approx(float(loss(x, y).detach()) / 10, rel=1e-12)
    assert history.elbo == [-history.train[0]]
    assert len(history) == 1 and history.stopped == "finished" and history.seconds > 0


def test_the_transform_changes_the_first_tensor_only():
    x, y, _ = regression(8)
    one, two = SquaredError(), SquaredError()
    quietly(one, (2 * x, y), sgd(one))
    quietly(two, (x, y), sgd(two), transform=lambda first: 2 * first)
    assert torch.equal(one.weight, two.weight)


# ---------------------------------------------------------------- Pyro


def test_pairs_keep_their_own_parameters(device):
    losses = [pair_loss(seed).to(device) for seed in (0, 1)]
    data = pixels().bernoulli().to(device)
    for loss in losses:
        before = state_of(loss)
        quietly(loss, data, batch_size=16)
        moved = [n for n, p in loss.named_parameters() if not torch.equal(before[n], p)]
        assert moved == [name for name, _ in loss.named_parameters()]
    assert len(pyro.get_param_store()) == 0
    assert pyro.settings.get("module_local_params") is False


def test_an_autoguide_makes_its_parameters_before_the_optimiser_is_made(device):
    class Mean(PyroModule):
        def forward(self, x):
            mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 10.0))
            with pyro.plate("data", 30, subsample_size=len(x)):
                pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    model = Mean()
    loss = Trace_ELBO(num_particles=8, vectorize_particles=True)(model, AutoNormal(model))
    data = torch.randn(30, device=device) + 3
    history = quietly(loss, data, num_epochs=400, batch_size=30)
    names = [name for name, _ in loss.named_parameters()]
    assert any("loc" in name for name in names) and any("scale" in name for name in names)
    assert history.train[-1] < history.train[0]

    lazy = Trace_ELBO()(model, AutoNormal(model))
    early = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match=r"in none of its groups.*call the loss once"):
        quietly(lazy, data, early)


def test_the_trial_call_leaves_no_trace():
    loss = pair_loss()
    before = state_of(loss)
    stream = torch.get_rng_state()
    quietly(loss, pixels(), num_epochs=0, transform=torch.bernoulli)
    assert_same(before, state_of(loss))
    assert torch.equal(stream, torch.get_rng_state())


# ---------------------------------------------------------------- optimisers


def test_the_scheduler_steps_once_an_epoch():
    x, y, _ = regression(12)
    loss = SquaredError()
    optimizer = sgd(loss)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    quietly(loss, (x, y), optimizer, scheduler=scheduler, num_epochs=5, batch_size=3)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.1**2)


@pytest.mark.parametrize("with_held_out", [False, True])
def test_reduce_on_plateau_sees_the_held_out_loss_or_else_the_training_loss(with_held_out):
    x, y, _ = regression(12)
    loss = SquaredError()
    optimizer = sgd(loss)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    held_out = (x[:4], 5 + y[:4]) if with_held_out else None
    history = quietly(loss, (x, y), optimizer, scheduler=scheduler, held_out=held_out)
    assert scheduler.best == (history.held_out if with_held_out else history.train)[0]


def test_clipping_bounds_the_step():
    x, y, _ = regression(12)
    loss = SquaredError()
    before = loss.weight.detach().clone()
    quietly(loss, (x, y), sgd(loss, lr=1.0), clip_norm=1e-3)
    assert float((loss.weight.detach() - before).norm()) == pytest.approx(1e-3, rel=1e-2)


def test_lbfgs_finds_the_least_squares_solution_in_two_steps():
    x, y, _ = regression(50)
    loss = SquaredError()
    optimizer = torch.optim.LBFGS(
        loss.parameters(),
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-12,
        tolerance_change=1e-14,
    )
    history = quietly(loss, (x, y), optimizer, num_epochs=2, batch_size=50)
    exact = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    assert torch.allclose(loss.weight, exact, rtol=1e-8)
    assert history.num_steps == 2


def test_lbfgs_sees_the_same_noise_within_a_step():
    class Noisy(SquaredError):
        draws: list[float] = []

        def forward(self, x, y):
            if torch.is_grad_enabled():
                self.draws.append(float(torch.rand(())))
            return super().forward(x, y)

    x, y, _ = regression(20)
    loss = Noisy()
    optimizer = torch.optim.LBFGS(loss.parameters(), max_iter=3)
    quietly(loss, (x, y), optimizer, num_epochs=2)
    # More calls than steps, and one value a step.
    assert len(loss.draws) > 2 and len(set(loss.draws)) == 2


# ---------------------------------------------------------------- data loaders


def test_a_loader_gives_the_epochs_it_would_give(device):
    x, y, rows = regression(10)
    seen = []
    for _ in range(2):
        loss = SquaredError().to(device)
        loader = DataLoader(TensorDataset(x, y, rows), batch_size=4, shuffle=True)
        torch.manual_seed(len(seen))  # The order is that of `seed`, whatever the stream is.
        history = quietly(loss, loader, sgd(loss), num_epochs=2, seed=5)
        assert history.num_steps == 6
        seen.append(loss.rows)
    assert seen[0] == seen[1]
    first, second = list(chain(*seen[0][:3])), list(chain(*seen[0][3:]))
    assert sorted(first) == sorted(second) == list(range(10)) and first != second


def test_a_loader_with_a_generator_of_its_own_is_reproducible():
    x, y, rows = regression(10)
    orders = []
    generator = torch.Generator()
    for _ in range(2):
        loss = SquaredError()
        loader = DataLoader(
            TensorDataset(x, y, rows), batch_size=4, shuffle=True, generator=generator
        )
        quietly(loss, loader, sgd(loss))
        orders.append(loss.rows)
    assert orders[0] == orders[1]


def test_a_loader_of_single_tensors():
    loss = pair_loss()
    assert quietly(loss, DataLoader(pixels().bernoulli(), batch_size=16)).num_steps == 3


def test_a_loader_that_is_used_up():
    class Once(IterableDataset):
        def __init__(self):
            self.rows = iter(pixels().bernoulli())

        def __iter__(self):
            return self.rows

    loader = DataLoader(Once(), batch_size=16)
    with pytest.raises(ValueError, match="batches in epoch 2, but the DataLoader gave none"):
        quietly(pair_loss(), loader, num_epochs=2)


# ---------------------------------------------------------------- no waiting for the device


class CountReads(TorchDispatchMode):
    """Counts the values that go from a tensor to Python: each waits for the device."""

    def __init__(self):
        super().__init__()
        self.reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def reads(num_data, check_every):
    x, y, _ = regression(num_data)
    loss = SquaredError()
    with CountReads() as counted:
        quietly(loss, (x, y), sgd(loss), batch_size=1, check_every=check_every, clip_norm=1.0)
    return counted.reads


def test_steps_between_two_looks_read_nothing_from_the_device():
    assert reads(80, 100) == reads(40, 100)
    # The same count sees the looks: so a read at each step would not pass unnoticed.
    assert reads(80, 1) >= reads(40, 1) + 40


# ---------------------------------------------------------------- what is shown


def test_the_bar_shows_minus_the_loss_and_the_held_out_figure(capsys):
    x, y, _ = regression(12)
    loss = SquaredError()
    history = fit(loss, (x, y), sgd(loss), num_epochs=2, held_out=(x, y), label="ELBO")
    shown = capsys.readouterr().err
    assert f"ELBO {-history.train[-1]:.4g}" in shown
    assert f"held out {-history.held_out[-1]:.4g}" in shown
    assert "epoch 2/2" in shown
    fit(loss, (x, y), sgd(loss), num_epochs=1, label="loss")
    assert "loss -" not in capsys.readouterr().err
    quietly(loss, (x, y), sgd(loss))
    assert capsys.readouterr().err == ""


def test_a_report_becomes_one_warning_a_run():
    class Reporting(SquaredError):
        def report(self):
            return "the floor was reached"

    x, y, _ = regression(12)
    loss = Reporting()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quietly(loss, (x, y), sgd(loss), num_epochs=3)
    assert [str(warning.message) for warning in caught] == ["the floor was reached"]


def test_training_modes_are_those_of_before():
    loss = pair_loss()
    loss.model.net[1].eval()
    quietly(loss, pixels(), transform=torch.bernoulli, held_out=pixels(5))
    assert not loss.model.net[1].training and loss.model.net[3].training
    # It was trained in training mode: the statistics moved.
    assert int(loss.model.net[1].num_batches_tracked) == 1
