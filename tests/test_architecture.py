# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The library's layout: who imports whom, complete tables, headers, sizes and docstrings."""

import ast
import graphlib
import importlib
import inspect
import sys
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer import ELBO
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "pyro_deepgen"
HEADER = [
    "# Copyright Contributors to the pyro_deepgen project.",
    "# SPDX-License-Identifier: Apache-2.0",
]
MAX_LINES = 350

FAMILIES = {"transforms", "energy", "autoregressive", "latent", "implicit", "chains", "diffusion"}

# A part may import itself and what stands here. A part is a folder or a file of the library.
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "tracing": set(),
    "distributions": set(),
    "nn": set(),
    "mcmc": {"tracing"},
    "transforms": {"nn", "distributions"},
    "energy": {"nn", "distributions", "mcmc", "tracing"},
    "autoregressive": {"nn", "distributions"},
    "latent": {"nn", "distributions"},
    "implicit": {"nn", "distributions"},
    "chains": {"nn", "distributions", "mcmc"},
    "diffusion": {"nn", "distributions"},
    "infer": {"mcmc", "tracing", "distributions"},
    "fit": {"infer", "tracing"},
    "metrics": {"infer", "distributions"},
    "datasets": set(),
    "plots": set(),
}

# What every part may import from outside, and what only one part may (an extra of setup.cfg).
# torch requires typing_extensions, which has `Self` for Python 3.10.
THIRD_PARTY = {"pyro", "torch", "numpy", "arviz", "tqdm", "typing_extensions"}
THIRD_PARTY_OF = {"plots": {"matplotlib"}, "datasets": {"sklearn"}}


# ---------------------------------------------------------------- imports


def python_files(*folders: Path) -> list[Path]:
    """Return the Python files under some folders, without caches."""
    hidden = {"__pycache__", ".ipynb_checkpoints"}
    found = (path for folder in folders for path in folder.rglob("*.py"))
    return sorted(path for path in found if not hidden & set(path.parts))


def imported_modules(source: str, package: str) -> Iterator[str]:
    """Yield the absolute name of everything that a file imports, wherever in it.

    `from a import b` gives `a.b`: `b` may be a module, and if it is a name, `a` is the start of
    `a.b` all the same. `package` is the package of the file, against which dots are resolved.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            yield from (f"{start}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            if called in ("import_module", "__import__") and node.args:
                name = node.args[0]
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield name.value


def wrong_imports(library: Path) -> list[str]:
    """Return a line for each import under `library` that the tables above do not allow."""
    parts = {path.stem for path in library.iterdir() if path.suffix == ".py" or path.is_dir()}
    wrong = []
    for path in python_files(library):
        inside = path.relative_to(library)
        part = inside.parts[0].removesuffix(".py")
        package = ".".join([PACKAGE, *inside.parts[:-1]])
        if part not in MAY_IMPORT:
            wrong.append(f"{inside}: {part} has no row in MAY_IMPORT")
            continue
        for name in imported_modules(path.read_text(), package):
            top, _, rest = name.partition(".")
            if top == PACKAGE:
                target = rest.partition(".")[0]
                if target in parts - {part, "__init__"} - MAY_IMPORT[part]:
                    wrong.append(f"{inside}: {part} may not import {target}")
            elif top not in THIRD_PARTY | THIRD_PARTY_OF.get(part, set()) | sys.stdlib_module_names:
                wrong.append(f"{inside}: {part} may not import {top}")
    return wrong


def test_imports_point_the_right_way() -> None:
    assert wrong_imports(ROOT / PACKAGE) == []


def test_the_allowed_imports_have_no_cycle_and_no_family_knows_another() -> None:
    order = list(graphlib.TopologicalSorter(MAY_IMPORT).static_order())
    assert set(order) == set(MAY_IMPORT)
    for family in FAMILIES:
        assert not MAY_IMPORT[family] & FAMILIES
    for outermost in ("fit", "datasets", "metrics", "plots"):
        assert not any(outermost in allowed for allowed in MAY_IMPORT.values())


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("latent/vae.py", "from pyro_deepgen.energy import rbm", "latent may not import energy"),
        ("latent/vae.py", "from pyro_deepgen import energy", "latent may not import energy"),
        ("latent/vae.py", "import pyro_deepgen.energy.rbm as r", "latent may not import energy"),
        ("latent/vae.py", "from ..energy.rbm import RBM", "latent may not import energy"),
        ("latent/__init__.py", "from .. import energy", "latent may not import energy"),
        ("latent/vae.py", "def f():\n    from .. import fit", "latent may not import fit"),
        ("nn/deep/nets.py", "from ...latent import vae", "nn may not import latent"),
        ("fit.py", "from .latent import vae", "fit may not import latent"),
        ("fit.py", "import importlib\nimportlib.import_module('pyro_deepgen.latent')", "latent"),
        ("__init__.py", "from . import latent", "__init__ may not import latent"),
        ("latent/vae.py", "import matplotlib.pyplot", "latent may not import matplotlib"),
        ("utils/many.py", "import torch", "utils has no row in MAY_IMPORT"),
    ],
)
def test_a_planted_wrong_import_is_found(
    tmp_path: Path, file: str, line: str, message: str
) -> None:
    library = tmp_path / PACKAGE
    right = {
        "__init__.py": "__version__ = '0'",
        "fit.py": "from pyro_deepgen.infer import bound\nimport tqdm",
        "nn/__init__.py": "",
        "nn/deep/nets.py": "from torch import nn",
        "energy/__init__.py": "from . import rbm",
        "energy/rbm.py": "",
        "infer/bound.py": "import math",
        "latent/__init__.py": "from .vae import VAE",
        "latent/vae.py": "from ..nn.deep import nets\nfrom pyro_deepgen import nn, __version__",
    }
    for name, text in right.items():
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text(text)
    assert wrong_imports(library) == []

    (library / file).parent.mkdir(parents=True, exist_ok=True)
    (library / file).write_text(line)
    (found,) = wrong_imports(library)
    assert message in found


# ---------------------------------------------------------------- files


def headless(files: Iterable[Path]) -> list[str]:
    """Return the files that do not begin with the two lines of the licence."""
    return [str(f) for f in files if f.read_text().splitlines()[:2] != HEADER]


def too_long(files: Iterable[Path], limit: int = MAX_LINES) -> list[str]:
    """Return the files that have `limit` lines or more."""
    return [str(f) for f in files if len(f.read_text().splitlines()) >= limit]


def test_every_python_file_names_its_licence() -> None:
    folders = [ROOT / name for name in (PACKAGE, "tests", "tutorials", "benchmarks")]
    files = python_files(*folders)
    assert len(files) > 5
    assert headless(files) == []


def test_no_file_is_too_long() -> None:
    assert too_long(python_files(ROOT / PACKAGE, ROOT / "tests")) == []


def test_planted_bad_files_are_found(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text("\n".join([*HEADER, "x = 1"]))
    bad.write_text("x = 1\n" * MAX_LINES)
    assert headless([good, bad]) == [str(bad)]
    assert too_long([good, bad]) == [str(bad)]


# ---------------------------------------------------------------- public names


def subpackages() -> list[str]:
    """Return the parts of the library that hold public names."""
    paths = (ROOT / PACKAGE).iterdir()
    names = {p.stem for p in paths if p.suffix == ".py" or (p / "__init__.py").exists()}
    return sorted(names - {"__init__"})


def public_names(part: str) -> dict[str, Any]:
    """Return what a part lists in its `__all__`."""
    module = importlib.import_module(f"{PACKAGE}.{part}")
    return {name: getattr(module, name) for name in module.__all__}


def undocumented(names: Mapping[str, Any]) -> list[str]:
    """Return the classes and functions without a docstring of their own that has an example.

    An exception needs the docstring only: the example is that of what raises it.
    """
    wrong = []
    for name, thing in names.items():
        if not (inspect.isclass(thing) or inspect.isroutine(thing)):
            continue
        text = thing.__dict__.get("__doc__") if inspect.isclass(thing) else thing.__doc__
        if not text:
            wrong.append(f"{name}: no docstring")
        elif inspect.isclass(thing) and issubclass(thing, BaseException):
            continue
        elif "Example:" not in text or ">>> " not in text:
            wrong.append(f"{name}: no example in its docstring")
    return wrong


@pytest.mark.parametrize("part", subpackages())
def test_every_public_name_shows_an_example(part: str) -> None:
    assert undocumented(public_names(part)) == []


def test_planted_bare_names_are_found() -> None:
    class Documented:
        """Say what it is.

        Example:
            >>> 1 + 1
            2
        """

    class Inherits(Documented): ...

    def unshown() -> None:
        """Say what it does."""

    found = undocumented({"Documented": Documented, "Inherits": Inherits, "unshown": unshown})
    assert found == ["Inherits: no docstring", "unshown: no example in its docstring"]


# ---------------------------------------------------------------- tables


def kinds() -> dict[str, type]:
    """Return each table's name with the base class of its kind, the narrowest kind first."""
    from pyro_deepgen.latent import Pair

    return {
        "PAIRS": Pair,
        "OBJECTIVES": ELBO,
        "KERNELS": MCMCKernel,
        "TRANSFORMS": dist.TransformModule,
        # The mixin, since Pyro's own classes are TorchDistributionMixin and not TorchDistribution.
        "DISTRIBUTIONS": TorchDistributionMixin,
    }


def missing_rows(
    part: str, names: Mapping[str, Any], bases: Mapping[str, type], tables: Mapping[str, Any]
) -> list[str]:
    """Return a line for each concrete public class that has no row in the table of its kind.

    A table is a list of rows, or a mapping to rows; a row's `cls` is the class it tests.
    """
    missing = []
    for name, thing in names.items():
        if not inspect.isclass(thing) or inspect.isabstract(thing):
            continue
        table = next((t for t, base in bases.items() if issubclass(thing, base)), None)
        if table is None or thing in bases.values():
            continue
        if table == "DISTRIBUTIONS" and part == "energy":
            table = "ENERGIES"
        rows = tables.get(table, ())
        rows = rows.values() if isinstance(rows, Mapping) else rows
        if thing not in [row.cls for row in rows]:
            missing.append(f"{part}.{name} has no row in {table} of tests/tables.py")
    return missing


def exempt_bases() -> Collection[type]:
    """Return what has no row: base classes without an instance, and a kind with one class.

    A deep belief net is directed below its top machine: neither an energy nor, in training, a
    density. ``tests/energy/test_dbn.py`` tests it.
    """
    from pyro_deepgen.distributions import DistributionModule
    from pyro_deepgen.energy import DeepBeliefNet

    return [DistributionModule, DeepBeliefNet]


@pytest.mark.parametrize("part", subpackages())
def test_every_public_class_is_in_its_table(part: str) -> None:
    tables = vars(importlib.import_module("tests.tables"))
    names = {n: thing for n, thing in public_names(part).items() if thing not in exempt_bases()}
    assert missing_rows(part, names, kinds(), tables) == []


def test_a_planted_missing_class_is_found() -> None:
    class Bound(ELBO):
        def _get_trace(self, *args: Any) -> None: ...

    class Halfway(ELBO):
        @abstractmethod
        def weigh(self) -> None: ...

    class Machine(dist.Normal): ...

    class Row:
        def __init__(self, cls: type) -> None:
            self.cls = cls

    names = {
        "ELBO": ELBO,
        "Bound": Bound,
        "Halfway": Halfway,
        "Machine": Machine,
        "f": missing_rows,
    }
    bases = {"OBJECTIVES": ELBO, "DISTRIBUTIONS": TorchDistributionMixin}
    assert missing_rows("infer", names, bases, {}) == [
        "infer.Bound has no row in OBJECTIVES of tests/tables.py",
        "infer.Machine has no row in DISTRIBUTIONS of tests/tables.py",
    ]
    tables = {"OBJECTIVES": [Row(Bound)], "DISTRIBUTIONS": {"machine": Row(Machine)}}
    assert missing_rows("infer", names, bases, tables) == []
    assert missing_rows("energy", {"Machine": Machine}, bases, tables) == [
        "energy.Machine has no row in ENERGIES of tests/tables.py"
    ]
