# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files: written whole or not at all, and read without running code."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FORMAT = 1


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, state: dict[str, Any], verify: bool = False) -> None:
    r"""Replace the file at `path` by `state`; a crash leaves the old file or the new, never half.

    Args:
        path: the file.
        state: tensors, numbers, text, and lists, tuples and dicts of them.
        verify: read the new file back before it takes the old one's place.

    Raises:
        ValueError: if `verify` and the file cannot be read back.
    """
    # A fixed name: what a killed run leaves behind is overwritten by the next.
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        if verify:
            _load(temporary)
        os.replace(temporary, path)
    except pickle.UnpicklingError as error:
        temporary.unlink(missing_ok=True)
        raise ValueError(
            "the state of the loss, the optimizer or the scheduler holds objects that a "
            f"checkpoint cannot give back safely; keep to tensors and numbers ({error})"
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def read(path: Path) -> dict[str, Any] | None:
    """Return what :func:`write` wrote, with its tensors on the CPU; None if there is no file.

    Raises:
        ValueError: if the file is truncated, damaged or no checkpoint of `fit`.
    """
    if not path.exists():
        return None
    way_out = (
        f"put a good copy in the place of {path}, or, to start anew, delete it or give another path"
    )
    if not path.is_file():
        raise ValueError(f"expected a file, got the folder {path}; give the path of a file in it")
    try:
        # torch.load does not look at the checksums that the file has for each of its parts.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            # And of a part that is marked as a folder it reads nothing, and gives stray memory.
            folders = [part.filename for part in archive.infolist() if part.external_attr & 0x10]
        if folders:
            raise zipfile.BadZipFile(f"{folders[0]} is marked as a folder")
        if damaged is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        state = _load(path)
    except Exception as error:
        raise ValueError(
            f"the checkpoint is damaged, truncated or unreadable ({error}); {way_out}"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"the file is no checkpoint of fit, or of another version; {way_out}")
    return state


def require_same_module(path: Path, saved: dict[str, Any], present: dict[str, Any]) -> None:
    """Raise if the saved state is that of another model.

    Raises:
        ValueError: naming the first difference in names or shapes.
    """

    def described(value: object) -> str:
        return f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else "not a tensor"

    for name in sorted(saved.keys() | present.keys()):
        there = described(saved[name]) if name in saved else "missing"
        here = described(present[name]) if name in present else "missing"
        if there != here:
            raise ValueError(
                f"the checkpoint {path} is of another model: {name!r} is {there} in the file and "
                f"{here} in the loss; build the model as in that run, or give another path"
            )


def require_same_settings(path: Path, saved: dict[str, Any], present: dict[str, Any]) -> None:
    """Raise if the run that wrote the file was told otherwise.

    Raises:
        ValueError: naming the settings that differ.
    """
    differences = [
        f"{name} was {saved[name]!r} and is {value!r}"
        for name, value in present.items()
        # A file of an earlier version knows fewer settings.
        if name in saved and saved[name] != value
    ]
    if differences:
        raise ValueError(
            f"the checkpoint {path} cannot be continued exactly: {'; '.join(differences)}; "
            "use the same settings, or give another path to start anew"
        )
