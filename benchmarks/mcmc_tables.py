# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What was measured of samplers, as a Markdown table."""

from __future__ import annotations

import math
from statistics import median, quantiles

from .mcmc_harness import Measured

_COLUMNS = (
    "sampler",
    "effective draws a second: median",
    "quartiles",
    "first row's rate relative to this",
    "by processor time",
    "without the warm-up, a second",
    "first row relative to this",
    "seconds a run",
    "processor time",
    "effective draws a run",
    "in the tails",
    "largest R-hat",
    "first run, compiling",
)


def table(measured: Measured) -> str:
    """One row a sampler.

    Example:
        >>> import numpy as np
        >>> from benchmarks.mcmc_harness import Measured, Posterior, Run
        >>> toy = Posterior("toy", "nothing", {"a": print, "b": print})
        >>> fast = Run(1.0, 1.0, 0.5, 900.0, 800.0, 1.0, np.zeros(2), np.zeros(2))
        >>> slow = Run(3.0, 2.0, 2.0, 900.0, 800.0, 1.0, np.zeros(2), np.zeros(2))
        >>> rows = table(Measured(toy, {"a": [fast], "b": [slow]}, {"a": 7.0})).splitlines()
        >>> rows[-1][:47]
        '| b | 300 | 300 - 300 | 3.00 | 2.00 | 450 | 4.0'
    """
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    for name in measured.posterior.samplers:
        if name in measured.missing:
            cells = [f"not run: {measured.missing[name]}"]
        elif name not in measured.runs:
            cells = ["not run"]
        else:
            cells = _cells(measured, name)
        cells += [""] * (len(_COLUMNS) - 1 - len(cells))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(measured: Measured, name: str) -> list[str]:
    runs = measured.runs[name]
    rates = [run.rate() for run in runs]
    low, _, high = quantiles(rates, n=4, method="inclusive") if len(rates) > 1 else 3 * rates
    r_hat = max(run.r_hat for run in runs)
    first = f"{measured.first[name]:.1f} s" if name in measured.first else "none"
    return [
        _count(median(rates)),
        f"{_count(low)} - {_count(high)}",
        f"{measured.ratio(name):.2f}",
        f"{measured.ratio(name, 'processor'):.2f}",
        _count(median(run.rate("drawing") for run in runs)),
        f"{measured.ratio(name, 'drawing'):.2f}",
        f"{median(run.seconds for run in runs):.2f}",
        f"{median(run.processor for run in runs):.2f}",
        _count(median(run.bulk for run in runs)),
        _count(median(run.tail for run in runs)),
        "one chain" if math.isnan(r_hat) else f"{r_hat:.3f}",
        first,
    ]


def _count(value: float) -> str:
    """With three digits, which are more than a run repeats.

    Example:
        >>> _count(31415.9), _count(2.7182)
        ('31,400', '2.72')
    """
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}"
