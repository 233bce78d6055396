# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are damaged or of another run are refused."""

from types import SimpleNamespace

import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_deepgen.fit import fit, keeper
from pyro_deepgen.fit.batches import make_batches
from pyro_deepgen.fit.parallel import Ranks
from pyro_deepgen.infer import ImportanceWeightedELBO
from tests.fit.models import SquaredError, assert_same, regression
from tests.fit.test_fit_checkpoint import noisy_run
from tests.fit.test_fit_diagnosis import Guide, Program


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


def test_a_part_that_is_marked_as_a_folder_is_refused(tmp_path):
    """PyTorch reads nothing of it, and gives a tensor of whatever lies in memory."""
    path = tmp_path / "run.pt"
    noisy_run(path, 1)
    changed = bytearray(path.read_bytes())
    name = changed.rindex(b"archive/data/2")
    entry = changed.rindex(b"PK\x01\x02", 0, name)
    changed[entry + 38] |= 0x10
    path.write_bytes(changed)
    with pytest.raises(ValueError, match=r"damaged.*archive/data/2\d* is marked as a folder"):
        noisy_run(path, 2)


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


def test_another_objective_is_refused_even_where_nothing_is_left_to_do(tmp_path):
    def run(elbo):
        loss, path = elbo(Program(), Guide()), tmp_path / "run.pt"
        fit(loss, torch.linspace(-1, 1, 6), num_epochs=1, checkpoint=path, progress=False)

    run(ImportanceWeightedELBO(3))
    run(ImportanceWeightedELBO(3))
    for elbo, name in (
        (ImportanceWeightedELBO(5), r"ImportanceWeightedELBO\(num_particles=5, gradient='iwae'\)"),
        (ImportanceWeightedELBO(3, "dreg"), r"\(num_particles=3, gradient='dreg'\)"),
        (Trace_ELBO(), r"Trace_ELBO\(num_particles=1\)"),
    ):
        with pytest.raises(ValueError, match=f"objective was .Importance.*=3.* and is .*{name}"):
            run(elbo)


def test_another_loss_and_other_rows_are_refused(tmp_path):
    class Other(SquaredError):
        pass

    x, y, _ = regression(6)
    path = tmp_path / "run.pt"

    def run(loss, *data):
        fit(loss, data, num_epochs=1, checkpoint=path, progress=False)

    run(SquaredError(), x, y)
    with pytest.raises(ValueError, match="objective was 'SquaredError' and is 'Other'"):
        run(Other(), x, y)
    for data in ((x, y + 1), (x.flip(0), y)):
        with pytest.raises(ValueError, match=r"data .first rows. was .* and is "):
            run(SquaredError(), *data)
    # A file that was written before these settings were looked at can be continued.
    state = torch.load(path)
    del state["settings"]["objective"]
    torch.save(state, path)
    run(Other(), x, y)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.bfloat16])
def test_every_type_of_data_has_a_fingerprint(dtype):
    def fingerprint(tensor):
        batches = make_batches(tensor, 4, 0, Ranks(0, 1, torch.device("cpu")))
        return batches.fingerprint()

    data = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).to(dtype)
    assert fingerprint(data.T.contiguous().T) == fingerprint(data) != fingerprint(data.T)
    assert fingerprint(data) != fingerprint(data.float())


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
