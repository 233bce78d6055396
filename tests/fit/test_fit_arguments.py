# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Arguments of the training loop that do not fit together, and what is said of them."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.fit.models import SquaredError, regression
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
        ({"loss": nn.MSELoss(), "data": (Y, Y)}, "parameters that require a gradient, got none"),
    ],
)
def test_arguments_that_do_not_fit(settings, words):
    arguments = {"loss": SquaredError(), "data": (X, Y), **settings}
    with pytest.raises(ValueError, match=words):
        quietly(arguments.pop("loss"), arguments.pop("data"), **arguments)


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
