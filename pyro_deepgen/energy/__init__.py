# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Distributions that are known up to their normalising constants."""

from .boltzmann_machine import BoltzmannMachine
from .convolutional_dbm import ConvolutionalDBM
from .convolutional_layers import ConvolutionalLayer
from .convolutional_rbm import ConvolutionalRBM
from .deep_belief_net import DeepBeliefNet
from .deep_boltzmann_machine import DeepBoltzmannMachine
from .discriminative_rbm import DiscriminativeRBM, LabelledUnits
from .energy_distribution import EnergyDistribution
from .hybrid_objective import HybridObjective
from .log_partition import LogPartition, UnknownPartitionError
from .mean_field import MeanField
from .mean_field_classifier import MeanFieldClassifier
from .multi_prediction import MultiPrediction
from .negative_phase import ContrastiveDivergence, NegativePhase, PersistentChains
from .negative_phase_fast_weights import FastWeights
from .negative_phase_tempered import TemperedChains
from .neural_energy import NeuralEnergy
from .pooling import ProbabilisticMaxPooling
from .pretraining import NegativeLogProb, Stage
from .rbm import RBM
from .rbm_kinds import gaussian_rbm, multinomial_rbm, rectified_rbm
from .rectified_units import RectifiedUnits
from .replay_buffer import ReplayBuffer
from .units import BinaryUnits, GaussianUnits, SoftmaxUnits, Units

__all__ = [
    "RBM",
    "BinaryUnits",
    "BoltzmannMachine",
    "ContrastiveDivergence",
    "ConvolutionalDBM",
    "ConvolutionalLayer",
    "ConvolutionalRBM",
    "DeepBeliefNet",
    "DeepBoltzmannMachine",
    "DiscriminativeRBM",
    "EnergyDistribution",
    "FastWeights",
    "GaussianUnits",
    "HybridObjective",
    "LabelledUnits",
    "LogPartition",
    "MeanField",
    "MeanFieldClassifier",
    "MultiPrediction",
    "NegativeLogProb",
    "NegativePhase",
    "NeuralEnergy",
    "PersistentChains",
    "ProbabilisticMaxPooling",
    "RectifiedUnits",
    "ReplayBuffer",
    "SoftmaxUnits",
    "Stage",
    "TemperedChains",
    "Units",
    "UnknownPartitionError",
    "gaussian_rbm",
    "multinomial_rbm",
    "rectified_rbm",
]
