# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Reading files: what is right, missing, damaged."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_deepgen.datasets import frey_faces, mnist
from pyro_deepgen.datasets.files import read_npz

IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (30, 28, 28), dtype=np.uint8),
        "y_train": rng.integers(0, 10, 30, dtype=np.uint8),
        "x_test": rng.integers(0, 256, (11, 28, 28), dtype=np.uint8),
        "y_test": rng.integers(0, 10, 11, dtype=np.uint8),
    }


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_npz(folder: Path, **changes: np.ndarray) -> Path:
    np.savez_compressed(folder / "mnist.npz", **(arrays() | changes))
    return folder / "mnist.npz"


def write_idx(folder: Path, compressed: bool = False) -> None:
    for key, array in arrays().items():
        raw = idx_bytes(array)
        if compressed:
            (folder / f"{IDX[key]}.gz").write_bytes(gzip.compress(raw))
        else:
            (folder / IDX[key]).write_bytes(raw)


def assert_is_the_data(data) -> None:
    raw = arrays()
    for split in ("train", "test"):
        x, y = getattr(data, f"x_{split}"), getattr(data, f"y_{split}")
        assert torch.equal(x, torch.tensor(raw[f"x_{split}"])[:, None].float() / 255)
        assert torch.equal(y, torch.tensor(raw[f"y_{split}"]).long())


@pytest.mark.parametrize("compressed", [False, True])
def test_mnist_from_idx_files(tmp_path, compressed):
    write_idx(tmp_path, compressed)
    assert_is_the_data(mnist(folder=tmp_path))


def test_mnist_from_npz_and_from_the_environment(tmp_path, monkeypatch):
    write_npz(tmp_path)
    assert_is_the_data(mnist(folder=str(tmp_path)))
    monkeypatch.setenv("PYRO_DEEPGEN_DATA", str(tmp_path))
    assert_is_the_data(mnist())


@pytest.mark.parametrize("load", [mnist, frey_faces])
def test_the_protocol_comes_first_as_for_digits(load, tmp_path, monkeypatch):
    write_npz(tmp_path)
    np.savez(tmp_path / "frey_faces.npz", x=np.zeros((1965, 28, 20), np.uint8))
    monkeypatch.setenv("PYRO_DEEPGEN_DATA", str(tmp_path))
    assert load("dynamic", 3).protocol == "dynamic(test fixed(seed=3))"
    with pytest.raises(ValueError, match=r"unknown protocol .*their folder as folder="):
        load(str(tmp_path))
    with pytest.raises(ValueError, match=r"unknown protocol .*their folder as folder="):
        load(tmp_path)


def test_no_folder_at_all(monkeypatch):
    monkeypatch.delenv("PYRO_DEEPGEN_DATA", raising=False)
    for load, name in ((mnist, "mnist.npz"), (frey_faces, "frey_faces.npz")):
        with pytest.raises(FileNotFoundError, match="PYRO_DEEPGEN_DATA is not set") as error:
            load()
        assert "https://" in str(error.value)
        assert name in str(error.value)


def test_missing_files_are_named_with_the_folder(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        mnist(folder=tmp_path)
    for text in ("mnist.npz", *IDX.values(), str(tmp_path), "https://", "PYRO_DEEPGEN_DATA"):
        assert text in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"frey_faces.npz") as error:
        frey_faces(folder=tmp_path / "nowhere")
    assert "there is no such folder" in str(error.value)


def test_only_the_missing_idx_file_is_named(tmp_path):
    write_idx(tmp_path)
    (tmp_path / IDX["y_test"]).unlink()
    with pytest.raises(FileNotFoundError, match=IDX["y_test"]) as error:
        mnist(folder=tmp_path)
    assert IDX["x_train"] not in str(error.value)


@pytest.mark.parametrize("keep", [0, 10, 0.5, -30])
def test_truncated_npz(tmp_path, keep):
    path = write_npz(tmp_path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(keep * len(raw)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=r"mnist.npz is damaged .* Fetch it again"):
        mnist(folder=tmp_path)


def test_flipped_byte_in_npz(tmp_path):
    path = write_npz(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"mnist.npz is damaged"):
        mnist(folder=tmp_path)


def test_no_damage_of_an_npz_passes_unnoticed(tmp_path):
    good = {"x": np.arange(81, dtype=np.uint8).reshape(9, 9), "y": np.arange(4)}
    path = tmp_path / "small.npz"
    np.savez_compressed(path, **good)
    raw = path.read_bytes()
    refused = 0
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        try:
            found = read_npz(path, ("x", "y"))
        except ValueError:
            refused += 1
        else:
            # Some bytes, such as dates, carry no data.
            assert all(np.array_equal(found[name], good[name]) for name in good)
    assert refused > len(raw) / 2


def test_npz_that_is_something_else(tmp_path):
    path = tmp_path / "mnist.npz"
    path.write_bytes(b"<html>moved</html>")
    with pytest.raises(ValueError, match=r"mnist.npz is damaged"):
        mnist(folder=tmp_path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"not a complete \.npz"):
        mnist(folder=tmp_path)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(
        ValueError, match=r"no array x_train, y_train, x_test, y_test, only \['x'\]"
    ):
        mnist(folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "finding"),
    [
        ("x_train", np.zeros((30, 784), np.uint8), r"uint8 of shape \(30, 784\)"),
        ("x_train", np.zeros((30, 28, 28)), r"float64 of shape \(30, 28, 28\)"),
        ("x_test", np.zeros((0, 28, 28), np.uint8), r"shape \(0, 28, 28\)"),
        ("y_train", np.zeros(29, np.uint8), r"shape \(29,\), where integers of shape \(30,\)"),
        ("y_train", np.zeros(30), "float64"),
        ("y_test", np.full(11, 10), "labels from 10 to 10"),
    ],
)
def test_npz_with_wrong_arrays(tmp_path, name, value, finding):
    write_npz(tmp_path, **{name: value})
    with pytest.raises(ValueError, match=f"mnist.npz is damaged .*{name} .*{finding}"):
        mnist(folder=tmp_path)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda raw: raw[:-1], r"23519 bytes of data, where shape \(30, 28, 28\) needs 23520"),
        (lambda raw: raw + b"0", "23521 bytes of data"),
        (lambda raw: raw[:9], "9 bytes, where the header alone has 16"),
        (lambda raw: b"", "0 bytes"),
        (lambda raw: b"\0\0\x08\x01" + raw[4:], "0x00000801, where 0x00000803 was expected"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_idx(tmp_path, change, finding, compressed):
    write_idx(tmp_path)
    path = tmp_path / IDX["x_train"]
    raw = change(path.read_bytes())
    path.unlink()
    if compressed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(raw))
    else:
        path.write_bytes(raw)
    with pytest.raises(ValueError, match=f"{path.name}.* is damaged .*{finding}"):
        mnist(folder=tmp_path)


@pytest.mark.parametrize("change", [lambda raw: raw[:-20], lambda raw: b"no gzip", lambda raw: b""])
def test_damaged_gzip(tmp_path, change):
    write_idx(tmp_path, compressed=True)
    path = tmp_path / f"{IDX['y_train']}.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path.name} is damaged"):
        mnist(folder=tmp_path)


def test_frey_faces_from_a_file(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (1965, 28, 20), dtype=np.uint8)
    np.savez(tmp_path / "frey_faces.npz", x=x)
    data = frey_faces(folder=tmp_path)
    assert data.y_train is None
    assert data.y_test is None
    together = torch.cat([data.x_train, data.x_test]).mul(255).round().to(torch.uint8).flatten(1)
    # Every frame is in exactly one of the splits.
    rows = {row.tobytes() for row in together.numpy()}
    assert rows == {row.tobytes() for row in x.reshape(1965, -1)}
    assert len(rows) == 1965
    np.savez(tmp_path / "frey_faces.npz", x=x[:-1])
    with pytest.raises(ValueError, match=r"frey_faces.npz is damaged .*\(1964, 28, 20\)"):
        frey_faces(folder=tmp_path)
