# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Results as numbers in a file, and as a page with a table."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyro
import torch

HERE = Path(__file__).resolve().parent.parent
Rows = dict[str, Any]


def arguments(doc: str, name: str, rows: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The arguments that all scripts take."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.set_defaults(name=name)
    parser.add_argument("--preset", choices=["short", "reproduction"], default="reproduction")
    parser.add_argument("--epochs", type=int, help="default: that of the preset")
    parser.add_argument("--minutes", type=float, help="stop each training after so much processor")
    parser.add_argument("--device", type=torch.device, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=HERE / "checkpoints" / name)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    if rows:
        parser.add_argument("--only", help=f"some of {','.join(rows)}; others are read back")
    return parser


def prepare(args: argparse.Namespace) -> None:
    """Set threads, device and folders."""
    torch.set_num_threads(args.threads)
    pyro.enable_validation(False)
    args.device = args.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.folder = args.folder / args.preset
    for folder in (args.folder, args.results):
        folder.mkdir(parents=True, exist_ok=True)


def where(args: argparse.Namespace) -> str:
    """The machine and the versions, for the page."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
        name = next((x.split(":", 1)[1].strip() for x in lines if "model name" in x), name)
    device = f"{name}, {os.cpu_count()} cores, {args.threads} thread(s)"
    if args.device.type != "cpu":
        device = f"{torch.cuda.get_device_name(args.device)}, {device}"
    return f"{device}, torch {torch.__version__}, pyro-ppl {pyro.__version__}"


def kept(args: argparse.Namespace, name: str, make: Callable[[], Mapping[str, Any]]) -> Any:
    """A finished row: read back, or made and kept."""
    path = args.folder / f"{name}.row.json"
    if not path.exists():
        row = {**make(), "where": where(args)}
        path.write_text(json.dumps(row, indent=1) + "\n")
    return json.loads(path.read_text())


def write(
    args: argparse.Namespace, name: str, results: Mapping[str, Any], lines: Sequence[str]
) -> None:
    """Write the page, and its numbers beside it."""
    stem = args.results / f"{name}-{args.preset}"
    stem.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")


def run_rows(
    args: argparse.Namespace,
    names: Sequence[str],
    run: Callable[[str, argparse.Namespace], Mapping[str, Any]],
    table: Callable[[Rows, argparse.Namespace], Sequence[str]],
) -> None:
    """Make the chosen rows, read the other finished ones back, and write the page after each.

    Args:
        args: of the command line, see `arguments`.
        names: all rows.
        run: makes one.
        table: the page of those there are.
    """
    prepare(args)
    chosen = args.only.split(",") if args.only else names
    if unknown := sorted(set(chosen) - set(names)):
        raise SystemExit(f"--only has {unknown}, and the rows are {list(names)}")
    rows: Rows = {}
    for name in names:
        if name in chosen or (args.folder / f"{name}.row.json").exists():
            rows[name] = kept(args, name, lambda name=name: run(name, args))  # type: ignore[misc]
            write(args, args.name, rows, table(rows, args))
