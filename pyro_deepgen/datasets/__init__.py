# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Data: real images and two-dimensional toys, with one protocol for their preparation."""

from pyro_deepgen.datasets.binarization import BINARIZATIONS, Binarize, binarize
from pyro_deepgen.datasets.dataset import DataScale, Dataset
from pyro_deepgen.datasets.dequantization import dequantize, dequantized_scale, quantize
from pyro_deepgen.datasets.images import PROTOCOLS, digits, frey_faces, mnist
from pyro_deepgen.datasets.mu_law import MuLaw
from pyro_deepgen.datasets.potentials import POTENTIALS, Potential, potential
from pyro_deepgen.datasets.toy import TOYS, toy

__all__ = [
    "BINARIZATIONS",
    "POTENTIALS",
    "PROTOCOLS",
    "TOYS",
    "Binarize",
    "DataScale",
    "Dataset",
    "MuLaw",
    "Potential",
    "binarize",
    "dequantize",
    "dequantized_scale",
    "digits",
    "frey_faces",
    "mnist",
    "potential",
    "quantize",
    "toy",
]
