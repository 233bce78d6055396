# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: exact, atomic, and refused where they are damaged or of another run."""

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


# ---------------------------------------------------------------- refused


def test_a_damaged_file_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "run.pt"
    noisy_run(path, 1)
    good = path.read_bytes()
    whole = keeper.checkpoint.read(path)
    for length in (0, 1, 100, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(ValueError, match=r"damaged, truncated.*delete it or give another"):
            noisy_run(path, 2)
        assert path.read_bytes() == good[:length]
    # Whatever byte is changed, what is read is refused or is what was written.
    refused = 0
    positions = torch.linspace(0, len(good) - 1, 200).long().tolist()
    for position in positions:
        changed = bytearray(good)
        changed[position] ^= 0xFF
        path.write_bytes(changed)
        try:
            state = keeper.checkpoint.read(path)
        except ValueError:
            refused += 1
        else:
            assert_same(state["loss"], whole["loss"])
            assert state["position"] == whole["position"]
            assert torch.equal(
                state["streams"][0]["torch"]["cpu"], whole["streams"][0]["torch"]["cpu"]
            )
    assert refused > len(positions) / 2


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="no checkpoint of fit"):
        noisy_run(path, 1)
    # A pickle that would run code is not run.
    torch.save({"format": 1, "code": SimpleNamespace()}, path)
    with pytest.raises(ValueError, match="unreadable"):
        noisy_run(path, 1)
    with pytest.raises(ValueError, match="got the folder"):
        noisy_run(tmp_path, 1)


def test_a_state_that_could_not_be_read_back_is_refused_when_written(tmp_path):
    class Odd(SquaredError):
        def get_extra_state(self):
            return SimpleNamespace()

        def set_extra_state(self, state):
            pass

    x, y, _ = regression(6)
    with pytest.raises(ValueError, match="cannot give back safely"):
        fit(Odd(), (x, y), num_epochs=1, checkpoint=tmp_path / "run.pt", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"batch_size": 10}, "batch_size was 11 and is 10"),
        ({"scheduler": None}, "scheduler was 'StepLR' and is None"),
    ],
)
def test_other_settings_are_refused(tmp_path, settings, words):
    noisy_run(tmp_path / "run.pt", 1)
    with pytest.raises(ValueError, match=f"{words}.*same settings, or give another path"):
        noisy_run(tmp_path / "run.pt", 2, **settings)


def test_other_data_model_and_optimiser_are_refused(tmp_path):
    path = tmp_path / "run.pt"

    def run(num_data=6, dim=3, kind=torch.optim.Adam, groups=1):
        x, y, _ = regression(num_data, dim)
        loss = SquaredError(dim)
        extra = [{"params": [torch.zeros(1)]}] * (groups - 1)
        optimizer = kind([{"params": loss.parameters()}, *extra], lr=0.1)
        fit(loss, (x, y), optimizer, num_epochs=1, checkpoint=path, progress=False)

    run()
    with pytest.raises(ValueError, match="number of data was 6 and is 7"):
        run(num_data=7)
    with pytest.raises(ValueError, match=r"another model: 'weight' is of shape \(3,\) in the file"):
        run(dim=2)
    with pytest.raises(ValueError, match="optimizer was 'Adam' and is 'SGD'"):
        run(kind=torch.optim.SGD)
    with pytest.raises(ValueError, match="another optimizer"):
        run(groups=2)
    with pytest.raises(ValueError, match=r"another model: 'guide.net.bias' is missing"):
        noisy_run(path, 1)
