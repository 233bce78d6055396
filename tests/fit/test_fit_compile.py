# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Training through recorded graphs: that of the program itself, whatever else is asked for."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from pyro_deepgen.fit import History, fit, gradient
from pyro_deepgen.infer import CompiledLoss, ImportanceWeightedELBO
from pyro_deepgen.latent import GaussianLikelihood, semi_supervised_vae, vae
from tests.fit.models import (
    SquaredError,
    assert_same,
    pair_loss,
    pixels,
    regression,
    state_of,
)

pytestmark = pytest.mark.usefixtures("float64")


class Shared(nn.Module):
    """Parameters whose gradients are one tensor (a, b), all one number (c), or transposed (d)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.full((3,), v)) for v in (1.0, 2.0, 3.0))
        self.d = nn.Parameter(torch.arange(6.0).reshape(3, 2))

    def forward(self, x, y):
        first = (self.a + self.b - x).square().sum() + self.c.sum()
        return first + (self.d.t().square() * x[:2]).sum() + y.sum()


class Mean(PyroModule):
    """A model whose guide makes its parameters at first use."""

    def forward(self, x):
        mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 10.0))
        with pyro.plate("data", 40, subsample_size=len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0).expand((6,)).to_event(1), obs=x)


def elbo(kind, make, **settings):
    pair = make(**settings)
    return kind(pair.model, pair.guide)


def autoguide():
    model = Mean()
    return Trace_ELBO()(model, AutoNormal(model))


def images(num_data=40):
    return pixels(num_data).double()


def partly_labelled():
    labels = torch.arange(40) % 4 - 1
    return images().bernoulli(), labels


small = partial(elbo, make=partial(vae, 6, 2, (8,)))
semi = partial(elbo, make=partial(semi_supervised_vae, 6, 2, 3, (8,)))
adam, steepest = partial(Adam, lr=0.01), partial(SGD, lr=0.05, momentum=0.5)
lbfgs = partial(torch.optim.LBFGS, lr=0.5, max_iter=3, line_search_fn="strong_wolfe")
stepped = {"clip_norm": 0.3, "scheduler": partial(StepLR, step_size=1, gamma=0.5)}
plateau = {"clip_norm": 0.3, "scheduler": partial(ReduceLROnPlateau, patience=0, threshold=9.0)}
noisy = {"transform": torch.bernoulli}

# The batch size of 11 leaves 7 data for the last one.
RUNS = {
    "vae": (partial(small, Trace_ELBO()), images, adam, noisy),
    "iwae": (partial(small, ImportanceWeightedELBO(5)), images, adam, noisy | stepped),
    "norm and dropout": (pair_loss, images, steepest, noisy | {"held_out": images(9)}),
    "lbfgs": (partial(small, Trace_ELBO()), images, lbfgs, noisy),
    "no Pyro": (SquaredError, lambda: regression(40)[:2], steepest, plateau),
    "labels": (partial(semi, TraceEnum_ELBO(max_plate_nesting=1)), partly_labelled, adam, {}),
    "score function": (partial(semi, Trace_ELBO()), partly_labelled, adam, {}),
    "autoguide": (autoguide, images, None, stepped | {"scheduler": None}),
    "shared, clipped": (Shared, lambda: (torch.rand(33, 3), torch.rand(33)), steepest, stepped),
    "shared, lbfgs": (Shared, lambda: (torch.rand(33, 3), torch.rand(33)), lbfgs, {"clip_norm": 1}),
}
ONE_SHAPE = [name for name in RUNS if name.startswith("shared")]


def train(name, device="cpu", **settings):
    """Train a row of the table; return the loss and the history."""
    make, data, optimizer, others = RUNS[name]
    pyro.set_rng_seed(1)
    loss, tensors = make().to(device), data()
    if name == "autoguide":
        tensors = tensors.to(device)  # There are no parameters yet whose device could count.
    settings = {"num_epochs": 3, "batch_size": 11, "progress": False, **others, **settings}
    optimizer = optimizer and optimizer(loss.parameters())
    if settings.get("scheduler"):
        settings["scheduler"] = settings["scheduler"](optimizer)
    return loss, fit(loss, tensors, optimizer, **settings)


@pytest.fixture
def graphs(monkeypatch):
    """Return the list of the compiled losses that are made."""
    made = []

    class Kept(CompiledLoss):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(gradient, "CompiledLoss", Kept)
    return made


# ---------------------------------------------------------------- the same as without


@pytest.mark.parametrize("name", RUNS)
def test_the_run_is_that_of_the_program(graphs, name, device):
    eager, expected = train(name, device)
    start = state_of(train(name, device, num_epochs=0)[0])
    loss, history = train(name, device, compile="recorded")
    assert history.train == pytest.approx(expected.train, rel=1e-10)
    assert history.held_out == pytest.approx(expected.held_out, rel=1e-10)
    ours, theirs = state_of(loss), state_of(eager)
    for key, value in theirs.items():
        assert torch.allclose(ours[key], value, rtol=1e-10, atol=1e-10), key
    # The table would see nothing if nothing moved.
    assert any(not torch.equal(start[key], value) for key, value in theirs.items())
    # A graph for the shape of a whole batch and one for the last, however many epochs.
    assert [made.num_recordings for made in graphs] == [1 if name in ONE_SHAPE else 2]


def test_the_comparison_sees_gradients_that_share_memory(monkeypatch):
    def trained(compile):
        loss = Shared()
        loss.c.requires_grad_(False)
        loss.d.requires_grad_(False)
        data = torch.ones(33, 3), torch.ones(33)
        fit(loss, data, steepest(loss.parameters()), num_epochs=1, progress=False, compile=compile)
        return loss.a.detach()

    expected = trained(False)
    assert torch.allclose(trained("recorded"), expected, rtol=1e-10)
    monkeypatch.setattr(torch, "_foreach_div", lambda tensors, n: [t.div_(n) for t in tensors])
    assert not torch.allclose(trained("recorded"), expected, rtol=0.1)


def test_python_runs_only_while_a_graph_is_made_and_on_held_out_data():
    class Counted(SquaredError):
        def forward(self, x, y):
            calls.append(self.training)
            return super().forward(x, y)

    counts = []
    x, y, _ = regression(20)
    for num_epochs in (1, 4):
        calls = []
        settings = {"batch_size": 10, "held_out": (x, y), "compile": "recorded", "progress": False}
        fit(Counted(), (x, y), num_epochs=num_epochs, **settings)
        counts.append((calls.count(True), calls.count(False)))
    (training, _), (same, evaluation) = counts
    # Two batches an epoch, and the trial.
    assert training == same and evaluation == 4 * 2 + 1


def test_a_report_of_a_recorded_loss():
    """What a likelihood notes in training, in a buffer, it notes in a graph too."""
    likelihood = GaussianLikelihood("shared", scale=0.1001, floor=0.1)
    pair = vae(6, 2, (8,), likelihood=likelihood)
    loss = Trace_ELBO()(pair.model, pair.guide)
    still = SGD(loss.parameters(), lr=0.0)
    with pytest.warns(UserWarning, match="the floor 0.1 of the Gaussian likelihood"):
        fit(loss, images(), still, num_epochs=1, progress=False, compile="recorded")


class Twice(SGD):
    """Asks for the loss twice a step, at the same parameters."""

    def step(self, closure):
        self.pairs = [*getattr(self, "pairs", []), (float(closure()), float(closure()))]
        super().step()


def test_the_noise_stays_within_a_step_and_changes_between_steps():
    loss = small(Trace_ELBO())
    optimizer = Twice(loss.parameters(), lr=0.0)
    settings = {"num_epochs": 3, "batch_size": 40, "progress": False, "compile": "recorded"}
    fit(loss, images().bernoulli(), optimizer, **settings)
    assert all(one == other for one, other in optimizer.pairs)
    assert len({one for one, _ in optimizer.pairs}) == 3


# ---------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("name", ["iwae", "norm and dropout", "lbfgs"])
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, name):
    settings = {"compile": "recorded", "checkpoint": tmp_path / "run.pt"}
    whole, expected = train(name, num_epochs=4, compile="recorded")
    train(name, num_epochs=1, **settings)
    train(name, num_epochs=2, **settings, checkpoint_every=3)
    resumed, history = train(name, num_epochs=4, **settings)
    assert history.train == expected.train
    assert_same(state_of(whole), state_of(resumed))


def test_compile_may_change_on_the_way(tmp_path):
    path = tmp_path / "run.pt"
    _, expected = train("vae", num_epochs=4)
    for num_epochs, compile in enumerate((False, "recorded", "eager", False), start=1):
        _, history = train("vae", num_epochs=num_epochs, compile=compile, checkpoint=path)
    assert history.train == pytest.approx(expected.train, rel=1e-10)


def test_a_history_of_an_earlier_version():
    values = History(train=[2.0]).to_dict()
    del values["compile_seconds"]
    assert History.from_dict(values) == History(train=[2.0])


@pytest.mark.slow
def test_the_compiler(tmp_path):
    """Repeatable within a step, and resumable bit for bit, with all the noise there is."""

    def run(num_epochs, path=None):
        loss = pair_loss()
        optimizer = Twice(loss.parameters(), lr=0.05)
        settings = {"batch_size": 10, "progress": False, "compile": True, **noisy}
        settings |= {"num_epochs": num_epochs, "checkpoint": path, "held_out": images(9)}
        return loss, fit(loss, images(), optimizer, **settings), optimizer.pairs

    loss, history, pairs = run(3)
    assert all(one == other for one, other in pairs)
    assert len({one for one, _ in pairs}) == 12
    assert 0 < history.compile_seconds < history.seconds
    run(1, path=tmp_path / "run.pt")
    resumed, resumed_history, _ = run(3, path=tmp_path / "run.pt")
    assert resumed_history.train == history.train
    assert_same(state_of(loss), state_of(resumed))
