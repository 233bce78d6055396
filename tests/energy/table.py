# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The table of energies: the rows of all `rows_*.py` beside this file."""

import importlib
from pathlib import Path

from tests.energy.energy_row import EnergyRow as EnergyRow

ENERGIES: list[EnergyRow] = []
for path in sorted(Path(__file__).parent.glob("rows_*.py")):
    ENERGIES += importlib.import_module(f"tests.energy.{path.stem}").ROWS
