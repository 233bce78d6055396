# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Tutorials run as scripts, and their notebooks are renderings of them."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

jupytext = pytest.importorskip("jupytext", reason="tutorials are read by jupytext: [test]")

FOLDER = Path(__file__).resolve().parent.parent / "tutorials"
TUTORIALS = sorted(FOLDER.glob("[0-9][0-9]_*.py"))

# Runs a script as `python SCRIPT` does, and draws the figures that it leaves open into files,
# which a window would show.
DRIVER = """
import runpy, sys
from pathlib import Path
script = sys.argv[1]
sys.path[0] = str(Path(script).parent)
runpy.run_path(script, run_name="__main__")
import matplotlib.pyplot as plt
for number in plt.get_fignums():
    plt.figure(number).savefig(f"open_figure_{number}.png")
"""


def run_script(script: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in short mode, in a folder of its own, without a window."""
    short = {"SMOKE": "1", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", DRIVER, str(script)],
        cwd=folder,
        env={**os.environ, **short},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def code_cells(path: Path) -> list[str]:
    """Return the code cells of a script in percent format or of a notebook."""
    cells = jupytext.read(path).cells
    return [cell.source.strip() for cell in cells if cell.cell_type == "code"]


@pytest.mark.parametrize("script", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs_as_a_script_and_draws(script: Path, tmp_path: Path) -> None:
    done = run_script(script, tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    pictures = [*tmp_path.rglob("*.png"), *tmp_path.rglob("*.svg")]
    assert pictures, "the tutorial leaves no figure"
    assert all(picture.stat().st_size > 1000 for picture in pictures)


@pytest.mark.parametrize("script", TUTORIALS, ids=lambda path: path.stem)
def test_a_notebook_is_the_rendering_of_its_script(script: Path) -> None:
    notebook = script.with_suffix(".ipynb")
    if not notebook.exists():
        pytest.skip(f"{notebook.name} is not rendered here: make notebooks")
    assert code_cells(notebook) == code_cells(script), "the script changed: make notebooks"
    assert '"image/png"' in notebook.read_text()
    assert "site-packages" not in notebook.read_text(), "it names a folder of a machine"
    assert notebook.stat().st_size < 1_000_000


def test_a_failing_script_is_noticed(tmp_path: Path) -> None:
    script = tmp_path / "bad.py"
    script.write_text("import os\nassert os.environ['SMOKE'] != '1', 'short mode'\n")
    done = run_script(script, tmp_path)
    assert done.returncode != 0
    assert "short mode" in done.stderr


@pytest.fixture(scope="module")
def render() -> ModuleType:
    """Return `tutorials/render.py` as a module."""
    for needed in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(needed, reason="rendering needs the extra [tutorials]")
    spec = importlib.util.spec_from_file_location("render", FOLDER / "render.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rendering_runs_the_cells_and_keeps_the_pictures(
    render: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "beside.py").write_text("TITLE = 'A line'\n")
    script = tmp_path / "00_line.py"
    script.write_text(
        "# %% [markdown]\n# # A line\n# %%\n"
        "import matplotlib.pyplot as plt\nfrom beside import TITLE\n"
        "figure, axes = plt.subplots()\naxes.plot([1, 2])\naxes.set_title(TITLE)\n"
        "open('left_over.txt', 'w').close()\nplt.show()\n"
    )
    notebook = render.render(script)
    assert notebook == tmp_path / "00_line.ipynb"
    assert code_cells(notebook) == code_cells(script)
    assert render.count_pictures(jupytext.read(notebook)) == 1
    assert not (tmp_path / "left_over.txt").exists()

    notebook.unlink()
    with pytest.raises(ValueError, match="must stay under 2,000"):
        render.render(script, max_bytes=2_000)
    assert not notebook.exists()


def test_rendering_refuses_a_notebook_without_pictures(render: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "00_text.py"
    script.write_text("# %%\nprint('no picture')\n")
    with pytest.raises(ValueError, match="no cell shows a picture"):
        render.render(script)


def test_rendering_stops_at_a_cell_that_fails(render: ModuleType, tmp_path: Path) -> None:
    from nbclient.exceptions import CellExecutionError

    script = tmp_path / "00_wrong.py"
    script.write_text("# %%\n1 / 0\n")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        render.render(script)
    assert not script.with_suffix(".ipynb").exists()
