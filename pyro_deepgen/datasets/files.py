# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Finding and reading data files, with errors that say what is wrong and what to do."""

from __future__ import annotations

import gzip
import math
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER_VARIABLE = "PYRO_DEEPGEN_DATA"
IDX_IMAGES_MAGIC = 0x00000803
IDX_LABELS_MAGIC = 0x00000801


def data_folder(folder: str | os.PathLike[str] | None, what: str, how_to_get: str) -> Path:
    """The folder given, or the one that the environment names."""
    chosen = os.environ.get(FOLDER_VARIABLE) if folder is None else folder
    if not chosen:
        raise FileNotFoundError(
            f"{what}: no folder was given and {FOLDER_VARIABLE} is not set. {how_to_get} "
            f"Put it in a folder of your choice, and give that folder as folder=... or set "
            f"{FOLDER_VARIABLE} to it."
        )
    return Path(chosen)


def missing_files(what: str, names: list[str], folder: Path, how_to_get: str) -> FileNotFoundError:
    """The error for files that are not there."""
    exists = "" if folder.is_dir() else " (there is no such folder)"
    return FileNotFoundError(
        f"{what}: looked for {', '.join(names)} in {folder}{exists} and found none that would do. "
        f"{how_to_get} Put it in {folder}, or give the folder that has it as folder=... or in "
        f"{FOLDER_VARIABLE}."
    )


def damaged(path: Path, finding: str) -> ValueError:
    """The error for a file that is not what its name says."""
    return ValueError(f"{path} is damaged or not the right file: {finding}. Fetch it again.")


def read_npz(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[np.generic]]:
    """The named arrays of an ``.npz`` file."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise damaged(path, "not a complete .npz (zip) archive")
    try:
        with np.load(path, allow_pickle=False) as archive:
            present = list(archive.files)
            arrays = {name: archive[name] for name in names if name in present}
    # RuntimeError: a damaged header may claim encryption or an unknown compression.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise damaged(path, f"not a readable .npz archive ({error})") from error
    if len(arrays) < len(names):
        absent = ", ".join(name for name in names if name not in arrays)
        raise damaged(path, f"no array {absent}, only {present}")
    return arrays


def read_idx(path: Path, magic: int) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes, plain or compressed by gzip.

    The format: a 32-bit big-endian magic number ``0x000008nn`` with the number ``nn`` of
    dimensions, each dimension as a 32-bit big-endian integer, then the bytes in C order.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise damaged(path, f"not readable by gzip ({error})") from error
    num_dims = magic & 0xFF
    header = 4 * (1 + num_dims)
    if len(raw) < header:
        raise damaged(path, f"{len(raw)} bytes, where the header alone has {header}")
    found, *shape = (int(n) for n in np.frombuffer(raw[:header], dtype=">u4"))
    if found != magic:
        raise damaged(path, f"magic number 0x{found:08x}, where 0x{magic:08x} was expected")
    if len(raw) - header != math.prod(shape):
        raise damaged(
            path,
            f"{len(raw) - header} bytes of data, where shape {tuple(shape)} needs "
            f"{math.prod(shape)}",
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)


def check_images(
    path: Path, name: str, x: NDArray[np.generic], shape: tuple[int | None, ...]
) -> NDArray[np.uint8]:
    """``x``, if it is an array of bytes of that shape (``None``: any positive length)."""
    fits = len(x.shape) == len(shape) and all(
        size > 0 if wanted is None else size == wanted
        for size, wanted in zip(x.shape, shape, strict=True)
    )
    if x.dtype != np.uint8 or not fits:
        wanted = ", ".join("N" if size is None else str(size) for size in shape)
        raise damaged(
            path,
            f"{name} is {x.dtype} of shape {x.shape}, where uint8 of shape ({wanted}) was expected",
        )
    return x.view(np.uint8)


def check_labels(path: Path, name: str, y: NDArray[np.generic], num_data: int) -> NDArray[np.int64]:
    """``y``, if it is one class from 0 to 9 for each datum."""
    if not np.issubdtype(y.dtype, np.integer) or y.shape != (num_data,):
        raise damaged(
            path,
            f"{name} is {y.dtype} of shape {y.shape}, where integers of shape "
            f"({num_data},) were expected",
        )
    labels = y.astype(np.int64)
    if labels.min() < 0 or labels.max() > 9:
        raise damaged(
            path,
            f"{name} holds labels from {labels.min()} to {labels.max()}, where "
            "0 to 9 were expected",
        )
    return labels
