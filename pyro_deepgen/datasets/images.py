# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Image data: the digits that come with scikit-learn, MNIST, Frey faces."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_deepgen.datasets.binarization import BINARIZATIONS, Binarize
from pyro_deepgen.datasets.dataset import DataScale, Dataset
from pyro_deepgen.datasets.dequantization import dequantize, dequantized_scale
from pyro_deepgen.datasets.files import (
    IDX_IMAGES_MAGIC,
    IDX_LABELS_MAGIC,
    check_images,
    check_labels,
    data_folder,
    missing_files,
    read_idx,
    read_npz,
)

PROTOCOLS = ("gray", *BINARIZATIONS, "dequantized")

_IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
_GET_MNIST = (
    "Get mnist.npz (https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz) or the "
    "four IDX files (https://ossci-datasets.s3.amazonaws.com/mnist/)."
)
_GET_FREY_FACES = (
    "Get https://cs.nyu.edu/~roweis/data/frey_rawface.mat and convert it by numpy.savez_compressed("
    "'frey_faces.npz', x=scipy.io.loadmat('frey_rawface.mat')['ff'].T.reshape(-1, 28, 20))."
)


def digits(protocol: str = "gray", seed: int = 0, *, dtype: torch.dtype = torch.float32) -> Dataset:
    """The 1,797 handwritten 8x8 digits that come with scikit-learn: real data, no download.

    The split of 1,437 and 360 is a seeded permutation, not stratified by class.

    Args:
        protocol: ``"gray"``: 17 levels, as k / 16. ``"threshold"``, ``"fixed"``: as in
            :func:`binarize`. ``"dynamic"``: ``x_train`` stays grey, to be trained on with
            ``transform=Binarize("dynamic")``, and ``x_test`` is binarised by ``"fixed"``, since
            evaluation needs one set. ``"dequantized"``: as in :func:`dequantize`, drawn once.
        seed: The seed of the split and of the protocol.
        dtype: The dtype of the images.

    Returns:
        Images of shape ``(N, 1, 8, 8)`` in [0, 1]; labels int64 of shape ``(N,)``.

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If the protocol is unknown.

    Example:
        >>> data = digits()
        >>> data.x_train.shape, len(data.x_test)
        (torch.Size([1437, 1, 8, 8]), 360)
    """
    _check_options(protocol, dtype)
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "digits() reads the images that come with scikit-learn: pip install pyro_deepgen[data]"
        ) from error
    raw = load_digits()
    train, test = _split(len(raw.images), 360, seed)
    levels = raw.images.astype(np.uint8)
    labels = torch.from_numpy(raw.target.astype(np.int64))
    return _assemble(
        "digits",
        levels[train],
        labels[train],
        levels[test],
        labels[test],
        17,
        protocol,
        seed,
        dtype,
    )


def mnist(
    protocol: str = "gray",
    seed: int = 0,
    *,
    folder: str | os.PathLike[str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Dataset:
    """MNIST, in its standard split of 60,000 and 10,000.

    Reads ``mnist.npz`` (arrays ``x_train``, ``y_train``, ``x_test``, ``y_test``), or else the four
    IDX files (``train-images-idx3-ubyte``, ..., plain or with ``.gz``).

    Args:
        protocol: As in :func:`digits`; ``"gray"`` has 256 levels, as k / 255.
        seed: The seed of the protocol.
        folder: The folder to read; ``None`` is the one that ``PYRO_DEEPGEN_DATA`` names.
        dtype: The dtype of the images.

    Returns:
        Images of shape ``(N, 1, 28, 28)`` in [0, 1]; labels int64 of shape ``(N,)``.

    Raises:
        FileNotFoundError: If the files are not there; says where to get and to put them.
        ValueError: If a file is damaged, or the protocol unknown.

    References:
        Gradient-based learning applied to document recognition, Yann LeCun, Leon Bottou, Yoshua
        Bengio and Patrick Haffner, 1998.

    Example:
        >>> try:
        ...     mnist(folder="no-such-folder")
        ... except FileNotFoundError as error:
        ...     "mnist.npz" in str(error)
        True
    """
    _check_options(protocol, dtype)
    where = data_folder(folder, "MNIST", _GET_MNIST)
    paths = _mnist_paths(where)
    if isinstance(paths, Path):
        arrays = read_npz(paths, tuple(_IDX_NAMES))
        sources = dict.fromkeys(_IDX_NAMES, paths)
    else:
        sources = paths
        arrays = {
            name: read_idx(path, IDX_IMAGES_MAGIC if name[0] == "x" else IDX_LABELS_MAGIC)
            for name, path in paths.items()
        }
    images = {
        name: check_images(sources[name], name, arrays[name], (None, 28, 28))
        for name in ("x_train", "x_test")
    }
    y_train, y_test = (
        torch.from_numpy(
            check_labels(sources[f"y_{s}"], f"y_{s}", arrays[f"y_{s}"], len(images[f"x_{s}"]))
        )
        for s in ("train", "test")
    )
    return _assemble(
        "mnist", images["x_train"], y_train, images["x_test"], y_test, 256, protocol, seed, dtype
    )


def frey_faces(
    protocol: str = "gray",
    seed: int = 0,
    *,
    folder: str | os.PathLike[str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Dataset:
    """The 1,965 frames of Brendan Frey's face, 28x20, without labels.

    The split of 1,565 and 400 is a seeded permutation. The frames are of one video, so most test
    frames have a near twin in the training split: a held-out figure says little about
    generalisation here.

    Args:
        protocol: As in :func:`digits`; ``"gray"`` has 256 levels, as k / 255.
        seed: The seed of the split and of the protocol.
        folder: The folder with ``frey_faces.npz`` (array ``x``); ``None`` is the one that
            ``PYRO_DEEPGEN_DATA`` names.
        dtype: The dtype of the images.

    Returns:
        Images of shape ``(N, 1, 28, 20)`` in [0, 1]; no labels.

    Raises:
        FileNotFoundError: If the file is not there; says where to get and to put it.
        ValueError: If the file is damaged, or the protocol unknown.

    References:
        Nonlinear dimensionality reduction by locally linear embedding, Sam Roweis and Lawrence
        Saul, 2000.

    Example:
        >>> try:
        ...     frey_faces(folder="no-such-folder")
        ... except FileNotFoundError as error:
        ...     "frey_faces.npz" in str(error)
        True
    """
    _check_options(protocol, dtype)
    path = data_folder(folder, "Frey faces", _GET_FREY_FACES) / "frey_faces.npz"
    if not path.is_file():
        raise missing_files("Frey faces", [path.name], path.parent, _GET_FREY_FACES)
    levels = check_images(path, "x", read_npz(path, ("x",))["x"], (1965, 28, 20))
    train, test = _split(len(levels), 400, seed)
    return _assemble(
        "frey_faces", levels[train], None, levels[test], None, 256, protocol, seed, dtype
    )


def _mnist_paths(folder: Path) -> Path | dict[str, Path]:
    """The archive where there is one, else the four IDX files."""
    archive = folder / "mnist.npz"
    if archive.is_file():
        return archive
    found = {}
    for key, name in _IDX_NAMES.items():
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                found[key] = path
                break
    if len(found) < len(_IDX_NAMES):
        absent = [name for key, name in _IDX_NAMES.items() if key not in found]
        wanted = ["mnist.npz", *(f"{name}[.gz]" for name in absent)]
        raise missing_files("MNIST", wanted, folder, _GET_MNIST)
    return found


def _check_options(protocol: str, dtype: torch.dtype) -> None:
    if protocol not in PROTOCOLS:
        raise ValueError(
            f"unknown protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}; what is read "
            "from files takes their folder as folder=..."
        )
    if not dtype.is_floating_point:
        raise ValueError(f"images are floating-point: expected such a dtype, got {dtype}")


def _split(num_data: int, num_test: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Disjoint indices of a training and a test split, from a permutation drawn on the CPU."""
    order = torch.randperm(num_data, generator=torch.Generator().manual_seed(seed)).numpy()
    return order[num_test:], order[:num_test]


def _assemble(
    name: str,
    train: NDArray[np.uint8],
    y_train: Tensor | None,
    test: NDArray[np.uint8],
    y_test: Tensor | None,
    num_levels: int,
    protocol: str,
    seed: int,
    dtype: torch.dtype,
) -> Dataset:
    """The data set of two splits of grey levels, each of shape ``(N, H, W)``, under a protocol."""
    x_train, x_test = (
        torch.tensor(levels).unsqueeze(1).to(dtype) / (num_levels - 1) for levels in (train, test)
    )
    named = protocol
    scale = DataScale(f"grey levels / {num_levels - 1} in [0, 1]", 1 / (num_levels - 1))
    if protocol == "dequantized":
        generator = torch.Generator().manual_seed(seed)
        x_train = dequantize(x_train, num_levels, generator)
        x_test = dequantize(x_test, num_levels, generator)
        named, scale = f"dequantized(seed={seed})", dequantized_scale(num_levels)
    elif protocol in BINARIZATIONS:
        scale = DataScale("binary pixels in {0, 1}", 1.0)
        if protocol == "dynamic":
            test_protocol = Binarize("fixed", seed)
            named = f"dynamic(test {test_protocol.name})"
        else:
            test_protocol = Binarize(protocol, seed)
            named = test_protocol.name
            x_train = test_protocol(x_train)
        x_test = test_protocol(x_test)
    return Dataset(name, x_train, y_train, x_test, y_test, scale, named)
