# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""The image data sets: splits, ranges, protocols, scales."""

import sys

import pytest
import torch

from pyro_deepgen.datasets import (
    PROTOCOLS,
    Binarize,
    DataScale,
    Dataset,
    binarize,
    digits,
    frey_faces,
    mnist,
    quantize,
)


def rows(x: torch.Tensor) -> list[bytes]:
    return [row.numpy().tobytes() for row in x.flatten(1)]


def test_digits_are_all_there_once():
    from sklearn.datasets import load_digits

    data = digits()
    assert data.x_train.shape == (1437, 1, 8, 8)
    assert data.x_test.shape == (360, 1, 8, 8)
    raw = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 16
    assert sorted(rows(raw)) == sorted(rows(data.x_train) + rows(data.x_test))


def test_digits_keep_their_labels():
    from sklearn.datasets import load_digits

    raw = load_digits()
    label = dict(zip(rows(torch.tensor(raw.images).float() / 16), raw.target, strict=True))
    data = digits(seed=3)
    assert data.y_train.dtype == torch.int64
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert [label[row] for row in rows(x)] == y.tolist()


def test_digits_values_and_dtype():
    data = digits(dtype=torch.float64)
    assert data.x_train.dtype == torch.float64
    assert torch.equal(data.x_train.unique(), torch.arange(17, dtype=torch.float64) / 16)
    assert torch.equal(data.x_train.float(), digits().x_train)


def test_split_depends_on_the_seed_alone():
    torch.manual_seed(5)
    first = digits(seed=1)
    torch.manual_seed(6)
    assert torch.equal(first.x_test, digits(seed=1).x_test)
    assert not torch.equal(first.x_test, digits(seed=2).x_test)


def test_loading_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    for protocol in PROTOCOLS:
        digits(protocol)
    assert torch.equal(torch.get_rng_state(), state)


def test_threshold_and_fixed_make_both_splits_binary():
    grey = digits(seed=2)
    for protocol, name in (("threshold", "threshold"), ("fixed", "fixed(seed=2)")):
        data = digits(protocol, seed=2)
        assert data.protocol == name
        assert data.scale.bin_width == 1.0
        assert torch.equal(data.x_train, binarize(grey.x_train, protocol, seed=2))
        assert torch.equal(data.x_test, binarize(grey.x_test, protocol, seed=2))


def test_dynamic_keeps_training_data_grey_and_fixes_the_test_set():
    grey, data = digits(), digits("dynamic")
    assert data.protocol == "dynamic(test fixed(seed=0))"
    assert data.scale.bin_width == 1.0
    assert torch.equal(data.x_train, grey.x_train)
    assert torch.equal(data.x_test, digits("fixed").x_test)
    # The transform of the training loop leaves a set that is binary as it is.
    assert torch.equal(Binarize("dynamic")(data.x_test), data.x_test)


def test_dequantized():
    grey, data = digits(), digits("dequantized")
    assert data.protocol == "dequantized(seed=0)"
    assert data.scale.bin_width == pytest.approx(1 / 17)
    assert torch.equal(quantize(data.x_train, 17), grey.x_train)
    assert torch.equal(quantize(data.x_test, 17), grey.x_test)
    assert torch.equal(data.x_train, digits("dequantized").x_train)
    noise = data.x_train * 17 - grey.x_train * 16
    assert float(noise.std()) > 0.2


def test_gray_scale_is_the_step_between_levels():
    data = digits()
    assert data.scale.bin_width == pytest.approx(float(data.x_train.unique().diff().min()))
    assert str(data) == repr(data)
    assert str(data) == (
        "digits: 1437 train, 360 test, shape (1, 8, 8), protocol gray, units grey levels / 16 in "
        "[0, 1]"
    )


@pytest.mark.parametrize("load", [digits, mnist, frey_faces])
def test_wrong_options(load):
    with pytest.raises(ValueError, match="expected one of gray, threshold, fixed, dynamic, dequa"):
        load(protocol="binary")
    with pytest.raises(ValueError, match=r"got torch\.int64"):
        load(dtype=torch.int64)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install pyro_deepgen\[data\]"):
        digits()


def test_dataset_and_scale_refuse_what_does_not_fit():
    x, scale = torch.zeros(4, 1, 2, 2), DataScale("grey")
    with pytest.raises(ValueError, match=r"one event shape, got \(1, 2, 2\) and \(1, 2, 3\)"):
        Dataset("d", x, None, torch.zeros(4, 1, 2, 3), None, scale, "gray")
    with pytest.raises(ValueError, match=r"y_test must hold one label for each of the 4 data"):
        Dataset("d", x, None, x, torch.zeros(3), scale, "gray")
    for width in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="bin_width must be positive"):
            DataScale("grey", width)


def test_real_mnist(data_file):
    data = mnist(folder=data_file("mnist.npz").parent)
    assert data.x_train.shape == (60_000, 1, 28, 28)
    assert data.x_test.shape == (10_000, 1, 28, 28)
    # The published counts of each class in the training split.
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.y_train.bincount().tolist() == counts
    assert float(data.x_train.mean()) == pytest.approx(0.1307, abs=5e-5)


def test_real_frey_faces(data_file):
    data = frey_faces(folder=data_file("frey_faces.npz").parent)
    assert data.x_train.shape == (1565, 1, 28, 20)
    assert data.x_test.shape == (400, 1, 28, 20)
    assert 0 <= float(data.x_train.min()) < float(data.x_train.max()) <= 1
