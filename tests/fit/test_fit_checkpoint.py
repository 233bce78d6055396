# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: a run that is resumed is the run that was not stopped, and a crash harms none."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from pyro_deepgen.fit import fit, keeper
from tests.fit.models import SquaredError, assert_same, pair_loss, pixels, regression, state_of

ROOT = Path(__file__).resolve().parents[2]


def noisy_run(path, num_epochs, device="cpu", loader=False, **settings):
    """Train with all the state there is: moments, schedule, statistics, dropout, binarisation."""
    loss = pair_loss().to(device)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    data = pixels()
    arguments = {"transform": torch.bernoulli, "batch_size": 11, "scheduler": scheduler, **settings}
    if loader:
        data = DataLoader(data, batch_size=11, shuffle=True)
    history = fit(
        loss, data, optimizer, num_epochs=num_epochs, checkpoint=path, progress=False, **arguments
    )
    return loss, optimizer, history


# ---------------------------------------------------------------- exact


@pytest.mark.parametrize("loader", [False, True])
@pytest.mark.parametrize("first", [1, 2])
def test_two_and_two_epochs_are_four_bit_for_bit(tmp_path, loader, first):
    whole, optimizer, history = noisy_run(None, 4, loader=loader)
    path = tmp_path / "new folder" / "run.pt"
    noisy_run(path, first, loader=loader)
    random.seed(99), np.random.seed(99), torch.manual_seed(99)  # Another process.
    resumed, resumed_optimizer, resumed_history = noisy_run(path, 4, loader=loader)
    assert_same(state_of(whole), state_of(resumed))
    assert resumed_history.train == history.train and resumed_history.num_steps == 16
    for one, other in zip(optimizer.state.values(), resumed_optimizer.state.values(), strict=True):
        assert_same(one, other)
    assert optimizer.param_groups[0]["lr"] == resumed_optimizer.param_groups[0]["lr"]


def test_the_comparison_sees_a_stream_that_is_not_put_back(tmp_path, monkeypatch):
    whole, _, _ = noisy_run(None, 4)
    noisy_run(tmp_path / "run.pt", 2)
    broken = SimpleNamespace(streams=keeper.rng.streams, restore_streams=lambda *_: None)
    monkeypatch.setattr(keeper, "rng", broken)
    resumed, _, _ = noisy_run(tmp_path / "run.pt", 4)
    assert not torch.equal(whole.guide.net.weight, resumed.guide.net.weight)


def test_python_and_numpy_streams_are_kept_too(tmp_path):
    drawn = []

    def transform(x):
        drawn.append((random.random(), np.random.rand(), np.random.randn()))
        return x.round()

    random.seed(1), np.random.seed(1)
    start = random.getstate(), np.random.get_state()
    noisy_run(None, 2, transform=transform)
    whole = drawn[1:]  # The first draw is that of the trial call.
    drawn.clear()
    random.setstate(start[0]), np.random.set_state(start[1])
    noisy_run(tmp_path / "run.pt", 1, transform=transform)
    first = drawn[1:]
    drawn.clear()
    random.seed(2), np.random.seed(2)
    noisy_run(tmp_path / "run.pt", 2, transform=transform)
    assert first + drawn[1:] == whole


def test_lbfgs_resumes(tmp_path):
    x, y, _ = regression(30)

    def run(path, num_epochs):
        loss = SquaredError()
        optimizer = torch.optim.LBFGS(loss.parameters(), lr=0.3, max_iter=2)
        fit(loss, (x, y), optimizer, num_epochs=num_epochs, checkpoint=path, progress=False)
        return loss.weight

    whole = run(None, 4)
    run(tmp_path / "run.pt", 2)
    assert torch.equal(run(tmp_path / "run.pt", 4), whole)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=5),
        lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.5**epoch),
        lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=10.0),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 0.1), lr_scheduler.ExponentialLR(o, 0.5)], [2]
        ),
    ],
)
def test_schedulers_resume(tmp_path, make):
    x, y, _ = regression(30)

    def run(path, num_epochs):
        loss = SquaredError()
        optimizer = torch.optim.SGD(loss.parameters(), lr=0.01, momentum=0.9)
        settings = {"scheduler": make(optimizer), "checkpoint": path, "progress": False}
        fit(loss, (x, y), optimizer, num_epochs=num_epochs, **settings)
        return loss.weight

    whole = run(None, 4)
    run(tmp_path / "run.pt", 2)
    assert torch.equal(run(tmp_path / "run.pt", 4), whole)


def test_a_finished_run_returns_at_once(tmp_path):
    loss, _, history = noisy_run(tmp_path / "run.pt", 2)
    written = (tmp_path / "run.pt").stat().st_mtime_ns
    again, _, history_again = noisy_run(tmp_path / "run.pt", 2)
    assert history_again == history
    assert_same(state_of(loss), state_of(again))
    assert (tmp_path / "run.pt").stat().st_mtime_ns == written


def test_a_run_on_the_device_resumes(tmp_path, device):
    noisy_run(tmp_path / "run.pt", 1, device)
    loss, _, history = noisy_run(tmp_path / "run.pt", 2, device)
    assert len(history) == 2
    assert next(loss.parameters()).device.type == device.type


def test_resuming_is_told(tmp_path, capsys):
    x, y, _ = regression(12)

    def run(num_epochs, progress):
        capsys.readouterr()
        path = tmp_path / "run.pt"
        settings = {"num_epochs": num_epochs, "batch_size": 4, "checkpoint": path}
        fit(SquaredError(), (x, y), progress=progress, **settings)
        return capsys.readouterr().err

    assert "resumed" not in run(2, True)
    told = run(3, True)
    assert f"\rresumed from {tmp_path / 'run.pt'} at epoch 2, step 6\n" in told
    assert "at epoch 3, step 9; nothing left to do: 3 epochs done\n" in run(3, True)
    assert run(4, False) == ""


# ---------------------------------------------------------------- killed


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    moments = ("epoch", "write", "replace")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = str(Path(__file__).with_name("killed_run.py"))
    killed = {
        moment: subprocess.Popen(
            [sys.executable, script, str(tmp_path / f"{moment}.pt"), moment], env=environment
        )
        for moment in moments
    }
    whole, _, whole_history = noisy_run(None, 4)
    for moment, process in killed.items():
        assert process.wait(timeout=120) == -signal.SIGKILL
        path = tmp_path / f"{moment}.pt"
        left = path.with_name(path.name + ".tmp")
        assert left.exists() == (moment != "epoch")
        position = keeper.checkpoint.read(path)["position"]
        # Killed in the second or third epoch of four steps; saved within or at the end of one.
        assert 4 <= position["history"]["num_steps"] <= 9
        resumed, _, history = noisy_run(path, 4, checkpoint_every=2)
        assert history.num_steps == 16 and history.train == whole_history.train
        assert_same(state_of(whole), state_of(resumed))
        assert not left.exists()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    noisy_run(path, 1)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        noisy_run(path, 2)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
