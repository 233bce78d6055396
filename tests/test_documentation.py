# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The documentation runs: docstring examples, the README's code blocks, commands and links."""

import doctest
import importlib
import io
import re
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"

# A ```python block goes on in the names of the block before where this line stands above it.
CONTINUED = "<!-- continued -->"
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


# ---------------------------------------------------------------- docstrings


def module_names() -> list[str]:
    """Return the dotted name of every module of the library, read off the files."""
    found = []
    for path in sorted((ROOT / "pyro_deepgen").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def run_doctests(module: ModuleType) -> tuple[int, str]:
    """Run a module's docstring examples, each with the names of its module.

    Returns:
        The number of examples that failed, and the report of the failures.
    """
    report = io.StringIO()
    failed = 0
    for test in doctest.DocTestFinder().find(module):
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
        failed += runner.run(test, out=report.write).failed
    return failed, report.getvalue()


@pytest.mark.parametrize("name", module_names())
def test_docstring_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed, report = run_doctests(importlib.import_module(name))
    assert failed == 0, report


def test_a_planted_wrong_example_is_found() -> None:
    module = ModuleType("planted")
    module.__doc__ = "Add.\n\n>>> import math\n>>> math.floor(2.5)\n3\n"
    failed, report = run_doctests(module)
    assert failed == 1
    assert "Expected:\n    3\nGot:\n    2" in report


# ---------------------------------------------------------------- README: code


class Block(NamedTuple):
    """A fenced block: its language, its first line in the file, its text, whether it goes on."""

    language: str
    line: int
    text: str
    continued: bool


def blocks(markdown: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found = []
    for match in FENCE.finditer(markdown):
        before = markdown[: match.start()]
        line = before.count("\n") + 2
        continued = before.rstrip().endswith(CONTINUED)
        found.append(Block(match[1], line, match[2], continued))
    return found


def programs(markdown: str) -> list[list[Block]]:
    """Return the Python programs of a page: a block, and the blocks that continue it."""
    found: list[list[Block]] = []
    for block in blocks(markdown):
        if block.language != "python":
            continue
        if block.continued:
            found[-1].append(block)
        else:
            found.append([block])
    return found


def run_program(program: list[Block]) -> None:
    """Run a program's blocks one after the other in one namespace."""
    names: dict[str, object] = {"__name__": "__main__"}
    for block in program:
        # The empty lines make a traceback point at the line of the README.
        code = compile("\n" * (block.line - 1) + block.text, "README.md", "exec")
        exec(code, names)


def readme() -> str:
    """Return the README's text, or nothing where there is none (which has its own test)."""
    return README.read_text() if README.exists() else ""


@pytest.mark.parametrize("program", programs(readme()), ids=lambda p: f"line{p[0].line}")
def test_readme_programs_run(
    program: list[Block], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_program(program)


def test_the_readme_has_a_first_program_of_at_most_20_lines() -> None:
    first = programs(README.read_text())[0][0]
    assert len([line for line in first.text.splitlines() if line.strip()]) <= 20


def test_blocks_are_found_and_continued() -> None:
    page = (
        "Text\n```python\na = 1\n```\nmore\n\n"
        f"{CONTINUED}\n```python\nassert a == 1\n```\n```bash\nmake x\n```\n"
        "```python\nassert a == 1\n```\n"
    )
    first, second = programs(page)
    assert [block.line for block in first] == [3, 9]
    run_program(first)
    with pytest.raises(NameError):
        run_program(second)


# ---------------------------------------------------------------- README: commands, links


def make_targets(makefile: str) -> set[str]:
    """Return the targets that a makefile names literally."""
    return set(re.findall(r"^([\w.-]+):(?!=)", makefile, re.MULTILINE))


def wrong_commands(markdown: str, root: Path) -> list[str]:
    """Return what the commands and code names of a page name, and the tree does not have.

    Looks at shell blocks and at `code` in the text: a target after `make`, and every word that
    reads as the path of a source file.
    """
    targets = make_targets((root / "Makefile").read_text())
    shell = [b.text for b in blocks(markdown) if b.language in ("bash", "sh", "console", "shell")]
    inline = re.findall(r"`([^`\n]+)`", FENCE.sub("", markdown))
    wrong = []
    for line in (part for text in [*shell, *inline] for part in re.split(r"\n|&&|;", text)):
        words = line.split()
        if "make" in words:
            called = words[words.index("make") + 1 :]
            names = [w for w in called if "=" not in w and not w.startswith(("-", "#"))][:1]
            wrong += [f"make {name}" for name in names if name not in targets]
        for word in words:
            if re.fullmatch(r"[\w./-]+\.(py|sh|cfg|toml|ipynb)", word) and "/" in word:
                wrong += [] if (root / word).exists() else [word]
    return wrong


def anchor(heading: str) -> str:
    """Return the anchor that a heading gets on the page."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def broken_links(markdown: str, folder: Path) -> list[str]:
    """Return the relative links and pictures of a page that lead nowhere."""
    text = FENCE.sub("", markdown)
    anchors = {anchor(found) for found in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    links = re.findall(r"\]\(\s*<?([^)\s>]+)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    broken = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, part = link.partition("#")
        if (path and not (folder / path).exists()) or (not path and part not in anchors):
            broken.append(link)
    return broken


def test_the_readmes_commands_name_what_exists() -> None:
    assert wrong_commands(README.read_text(), ROOT) == []


def test_the_readmes_links_lead_somewhere() -> None:
    assert broken_links(README.read_text(), ROOT) == []


def test_planted_wrong_commands_and_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("demo: .venv\n\ttrue\nX := 1\n")
    (tmp_path / "run.py").write_text("")
    right = "# A name\n```bash\nmake demo  # pictures\n./run.py && make demo A=1\n```\n"
    right += "`make demo` [a](run.py) [b](#a-name) [c](https://example.org/x.py)\n"
    assert wrong_commands(right, tmp_path) == []
    assert broken_links(right, tmp_path) == []

    wrong = "```bash\ncd a && make test\npython b/c.py\n```\n`./d.sh`\n[e](f.md) [g](#h)\n"
    assert wrong_commands(wrong, tmp_path) == ["make test", "b/c.py", "./d.sh"]
    assert broken_links(wrong, tmp_path) == ["f.md", "#h"]
