# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Deep generative models as ordinary Pyro objects."""

__all__ = ["__version__"]

__version__ = "0.1.0"
