# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Markov chain Monte Carlo of all chains at once, and annealed importance sampling."""

from .ais import ais
from .ais_result import AISResult
from .block_gibbs import BlockGibbs
from .block_sampler import BlockSampler
from .chains import Chains
from .chees import ChEES
from .compiled import compiled
from .data_target import DataTarget
from .discrete_gibbs import DiscreteGibbs
from .distribution_target import DistributionTarget
from .dual_averaging import DualAveraging
from .gibbs import Gibbs
from .hmc import HMC
from .kernel import Kernel
from .langevin import Langevin
from .log_likelihood import LogLikelihood, annealed_log_likelihood
from .mala import MALA
from .metropolis import choose
from .model_target import ModelTarget
from .nuts import NUTS
from .parallel_tempering import ParallelTempering
from .potential_target import PotentialTarget
from .random_walk import RandomWalk
from .run import StoppedRunError, run
from .slice_sampler import SliceSampler
from .state import pack, unpack
from .target import Site, Target
from .tempered_transitions import TemperedTransitions

__all__ = [
    "HMC",
    "MALA",
    "NUTS",
    "AISResult",
    "BlockGibbs",
    "BlockSampler",
    "ChEES",
    "Chains",
    "DataTarget",
    "DiscreteGibbs",
    "DistributionTarget",
    "DualAveraging",
    "Gibbs",
    "Kernel",
    "Langevin",
    "LogLikelihood",
    "ModelTarget",
    "ParallelTempering",
    "PotentialTarget",
    "RandomWalk",
    "Site",
    "SliceSampler",
    "StoppedRunError",
    "Target",
    "TemperedTransitions",
    "ais",
    "annealed_log_likelihood",
    "choose",
    "compiled",
    "pack",
    "run",
    "unpack",
]
