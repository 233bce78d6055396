# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The table of kernels; a family of kernels has its rows in a file of its own."""

from tests.mcmc.kernel_row import KernelRow as KernelRow
from tests.mcmc.rows_combined import ROWS as COMBINED
from tests.mcmc.rows_hamiltonian import ROWS as HAMILTONIAN
from tests.mcmc.rows_simple import ROWS as SIMPLE
from tests.mcmc.rows_tempering import ROWS as TEMPERING

KERNELS: list[KernelRow] = [*SIMPLE, *HAMILTONIAN, *COMBINED, *TEMPERING]
