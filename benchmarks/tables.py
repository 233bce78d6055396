# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Results as Markdown tables, and the place in a document where they stand."""

from __future__ import annotations

import re
from statistics import median

from .harness import Result

_HEADER = (
    "| contestant | ms a step: median | quartiles | fastest | processor time, median "
    "| time relative to the first row | by processor time | first two steps |\n"
    "|---|---|---|---|---|---|---|---|"
)


def table(result: Result) -> str:
    """One row a contestant.

    Example:
        >>> from benchmarks.harness import Case, Result
        >>> case = Case("toy", "nothing", 1, (), {"a": print, "b": print})
        >>> times = {"a": [1.0, 1.0], "b": [3.0, 3.0]}
        >>> print(table(Result(case, times, times, {"a": 2.0, "b": 0.01})).splitlines()[-1])
        | b | 3.00 | 3.00 - 3.00 | 3.00 | 3.00 | 3.00 (3.00 - 3.00) | 3.00 | 0.0 s |
    """
    lines = [_HEADER]
    for name in result.case.contestants:
        if name in result.missing:
            lines.append(f"| {name} | not run: {result.missing[name]} | | | | | | |")
        elif name not in result.samples:
            lines.append(f"| {name} | not run | | | | | | |")
        else:
            fastest, low, middle, high = result.quantiles(name)
            ratio_low, ratio, ratio_high = result.ratio(name)
            lines.append(
                f"| {name} | {middle:.2f} | {low:.2f} - {high:.2f} | {fastest:.2f} "
                f"| {median(result.processor[name]):.2f} "
                f"| {ratio:.2f} ({ratio_low:.2f} - {ratio_high:.2f}) "
                f"| {result.processor_ratio(name):.2f} | {result.first[name]:.1f} s |"
            )
    return "\n".join(lines)


def rewrite(document: str, name: str, text: str) -> str:
    r"""Put a text between the markers of that name, and leave the rest of the document.

    Raises:
        ValueError: if the document has no such pair of markers, or several.

    Example:
        >>> page = "top\n<!-- begin a -->\nold\n<!-- end a -->\nbottom"
        >>> rewrite(page, "a", "new").splitlines()
        ['top', '<!-- begin a -->', 'new', '<!-- end a -->', 'bottom']
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(document)) != 1:
        raise ValueError(
            f"expected the lines {begin!r} and {end!r} once, in this order, in the document: add "
            "them where the table is to stand"
        )
    return pattern.sub(lambda _: f"{begin}\n{text}\n{end}", document)
