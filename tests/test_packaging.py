# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The wheel: what is in it, and that it installs and imports away from the tree."""

import configparser
import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pyro_deepgen

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = configparser.ConfigParser()
SETTINGS.read(ROOT / "setup.cfg")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command and return what it printed; fail with its errors where it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the tree, so that the tree stays as it is."""
    tree = tmp_path_factory.mktemp("wheel") / "tree"
    tree.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pyro_deepgen", tree / "pyro_deepgen", ignore=ignore)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", cwd=tree)
    (built,) = (tree / "dist").glob("*.whl")
    return built


def direct_requirements() -> dict[str, list[str]]:
    """Return the requirements of setup.cfg by the extra that asks for them, "" for the library."""
    groups = {"": SETTINGS["options"]["install_requires"], **SETTINGS["options.extras_require"]}
    return {extra: text.split("\n")[1:] for extra, text in groups.items()}


def distribution(requirement: str) -> str:
    """Return the normal form of the name that a requirement starts with."""
    found = re.match(r"[A-Za-z0-9_.-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def test_the_wheel_holds_the_library_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    library = {n for n in names if ".dist-info/" not in n}
    files = (ROOT / "pyro_deepgen").rglob("*.py")
    expected = {path.relative_to(ROOT).as_posix() for path in files}
    assert library == expected | {"pyro_deepgen/py.typed"}
    assert any(re.search(r"\.dist-info/(licenses/)?LICENSE$", name) for name in names)


def test_the_wheels_metadata_is_that_of_setup_cfg(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Version"] == pyro_deepgen.__version__
    assert metadata["Requires-Python"] == SETTINGS["options"]["python_requires"]
    assert "Apache-2.0" in (metadata["License-Expression"] or metadata["License"])
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "Copyright" in archive.read(name.replace("METADATA", "licenses/LICENSE")).decode()
    assert set(metadata.get_all("Provides-Extra", [])) == set(direct_requirements()) - {""}
    runtime = [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert {distribution(r) for r in runtime} == {"pyro-ppl", "torch", "numpy", "arviz", "tqdm"}


def test_the_wheel_installs_and_imports_away_from_the_tree(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target"]
    run(*pip, target, wheel, cwd=elsewhere)
    # Without scikit-learn, which is an extra. (matplotlib is one too, but comes with arviz.)
    program = (
        "import importlib, pkgutil, sys, pyro_deepgen\n"
        "sys.modules['sklearn'] = None\n"
        "for found in pkgutil.walk_packages(pyro_deepgen.__path__, 'pyro_deepgen.'):\n"
        "    importlib.import_module(found.name)\n"
        "print(pyro_deepgen.__version__, pyro_deepgen.__file__, sep='\\n')\n"
    )
    printed = run(sys.executable, "-c", program, cwd=elsewhere, PYTHONPATH=str(target))
    version, file = printed.splitlines()
    assert version == pyro_deepgen.__version__
    assert Path(file).is_relative_to(target)


def test_every_direct_requirement_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    pinned = {distribution(pin) for pin in pins}
    asked = {distribution(r) for group in direct_requirements().values() for r in group}
    assert asked - {"pyro-deepgen"} - pinned == set()
    assert "torch==2.13.0" in pins
