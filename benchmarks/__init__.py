# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Speed beside other libraries: `make bench` measures, and writes the tables of the README."""
