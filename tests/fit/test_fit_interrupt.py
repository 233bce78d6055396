# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C: the step is finished, the state saved, the history returned."""

import os
import signal
import threading
import warnings

import pytest
import torch

from pyro_deepgen.fit import fit
from tests.fit.models import SquaredError, assert_same, regression, state_of
from tests.fit.test_fit_checkpoint import noisy_run


class CtrlC:
    """A transform that presses Ctrl-C at some calls (the first is the trial call)."""

    def __init__(self, *calls):
        self.calls, self.number = calls, 0

    def __call__(self, x):
        self.number += 1
        for call in self.calls:
            if call == self.number:
                os.kill(os.getpid(), signal.SIGINT)
        return torch.bernoulli(x)


def test_a_run_interrupted_within_an_epoch_goes_on_bit_for_bit(tmp_path, capsys):
    whole, _, whole_history = noisy_run(None, 3)
    handler = signal.getsignal(signal.SIGINT)
    path = tmp_path / "run.pt"
    _, _, history = noisy_run(path, 3, transform=CtrlC(7))
    assert history.stopped == "interrupted" and history.num_steps == 6 and len(history) == 1
    assert f"{path}, of step 6" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is handler
    resumed, _, history = noisy_run(path, 3)
    assert history.stopped == "finished" and history.num_steps == 12
    assert history.train == whole_history.train
    assert_same(state_of(whole), state_of(resumed))


@pytest.mark.parametrize("call", [4, 5])
def test_at_the_end_of_an_epoch(tmp_path, call):
    """Steps 3 and 4 of the first epoch, which has four."""
    whole, _, whole_history = noisy_run(None, 2)
    _, _, history = noisy_run(tmp_path / "run.pt", 2, transform=CtrlC(call))
    assert history.num_steps == call - 1
    with warnings.catch_warnings():
        # The schedule goes on without a step in this process, of which PyTorch would warn.
        warnings.simplefilter("error")
        resumed, _, history = noisy_run(tmp_path / "run.pt", 2)
    assert len(history) == 2
    assert history.train == whole_history.train
    assert_same(state_of(whole), state_of(resumed))


def test_a_loader_goes_on_from_the_last_whole_epoch(tmp_path, capsys):
    whole, _, _ = noisy_run(None, 3, loader=True)
    _, _, history = noisy_run(tmp_path / "run.pt", 3, loader=True, transform=CtrlC(7))
    assert history.stopped == "interrupted" and history.num_steps == 6
    assert "of step 4" in capsys.readouterr().err
    resumed, _, _ = noisy_run(tmp_path / "run.pt", 3, loader=True)
    assert_same(state_of(whole), state_of(resumed))


def test_without_a_checkpoint_the_history_still_returns(capsys):
    _, _, history = noisy_run(None, 3, transform=CtrlC(2))
    assert history.stopped == "interrupted" and history.num_steps == 1
    assert "no checkpoint was asked for" in capsys.readouterr().err


def test_the_second_one_raises_at_once(tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        noisy_run(tmp_path / "run.pt", 3, transform=CtrlC(7, 7))
    assert signal.getsignal(signal.SIGINT) is handler


def test_outside_the_main_thread_nothing_is_installed():
    x, y, _ = regression(6)
    handler = signal.getsignal(signal.SIGINT)
    seen = []

    def run():
        loss = SquaredError()
        loss.register_forward_hook(lambda *_: seen.append(signal.getsignal(signal.SIGINT)))
        seen.append(fit(loss, (x, y), num_epochs=1, progress=False).stopped)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [handler, handler, "finished"]
