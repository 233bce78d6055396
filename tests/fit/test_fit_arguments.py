# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Arguments of the training loop that do not fit together, and what is said of them."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions.constraints import positive
from torch.utils.data import DataLoader, TensorDataset

from pyro_deepgen.datasets import digits
from tests.fit.models import SquaredError, pair_loss, regression
from tests.fit.test_fit_loop import quietly, sgd

X, Y, _ = regression(6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_epochs": -1}, "num_epochs.*at least 0, got -1"),
        ({"batch_size": 0}, "batch_size.*at least 1, got 0"),
        ({"batch_size": 2.0}, "batch_size.*integer"),
        ({"clip_norm": 0.0}, "clip_norm.*positive"),
        ({"patience": 2}, "held_out data with patience"),
        ({"checkpoint_every": 2}, "checkpoint path with checkpoint_every"),
        ({"check_every": 0}, "check_every.*at least 1"),
        ({"held_out": (X, Y[:3])}, r"held_out.*leading size.*\(6, 3\), \(3,\)"),
        ({"data": (X, Y[:3])}, "data.*leading size"),
        ({"data": (X[:0], Y[:0])}, "data.*leading size of at least 1"),
        ({"data": {"x": X}}, "tensor or a tuple of tensors, got dict"),
        ({"data": (X, 3.0)}, "tensor or a tuple of tensors"),
        ({"data": DataLoader([])}, "at least one batch"),
        ({"loss": lambda x, y: x.sum()}, "torch.nn.Module, got function.*Trace_ELBO"),
        ({"loss": nn.Bilinear(3, 1, 2, dtype=torch.float64), "data": (X, Y[:, None])}, "one elem"),
        ({"data": X.numpy()}, "got ndarray; make tensors by torch.from_numpy"),
        ({"data": (X, Y.numpy())}, "make tensors by torch.from_numpy"),
        (
            {"data": TensorDataset(X, Y)},
            r"got TensorDataset; give a DataLoader of it, or data\.ten",
        ),
        ({"held_out": TensorDataset(X, Y)}, r"give its tensors, or held_out\.tensors"),
        ({"data": digits()}, r"got Dataset; give data\.x_train, or data\.x_test"),
        ({"seed": "a"}, "seed to be an integer, got 'a'"),
        ({"seed": True}, "seed to be an integer, got True"),
        (
            {"optimizer": pyro.optim.Adam({"lr": 0.1})},
            r"one of torch.optim, got PyroOptim; make it",
        ),
        ({"optimizer": torch.optim.Adam}, r"one of torch.optim, got type; make it"),
        ({"data": (X, Y, Y, Y)}, r"batches of data have 4 tensors.*5 were given\); give x alone"),
        ({"data": X}, r"data have 1 tensor, passed as loss\(\*batch\).*give the tuple"),
        (
            {"data": DataLoader(TensorDataset(X, Y, Y, Y), batch_size=3)},
            "batches of data have 4 tensors",
        ),
        (
            {"data": (X.float(), Y)},
            r"torch.float64, got data\[0\] of torch.float32 .* give data\[0\]\.to\(torch.float64\)"
            r", or convert the model by \.to\(torch.float32\)",
        ),
        ({"data": ((X > 0).byte(), Y)}, r"got data\[0\] of torch.uint8 .*\.to\(torch.float64\)$"),
        (
            {"data": (X > 0, Y)},
            r"got data\[0\] of torch.bool .* give data\[0\]\.to\(torch.float64\)$",
        ),
        ({"data": ((X > 0).long(), Y)}, r"got data\[0\] of torch.int64"),
        (
            {"loss": pair_loss(), "data": torch.zeros(6, 7, dtype=torch.float64)},
            r"got data of torch.float64 .*; what then fails is: mat1 and mat2 shapes cannot be",
        ),
        ({"loss": nn.MSELoss(), "data": (Y, Y)}, "parameters that require a gradient, got none"),
    ],
)
def test_arguments_that_do_not_fit(settings, words):
    arguments = {"loss": SquaredError(), "data": (X, Y), **settings}
    with pytest.raises(ValueError, match=words):
        quietly(arguments.pop("loss"), arguments.pop("data"), **arguments)


def test_an_error_of_the_shapes_is_left_alone():
    with pytest.raises(RuntimeError, match="size mismatch"):
        quietly(SquaredError(), (X[:, :2], Y))


class Location(PyroModule):
    def forward(self, x):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide_of_params(x):
    loc = pyro.param("loc", torch.zeros(()))
    pyro.sample("z", dist.Normal(loc, pyro.param("scale", torch.ones(()), constraint=positive)))


class GuideOfParams(PyroModule):
    def forward(self, x):
        guide_of_params(x)


class Guide(PyroModule):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))
        self.scale = PyroParam(torch.ones(()), positive)

    def forward(self, x):
        pyro.sample("z", dist.Normal(self.loc, self.scale))


def test_parameters_in_no_module_are_refused():
    """They would not be trained: at the start they are, and at the end."""
    x = torch.ones(20)
    with pytest.raises(ValueError, match=r"loc, scale of pyro.param .* no module.*PyroParam"):
        quietly(Trace_ELBO()(Location(), guide_of_params), x)
    with pytest.raises(ValueError, match=r"got a pyro.param statement in it; .*PyroParam"):
        quietly(Trace_ELBO()(Location(), GuideOfParams()), x)
    with pytest.raises(ValueError, match=r"got none; a plain method .* and a pyro.param statement"):
        quietly(Trace_ELBO()(Location(), lambda x: pyro.sample("z", dist.Normal(0.0, 1.0))), x)
    guide = Guide()
    quietly(Trace_ELBO()(Location(), guide), x, num_epochs=3)
    assert guide.loc != 0 and guide.scale != 1


def test_a_scheduler_of_another_optimiser():
    loss = SquaredError()
    scheduler = torch.optim.lr_scheduler.StepLR(sgd(loss), 1)
    for optimizer in (None, sgd(loss)):
        with pytest.raises(ValueError, match="scheduler to be one of the given optimizer"):
            quietly(loss, (X, Y), optimizer, scheduler=scheduler)


def test_a_loader_has_no_checkpoints_within_an_epoch(tmp_path):
    loader = DataLoader(TensorDataset(X, Y), batch_size=2)
    with pytest.raises(ValueError, match="checkpoint_every=None with a DataLoader"):
        quietly(SquaredError(), loader, checkpoint=tmp_path / "run.pt", checkpoint_every=1)
