# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Render tutorials from `# %%` scripts to notebooks with their output and pictures.

Usage: python tutorials/render.py tutorials/01_vae.py [more scripts]
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

MAX_BYTES = 1_000_000


def execute(source: Path) -> nbformat.NotebookNode:
    """Run a script's cells in a fresh kernel and return the notebook with what they showed.

    The kernel works in an empty folder, so that what a tutorial writes does not stay beside it,
    and finds modules beside the tutorial, as the script does.
    """
    notebook = jupytext.read(source)
    notebook.metadata.kernelspec = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # jupytext draws them at random: no change without a change
    beside = os.environ.get("PYTHONPATH", "")
    environment = {
        **os.environ,
        # ipykernel draws into the notebook unless a backend is asked for.
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(source.resolve().parent), beside])),
    }
    if "PYRO_DEEPGEN_DATA" in environment:
        environment["PYRO_DEEPGEN_DATA"] = str(Path(environment["PYRO_DEEPGEN_DATA"]).resolve())
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=None,
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        client.execute(env=environment)
    return notebook


def drop_warnings(notebook: nbformat.NotebookNode) -> None:
    """Take out what cells wrote to standard error: it names folders of this machine."""
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]


def count_pictures(notebook: nbformat.NotebookNode) -> int:
    """Return how many pictures the cells of an executed notebook show."""
    outputs = (out for cell in notebook.cells for out in cell.get("outputs", ()))
    return sum("image/png" in out.get("data", {}) for out in outputs)


def render(source: Path, max_bytes: int = MAX_BYTES) -> Path:
    """Write the executed notebook of a script beside it, whole or not at all.

    Args:
        source: The script, in percent format.
        max_bytes: The size that the notebook must stay under.

    Returns:
        The path of the notebook.

    Raises:
        ValueError: If no cell shows a picture, or the notebook is too large.
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    notebook = execute(source)
    drop_warnings(notebook)
    if count_pictures(notebook) == 0:
        raise ValueError(f"{source}: no cell shows a picture; end a cell with a figure")
    text = nbformat.writes(notebook)
    size = len(text.encode())
    if size >= max_bytes:
        raise ValueError(
            f"{source}: the notebook has {size:,} bytes and must stay under {max_bytes:,}; "
            "draw smaller or fewer pictures"
        )
    target = source.with_suffix(".ipynb")
    partial = target.with_suffix(".ipynb.part")
    partial.write_text(text)
    partial.replace(target)
    return target


def main() -> None:
    """Render the scripts named on the command line."""
    parser = argparse.ArgumentParser(description="Render tutorials to notebooks.")
    parser.add_argument("sources", nargs="+", type=Path, metavar="SCRIPT")
    for source in parser.parse_args().sources:
        target = render(source)
        print(f"{target}: {target.stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
