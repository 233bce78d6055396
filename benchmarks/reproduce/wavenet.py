# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A WaveNet on sound: bits a sample beside a linear predictor that sees as far back.

    python benchmarks/reproduce/wavenet.py                  # 20 minutes of one CPU core
    python benchmarks/reproduce/wavenet.py --preset short   # a minute: does it run?

The sound is real music, synthesised: the JSB chorales (``jsb_chorales.npz`` in the folder that
``PYRO_DEEPGEN_DATA`` names), each held note a tone with six harmonics, vibrato, a soft start and a
loudness of its own, each chorale with its own tuning, an octave low, at 4,000 samples a second.
Amplitudes are quantised by the mu-law to 256 levels.

Two WaveNets learn pieces of four time steps (one second) of the training split: one of the sound
alone, and one given the piano roll as local context; some pieces at random a round, and the rate
of Adam falls from round to round by a cosine. The figure is minus the log-probability of a
sample, in nats and bits, over the start of each test chorale, in one pass (at its beginning all
models see zeros). Beside it: the histogram of levels, and linear prediction by least squares from
as many samples as a WaveNet sees, whose errors have a mixture of logistic distributions on the
same levels.

Checkpoints and finished parts are kept in ``--folder``: the script resumes where it was stopped.
It writes ``wavenet-PRESET.md`` and ``wavenet-PRESET.png`` to ``--results``, and the sounds of the
picture as ``.wav`` to ``--folder``.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyro
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

if not __package__:  # started as a file: the shared parts are found from the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.reproduce.sound import chorales, linear, pictures
from benchmarks.reproduce.sound.page import Row, differences, mean_and_error, rows_of_table
from pyro_deepgen.autoregressive import WaveNet
from pyro_deepgen.datasets import MuLaw
from pyro_deepgen.fit import fit

HERE = Path(__file__).parent
LAW = MuLaw(256)
ALONE, GIVEN = "WaveNet", "WaveNet given the piano roll"


@dataclass(frozen=True)
class Preset:
    """Sizes of models, data and training."""

    layers: int
    channels: int
    skip_channels: int
    train_chorales: int
    train_frames: int
    rounds: int
    updates: int  # of a round
    batch_size: int
    rate: float
    test_chorales: int
    test_frames: int
    error_steps: int
    speed_steps: int

    @property
    def dilations(self) -> tuple[int, ...]:
        """One stack of dilations 1, 2, 4, ..."""
        return tuple(2**i for i in range(self.layers))


PRESETS = {
    "short": Preset(7, 16, 32, 8, 2, 4, 30, 4, 4e-3, 4, 8, 100, 128),
    "reproduction": Preset(10, 32, 64, 229, 4, 20, 110, 2, 3e-3, 77, 32, 500, 1024),
}


class Loss(nn.Module):
    """Minus the log-probability of pieces, in nats a sample."""

    def __init__(self, wavenet: WaveNet) -> None:
        super().__init__()
        self.wavenet = wavenet

    def forward(self, levels: torch.Tensor, notes: torch.Tensor) -> torch.Tensor:
        """Sum over pieces of levels ``(N, T)`` and notes ``(N, T / FRAME, NUM_NOTES)``."""
        net = self.wavenet.of_length(levels.shape[-1])
        given = net.condition(local=notes) if net.local_dim else net
        return -given.log_prob(levels).sum() / levels.shape[-1]


def make_wavenet(name: str, preset: Preset) -> WaveNet:
    """One of the two models."""
    return WaveNet(
        preset.train_frames * chorales.FRAME,
        channels=preset.channels,
        skip_channels=preset.skip_channels,
        dilations=preset.dilations,
        local_dim=chorales.NUM_NOTES if name == GIVEN else 0,
        local_rate=chorales.FRAME,
        validate_args=False,
    )


def run_wavenet(
    name: str, train: chorales.Sound, test: chorales.Sound, args: argparse.Namespace
) -> tuple[WaveNet, Row]:
    """Train and test a WaveNet, or read it back."""
    preset = PRESETS[args.preset]
    stem = f"{args.preset}-{'given' if name == GIVEN else 'alone'}-{preset.rounds}-{args.seed}"
    done = args.folder / f"{stem}.result.pt"
    pyro.set_rng_seed(args.seed)
    wavenet = make_wavenet(name, preset).to(args.device)
    if done.exists():
        saved = torch.load(done, weights_only=True)
        wavenet.load_state_dict(saved.pop("state"))
        return wavenet, Row(**saved)
    loss = Loss(wavenet)
    levels = LAW.quantize(train.amplitudes).to(args.device)
    data = TensorDataset(levels, train.notes.to(args.device))
    # A round takes some pieces at random: the rate falls from round to round.
    sampler = RandomSampler(data, num_samples=preset.updates * preset.batch_size)
    optimizer = torch.optim.Adam(loss.parameters(), preset.rate)
    cosine = lambda i: 0.52 + 0.48 * math.cos(math.pi * i / preset.rounds)  # noqa: E731
    history = fit(
        loss,
        DataLoader(data, preset.batch_size, sampler=sampler),
        optimizer,
        num_epochs=preset.rounds,
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, cosine),
        clip_norm=1.0,
        checkpoint=args.folder / f"{stem}.pt",
        seed=args.seed,
        label=f"{name}, minus nats a sample",
    )
    clock = time.perf_counter()
    row = Row(
        nats_of_pieces(loss, test, args.device),
        sum(p.numel() for p in wavenet.parameters()),
        history.num_steps,
        history.seconds / 60,
        (time.perf_counter() - clock) / 60,
    )
    torch.save({**vars(row), "state": wavenet.state_dict()}, done)
    return wavenet, row


@torch.no_grad()
def nats_of_pieces(loss: Loss, test: chorales.Sound, device: torch.device) -> torch.Tensor:
    """Nats a sample of each test piece, in one pass each."""
    loss.eval()
    levels = LAW.quantize(test.amplitudes)
    pieces = zip(levels.split(1), test.notes.split(1), strict=True)
    return torch.stack([loss(x.to(device), y.to(device)).double().cpu() for x, y in pieces])


def baselines(
    train: chorales.Sound, test: chorales.Sound, order: int, args: argparse.Namespace
) -> dict[str, Row]:
    """The histogram of levels, and linear prediction with two laws of its errors."""
    preset = PRESETS[args.preset]
    levels, tested = LAW.quantize(train.amplitudes), LAW.quantize(test.amplitudes)
    counts = torch.bincount(levels.flatten(), minlength=LAW.num_levels).double() + 1
    rows = {
        "histogram of levels": Row(
            -(counts / counts.sum()).log()[tested].mean(-1), LAW.num_levels - 1, 0, 0.0, 0.0
        )
    }
    clock = time.perf_counter()
    weights = linear.linear_predictor(LAW.restore(levels), order)
    # The laws learn from some pieces only: they have few parameters.
    some = torch.randperm(len(levels))[:200]
    predicted, aim = (linear.predict(LAW.restore(x), weights) for x in (levels[some], tested))
    solving = (time.perf_counter() - clock) / 60
    for name, components, growing in (
        ("linear prediction, one logistic", 1, False),
        ("linear prediction, mixture of 5 whose scales grow with the amplitude", 5, True),
    ):
        clock = time.perf_counter()
        law = linear.ErrorLaw(LAW, components, growing)
        law.learn(levels[some].flatten(), predicted.flatten(), preset.error_steps)
        minutes = solving + (time.perf_counter() - clock) / 60
        with torch.no_grad():
            nats = [-law.log_prob(x, y).double().mean() for x, y in zip(tested, aim, strict=True)]
        size = order + sum(p.numel() for p in law.parameters())
        rows[f"{name}, order {order}"] = Row(
            torch.stack(nats), size, preset.error_steps, minutes, 0.0
        )
    return rows


def continued(
    nets: dict[str, WaveNet], test: chorales.Sound, args: argparse.Namespace
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """A test piece, and what each model makes of its first quarter; seconds that drawing took."""
    levels, notes = LAW.quantize(test.amplitudes[args.piece]), test.notes[args.piece]
    known = torch.arange(len(levels)) < len(levels) // 4
    sounds, seconds = {"test chorale": LAW.restore(levels)}, {}
    for name, trained in nets.items():
        net = trained.of_length(len(levels)).eval()
        if net.local_dim:
            net = net.condition(local=notes.to(args.device))
        pyro.set_rng_seed(args.seed)
        clock = time.perf_counter()
        drawn = net.impute(levels.to(args.device), known.to(args.device))
        seconds[name] = time.perf_counter() - clock
        assert drawn.method == "exact"
        sounds[f"{name}: continuation"] = LAW.restore(drawn.value.cpu())
    return sounds, seconds


def speeds(net: WaveNet, num_steps: int, seed: int) -> tuple[float, float]:
    """Seconds to draw a sequence with queues, and by the whole network for every step.

    They are the processor's on a CPU, which does not count the time that others have it.
    """
    net, taken = net.of_length(num_steps).eval(), []
    on_cpu = next(net.parameters()).device.type == "cpu"
    seconds = time.process_time if on_cpu else time.perf_counter
    for draw in (net.sample, net.naive_sample):
        pyro.set_rng_seed(seed)
        start = seconds()
        draw()
        taken.append(seconds() - start)
    return taken[0], taken[1]


def page(
    rows: dict[str, Row],
    seconds: dict[str, float],
    drawing: tuple[float, float],
    args: argparse.Namespace,
) -> str:
    """The page of results."""
    preset = PRESETS[args.preset]
    device = f"CPU ({platform.machine()}, {args.threads} thread(s))"
    if args.device.type != "cpu":
        device = torch.cuda.get_device_name(args.device)
    piece = preset.test_frames * chorales.FRAME
    order = make_wavenet(ALONE, preset).receptive_field
    drawn = ", ".join(f"{name} in {s:.1f} s" for name, s in seconds.items())
    lines = [
        "# WaveNet on synthesised chorales",
        "",
        f"Command: `python benchmarks/reproduce/wavenet.py --preset {args.preset}`. Sound: the JSB "
        f"chorales (real music), synthesised at {chorales.RATE:,} samples a second, mu-law with "
        f"{LAW.num_levels} levels. WaveNets: {preset.layers} layers with dilations 1 to "
        f"{preset.dilations[-1]}, {preset.channels} channels and {preset.skip_channels} skip "
        f"channels, which see {order:,} samples back; Adam, "
        f"{preset.rounds} rounds of {preset.updates} updates with {preset.batch_size} pieces of "
        f"{preset.train_frames * chorales.FRAME:,} samples. Minus the log-probability of a "
        f"sample, mean over the first {piece:,} samples of {preset.test_chorales} test chorales, "
        f"+- standard error over chorales. A uniform distribution has 8 bits. Minutes are of the "
        f"clock. Device: {device}, torch {torch.__version__}.",
        "",
        *rows_of_table(rows),
        "",
        "Differences in nats a sample, paired by chorale (first minus second):",
        "",
        *differences(rows, (ALONE, GIVEN)),
        "",
        f"![spectrograms](wavenet-{args.preset}.png)",
        "",
        f"The picture: the first quarter of test chorale {args.piece} is given, and each model "
        f"draws the {piece - piece // 4:,} samples that follow, with queues: {drawn}. "
        f"{preset.speed_steps:,} samples of the {ALONE} from their start take {drawing[0]:.2f} s "
        f"of the device with queues, and {drawing[1]:.2f} s by a pass of the whole network for "
        f"each, {drawing[1] / drawing[0]:.0f} times as long.",
    ]
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    """Run a preset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=list(PRESETS), default="reproduction")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--piece", type=int, default=0, help="the test chorale of the picture")
    parser.add_argument("--folder", type=Path, default=HERE / "checkpoints" / "wavenet")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args(argv)
    preset = PRESETS[args.preset]
    torch.set_num_threads(args.threads)
    pyro.enable_validation(False)
    for folder in (args.folder, args.results):
        folder.mkdir(parents=True, exist_ok=True)
    pyro.set_rng_seed(args.seed)
    train = chorales.pieces("train", preset.train_frames, preset.train_chorales)
    test = chorales.pieces("test", preset.test_frames, preset.test_chorales, first_only=True)
    order = make_wavenet(ALONE, preset).receptive_field
    rows = baselines(train, test, order, args)
    nets = {}
    for name in (ALONE, GIVEN):
        nets[name], rows[name] = run_wavenet(name, train, test, args)
    for name, row in rows.items():
        print(f"{name}: {mean_and_error(row.nats)[0]:.3f} nats a sample", flush=True)
    sounds, seconds = continued(nets, test, args)
    for number, sound in enumerate(sounds.values()):
        path = args.folder / f"wavenet-{args.preset}-{number}.wav"
        pictures.write_wave(sound, chorales.RATE, path)
    join = preset.test_frames * chorales.FRAME // 4 / chorales.RATE
    joins = {name: join for name in sounds if name != "test chorale"}
    title = "A test chorale, and what follows its first quarter by two WaveNets"
    figure = pictures.sounds_figure(sounds, chorales.RATE, joins, title)
    figure.savefig(args.results / f"wavenet-{args.preset}.png", dpi=64)
    drawing = speeds(nets[ALONE], preset.speed_steps, args.seed)
    text = page(rows, seconds, drawing, args)
    print(text)
    (args.results / f"wavenet-{args.preset}.md").write_text(text)


if __name__ == "__main__":
    main()
