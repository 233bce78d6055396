# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a row of the table of kernels is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pyro_deepgen.mcmc.kernel import Kernel
from tests.mcmc.exact_targets import CONTINUOUS

Make = Callable[[Any], Kernel]


@dataclass(frozen=True)
class KernelRow:
    """A kernel and the targets that it suits.

    `make` takes a program (a Pyro model, mostly) and gives the kernel with ``compile=False``; a
    kernel of kernels makes these likewise. `targets` are names in EXACT_TARGETS. `broken` are
    deliberately broken copies by what is wrong with them, each with the name of a target where it
    shows. `num_steps` is how many steps the tests of invariance take.
    """

    name: str
    cls: type
    make: Make
    targets: tuple[str, ...] = CONTINUOUS
    broken: Mapping[str, tuple[str, Make]] = field(default_factory=dict)
    num_steps: int = 3
