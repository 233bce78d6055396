# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The script of the WaveNet on sound: its sound, its baseline, and a short run that resumes."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.reproduce import wavenet
from benchmarks.reproduce.sound import chorales, linear, pictures
from pyro_deepgen.datasets import MuLaw


def roll(*notes: tuple[int, int, int], steps: int = 6) -> torch.Tensor:
    """A piano roll of notes (number, first step, end)."""
    made = torch.zeros(steps, chorales.NUM_NOTES)
    for note, start, end in notes:
        made[start:end, note] = 1.0
    return made


def test_equal_notes_in_a_row_are_held() -> None:
    notes = [(3, 0, 2), (3, 4, 6), (10, 1, 5)]
    assert sorted(chorales.held_notes(roll(*notes))) == notes


def test_a_tone_has_its_pitch_and_its_time() -> None:
    note = 69 + chorales.OCTAVE - chorales.LOWEST  # sounds as 440 Hz within half a semitone
    sound = chorales.render(roll((note, 2, 4)), seed=0)
    assert sound.shape == (6 * chorales.FRAME,)
    start = 2 * chorales.FRAME
    assert not bool(sound[:start].any())
    assert float(sound[start + 100 : start + 2 * chorales.FRAME].square().mean()) > 1e-3
    assert float(sound[start + 3 * chorales.FRAME :].abs().max()) < 1e-2
    power = torch.fft.rfft(sound[start:][: 2 * chorales.FRAME]).abs()
    pitch = float(power.argmax()) * chorales.RATE / (2 * chorales.FRAME)
    assert abs(12 * math.log2(pitch / 440)) < 0.6
    assert torch.equal(sound, chorales.render(roll((note, 2, 4)), seed=0))
    assert not torch.equal(sound, chorales.render(roll((note, 2, 4)), seed=1))


def test_linear_prediction_finds_the_recurrence() -> None:
    # x_t = 1.6 x_{t-1} - 0.8 x_{t-2} + noise.
    noise, x = torch.randn(40, 3000), torch.zeros(40, 3000)
    for t in range(2, 3000):
        x[:, t] = 1.6 * x[:, t - 1] - 0.8 * x[:, t - 2] + noise[:, t]
    weights = linear.linear_predictor(x, 5)
    exact = torch.tensor([1.6, -0.8, 0.0, 0.0, 0.0], dtype=torch.float64)
    r = linear.autocorrelation(x, 4) / x.numel()
    lags = torch.arange(5)
    error = (r[(lags[:, None] - lags).abs()].inverse().diagonal() / x.numel()).sqrt()
    assert bool(((weights - exact).abs() < 4.5 * error + 0.005).all())  # 0.005: ends of pieces
    errors = (x - linear.predict(x, exact))[:, 2:]
    torch.testing.assert_close(errors, noise[:, 2:], atol=1e-3, rtol=0)


@pytest.mark.parametrize(("components", "growing"), [(1, False), (3, True)])
def test_the_law_of_errors_sums_to_one_and_learns(components: int, growing: bool) -> None:
    law = MuLaw(256)
    errors = linear.ErrorLaw(law, components, growing).double()
    errors.edges = torch.cat([errors.edges[:1], law.edges(errors.logits), errors.edges[-1:]])
    prediction = torch.tensor([-0.9, 0.0, 0.01, 0.4]).double()
    with torch.no_grad():
        for parameter in errors.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        p = errors.log_prob(torch.arange(256).unsqueeze(-1), prediction).exp()
    torch.testing.assert_close(p.sum(0), torch.ones(4).double(), atol=1e-8, rtol=0)
    around = 0.5 * torch.rand(5000).double() - 0.25
    noise = 0.02 * torch.logit(torch.rand(5000).double())
    levels = law.quantize(around + noise)
    errors.learn(levels, around, 200)
    exact = linear.ErrorLaw(law, 1, False).double()
    with torch.no_grad():
        exact.base.fill_(math.log(math.expm1(0.02)))
        gap = exact.log_prob(levels, around).mean() - errors.log_prob(levels, around).mean()
    assert float(gap) < 0.02


def test_a_short_run_is_finished_once_and_then_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_file: Callable[[str], Path]
) -> None:
    data_file(chorales.FILE)
    small = replace(
        wavenet.PRESETS["short"],
        layers=4,
        train_chorales=2,
        rounds=2,
        updates=3,
        test_chorales=2,
        test_frames=2,
        error_steps=20,
        speed_steps=16,
    )
    monkeypatch.setitem(wavenet.PRESETS, "short", small)
    call = ["--preset", "short", "--folder", str(tmp_path / "runs"), "--results", str(tmp_path)]
    wavenet.main(call)
    page = (tmp_path / "wavenet-short.md").read_text()
    for name in ("histogram of levels", "one logistic, order 17", wavenet.ALONE, wavenet.GIVEN):
        assert f"{name} | " in page
    assert "nan" not in page
    assert (tmp_path / "wavenet-short.png").stat().st_size < 400_000
    assert (tmp_path / "runs" / "wavenet-short-2.wav").stat().st_size == 44 + 2 * 2000
    monkeypatch.delattr(wavenet, "fit")
    wavenet.main(call)
    again = (tmp_path / "wavenet-short.md").read_text()
    # The time of drawing, and of the baseline, is measured anew.
    kept = [line for line in page.splitlines() if line.startswith(f"| {wavenet.ALONE}")]
    assert kept == [line for line in again.splitlines() if line.startswith(f"| {wavenet.ALONE}")]


def test_spectrograms_show_where_the_tone_is() -> None:
    t = torch.arange(8000) / 4000
    decibels = pictures.spectrogram(torch.sin(2 * math.pi * 1000 * t))
    loudest = decibels[:, 20].argmax() * 2000 / (len(decibels) - 1)
    assert float(loudest) == pytest.approx(1000, abs=10)
