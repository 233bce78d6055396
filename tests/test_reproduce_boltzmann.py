# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The scripts of published Boltzmann machines run, resume, and measure what they say."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from benchmarks.reproduce import (
    dbm_mnist,
    dbn_mnist,
    discriminative_rbm,
    gaussian_rbm_frey,
    rbm_mnist,
)
from benchmarks.reproduce.boltzmann.figures import annealed_figure
from benchmarks.reproduce.boltzmann.learning import boltzmann_learning
from benchmarks.reproduce.runs import pages, training
from benchmarks.reproduce.runs.training import Cost, train
from pyro_deepgen.energy import RBM, BinaryUnits, DeepBoltzmannMachine, PersistentChains

# Each script with its data, its rows on the page and its pictures.
SCRIPTS: dict[ModuleType, tuple[str, int, int]] = {
    rbm_mnist: ("mnist.npz", 2, 6),
    discriminative_rbm: ("mnist.npz", 2, 2),
    dbn_mnist: ("mnist.npz", 1, 2),
    dbm_mnist: ("mnist.npz", 2, 6),
    gaussian_rbm_frey: ("frey_faces.npz", 2, 6),
}


def small_rbm() -> RBM:
    rbm = RBM(6, 4, weight_scale=1.0, negative_phase=PersistentChains(20), validate_args=False)
    with torch.no_grad():
        rbm.visible_bias.normal_()
        rbm.hidden_bias.normal_()
    return rbm


def bits() -> torch.Tensor:
    return BinaryUnits(6).states(torch.zeros(()))


def trained(folder: Path, epochs: int, **settings: Any) -> tuple[RBM, Cost]:
    torch.manual_seed(0)
    rbm = small_rbm()
    loss = boltzmann_learning(rbm)
    optimizer = torch.optim.SGD(loss.parameters(), 0.1)
    file = folder / "run.pt"
    return rbm, train(loss, bits(), optimizer, epochs=epochs, checkpoint=file, **settings)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__.split(".")[-1])
def test_a_script_trains_once_and_then_reads_back(
    script: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data_file: Callable[[str], Path],
) -> None:
    file, num_rows, num_pictures = SCRIPTS[script]
    data_file(file)
    call = ["--preset", "short", "--device", "cpu", "--folder", str(tmp_path / "runs")]
    call += ["--results", str(tmp_path)]
    if script in (dbn_mnist, dbm_mnist):
        call += ["--rbm-folder", str(tmp_path / "rbm")]
    script.main(call)
    page = tmp_path / f"{script.NAME}-short.md"
    written = page.read_text()
    assert "not run" not in written
    assert len(list((tmp_path / "runs" / "short").glob("*.row.json"))) == num_rows
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == num_pictures
    assert all(f"({picture.name})" in written for picture in pictures)
    monkeypatch.delattr(script, "train")
    script.main(call)
    assert page.read_text() == written


def test_training_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    whole, cost = trained(tmp_path / "whole", 3)
    assert cost.epochs == cost.updates == 3
    _, cost = trained(tmp_path / "parts", 3, minutes=0)  # after one epoch it is spent
    assert (cost.epochs, cost.stopped) == (1, "budget")
    account = tmp_path / "parts" / "run.cost.json"
    account.write_text(json.dumps({**json.loads(account.read_text()), "processor": 1000.0}))
    parts, cost = trained(tmp_path / "parts", 3)
    assert (cost.epochs, cost.stopped) == (3, "finished")
    assert cost.processor > 1000
    assert torch.equal(parts.weight, whole.weight)
    # And once more, when there is nothing left to do.
    again, _ = trained(tmp_path / "parts", 3)
    assert torch.equal(again.weight, whole.weight)


def test_training_ends_with_the_state_that_was_best(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []
    figures = iter([3.0, 1.0, 2.0, 2.0, 0.0])
    torch.manual_seed(0)
    rbm = small_rbm()
    loss = boltzmann_learning(rbm)

    def watch() -> float:
        seen.append(rbm.weight.detach().clone())
        return next(figures)

    cost = train(
        loss,
        bits(),
        torch.optim.SGD(loss.parameters(), 0.1),
        epochs=5,
        checkpoint=tmp_path / "run.pt",
        watch=watch,
        patience=2,
    )
    assert (cost.best, cost.best_epoch, cost.epochs, cost.stopped) == (1.0, 2, 4, "early")
    assert torch.equal(rbm.weight, seen[1])


def test_a_rate_falls_to_zero_by_a_straight_line() -> None:
    factor = training.linearly_to_zero(4)
    assert [factor(epoch) for epoch in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


def test_an_annealed_figure_is_that_of_an_exact_sum() -> None:
    rbm = RBM(6, 24, weight_scale=0.5)
    exact = float(rbm.exact_log_partition().detach())  # of the 64 states of the visible units
    rbm.num_states = lambda: math.inf  # type: ignore[method-assign]
    x, cost = bits(), Cost()
    figure = annealed_figure(
        rbm,
        rbm.log_prob,
        x,
        x,
        start=x,
        chains=500,
        temperatures=100,
        start_steps=100,
        cost=cost,
    )
    assert 0 < figure.log_z_error < 0.1
    assert abs(figure.log_z - exact) < 4 * figure.log_z_error
    assert figure.lower < figure.log_z
    assert abs(figure.reverse - exact) < 0.1
    scores = -rbm.energy(x).detach().double() - figure.log_z
    assert figure.test == pytest.approx(float(scores.mean()), abs=1e-4)
    assert figure.test_error == pytest.approx(float(scores.std()) / 8, abs=1e-4)
    assert cost.processor > 0


def test_a_deep_belief_net_starts_as_its_first_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rbm, preset = small_rbm(), dbn_mnist.PRESETS["short"]
    net = dbn_mnist.make_net(rbm, replace(preset, top=6))
    monkeypatch.setattr(dbn_mnist, "train", lambda *args, **settings: Cost())
    args = pages.arguments("a script", dbn_mnist.NAME).parse_args(["--preset", "short"])
    dbn_mnist.train_net(net, rbm, bits(), args)
    with torch.no_grad():
        ours, first = net.eval().log_prob(bits()), rbm.eval().log_prob(bits())
    assert torch.allclose(ours, first, atol=1e-5)


def test_a_deep_boltzmann_machine_starts_as_its_first_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rbm = small_rbm()
    machine = DeepBoltzmannMachine(6, (4, 3), weight_scale=0.0)
    monkeypatch.setattr(rbm_mnist, "trained", lambda *args: (rbm, Cost()))
    args = pages.arguments("a script", dbm_mnist.NAME).parse_args(["--preset", "short"])
    args.rbm_folder = Path()
    dbm_mnist.start_from_rbm(machine, args)
    with torch.no_grad():
        ours, first = machine.eval().log_prob(bits()), rbm.eval().log_prob(bits())
    assert torch.allclose(ours, first, atol=1e-5)


def test_offsets_start_at_means_and_a_state_bounds_the_normaliser() -> None:
    machine = DeepBoltzmannMachine(6, (4, 3), weight_scale=1.0, centred=True)
    with torch.no_grad():
        for level in range(3):
            machine.get_parameter(f"bias{level}").normal_()
        dbm_mnist.centre(machine, bits())
        for level, values in enumerate([bits(), *machine.infer(bits())]):
            assert torch.allclose(machine.get_buffer(f"offset{level}"), values.mean(0))
        off = dbm_mnist.log_weight_when_off(machine)
        states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 9)
        v, h = states.split([6, 3], -1)
        scores = -machine.energy(v, torch.zeros(len(v), 4), h)
        assert torch.allclose(off, scores.logsumexp(0), atol=1e-4)
        assert off < machine.eval().log_partition()
    assert machine.offset_rate == 0.01


def test_the_error_is_the_share_of_wrong_classes() -> None:
    machine = discriminative_rbm.DiscriminativeRBM(2, 3, num_classes=2, weight_scale=0.0)
    with torch.no_grad():
        machine.visible_bias[2:] = torch.tensor([0.0, 1.0])  # the second class, whatever it sees
    wrong, spread = discriminative_rbm.error(machine, torch.ones(4, 2), torch.tensor([1, 1, 1, 0]))
    assert wrong == 25.0
    assert spread == pytest.approx(25.0)
    assert machine.training


def test_bits_of_faces_whose_levels_are_all_equally_likely(
    data_file: Callable[[str], Path],
) -> None:
    data_file("frey_faces.npz")
    data = gaussian_rbm_frey.Standardized(torch.device("cpu"))
    assert data.bits(float(data.scale.log().sum())) == pytest.approx(8.0, abs=1e-4)
    faces = data.faces(data.test)
    assert 0 <= faces.min() < 0.1 < 0.9 < faces.max() <= 1
    scores = gaussian_rbm_frey.normal_scores(data)
    known = -0.5 * (data.test.double().square() + math.log(2 * math.pi)).sum(1).mean()
    # The pixels are standardised by the unbiased variance of the training faces.
    assert scores["normal, independent pixels"] == pytest.approx(float(known), abs=1.0)
    assert scores["normal, all covariances"] > scores["normal, independent pixels"]
