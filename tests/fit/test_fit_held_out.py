# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Held-out data: evaluated without a trace, and the end of patience."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from pyro.nn import PyroModule
from torch import nn

from pyro_deepgen.fit import fit
from tests.fit.models import SquaredError, assert_same, pair_loss, pixels, regression, state_of
from tests.fit.test_fit_checkpoint import noisy_run


def test_evaluating_does_not_change_the_training():
    plain, _, _ = noisy_run(None, 3)
    watched, _, history = noisy_run(None, 3, held_out=pixels(7))
    assert_same(state_of(plain), state_of(watched))
    assert len(history.held_out) == 3
    assert history.held_out_elbo == [-figure for figure in history.held_out]


def test_it_is_the_mean_over_the_data_in_evaluation_mode_without_gradient():
    x, y, _ = regression(10)
    seen = []

    class Watching(SquaredError):
        def forward(self, x, y):
            seen.append((self.training, torch.is_grad_enabled(), len(x)))
            return super().forward(x, y)

    loss = Watching()
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.01)
    history = fit(
        loss, (x[:4], y[:4]), optimizer, num_epochs=1, batch_size=4, held_out=(x, y), progress=False
    )
    # The trial calls, the step, and ten data in batches of four.
    assert seen == [
        (True, False, 4),
        (False, False, 4),
        (True, True, 4),
        *((False, False, size) for size in (4, 4, 2)),
    ]
    assert history.held_out[0] == pytest.approx(loss(x, y).item() / 10, rel=1e-12)


@pytest.mark.parametrize(
    ("held_out", "words"),
    [
        (pixels(5, 7).bernoulli(), r"held_out that the loss takes .* got the shapes \[\(5, 7\)\]"),
        ((pixels(5), pixels(5)), "batches of held_out have 2 tensors"),
        (pixels(5).double(), r"got held_out of torch.float64 .* give held_out.to\(torch.float32\)"),
    ],
)
def test_held_out_data_that_do_not_fit_are_found_before_the_first_step(held_out, words):
    loss = pair_loss()
    before = state_of(loss)
    with pytest.raises(ValueError, match=words):
        fit(loss, pixels().bernoulli(), num_epochs=1, held_out=held_out, progress=False)
    assert_same(before, state_of(loss))
    assert all(module.training for module in loss.modules())


def test_the_noise_is_the_same_after_every_epoch():
    loss = pair_loss()
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.0)
    settings = {"held_out": pixels(30), "transform": torch.bernoulli, "progress": False}
    loss.model.net[1].momentum = 0.0  # Nothing at all moves between the epochs.
    history = fit(loss, pixels(), optimizer, num_epochs=3, **settings)
    assert len(set(history.held_out)) == 1
    assert len(set(history.train)) == 3


class Scripted(nn.Module):
    """A loss whose held-out values are given; its parameter counts the epochs."""

    def __init__(self, figures):
        super().__init__()
        self.figures = figures
        self.epochs = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        if self.training:
            return -self.epochs * len(x)
        return self.epochs * 0 + self.figures[round(self.epochs.item()) - 1] * len(x)


def scripted(figures, path=None, **settings):
    loss = Scripted(figures)
    optimizer = torch.optim.SGD(loss.parameters(), lr=1.0)
    arguments = {"num_epochs": 9, "patience": 2, "checkpoint": path, "progress": False, **settings}
    history = fit(loss, torch.zeros(4, 1), optimizer, held_out=torch.zeros(4, 1), **arguments)
    return loss.epochs.item(), history


def test_the_end_of_patience_gives_the_best_parameters():
    best, history = scripted([5.0, 3.0, 4.0, 3.0, 1.0])
    assert best == 2
    assert history.held_out == [5.0, 3.0, 4.0, 3.0] and history.stopped == "early"


def test_an_improvement_renews_patience():
    best, history = scripted([5.0, 6.0, 3.0, 4.0, 2.0, 3.0, 2.5, 0.0])
    assert best == 5 and len(history) == 7


def test_not_a_number_is_no_improvement():
    nan = float("nan")
    best, history = scripted([nan, 3.0, nan, nan, 1.0])
    assert best == 2 and len(history) == 4 and history.stopped == "early"


def test_the_best_parameters_come_back_at_the_last_epoch_too():
    best, history = scripted([5.0, 3.0, 4.0], num_epochs=3)
    assert best == 2 and history.stopped == "finished"


def test_without_patience_the_last_parameters_stay():
    last, history = scripted([5.0, 3.0, 4.0, 6.0], num_epochs=4, patience=None)
    assert last == 4 and history.stopped == "finished"


def test_patience_resumes(tmp_path):
    figures = [5.0, 3.0, 4.0, 3.5, 1.0]
    path = tmp_path / "run.pt"
    best, _ = scripted(figures, path, num_epochs=3)
    assert best == 2
    best, history = scripted(figures, path)
    assert best == 2 and len(history) == 4 and history.stopped == "early"
    # Ended, and ended it stays, until there is more patience.
    best, history = scripted(figures, path)
    assert best == 2 and len(history) == 4 and history.stopped == "early"
    best, history = scripted(figures, path, num_epochs=5, patience=3)
    assert best == 5 and len(history) == 5


def test_an_objective_that_insists_on_gradients_is_trained_and_evaluated() -> None:
    """Pyro's TraceEnum_ELBO raises where gradients are off."""

    class Mixture(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.loc = torch.nn.Parameter(torch.tensor([-1.0, 1.0]))

        def forward(self, x: torch.Tensor) -> None:
            loc = self.loc
            with pyro.plate("data", len(x)):
                k = pyro.sample(
                    "k", dist.Categorical(torch.ones(2)), infer={"enumerate": "parallel"}
                )
                pyro.sample("x", dist.Normal(loc[k], 1.0), obs=x)

    class Guide(PyroModule):
        def forward(self, x: torch.Tensor) -> None:
            pass

    x = torch.cat([torch.randn(50) - 3, torch.randn(50) + 3])
    loss = TraceEnum_ELBO(max_plate_nesting=1)(Mixture(), Guide())
    history = fit(loss, x, num_epochs=2, held_out=x, progress=False)
    assert history.held_out[-1] < history.held_out[0]
