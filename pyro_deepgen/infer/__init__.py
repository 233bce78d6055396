# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Objectives and engines: bounds for any Pyro model and guide, losses for any energy."""

from .auto_flow import AutoFlow
from .compiled_loss import CompiledLoss
from .compiled_svi import CompiledSVI
from .energy_objective import EnergyObjective
from .importance_weighted import ImportanceWeightedELBO
from .log_weights import LogWeights, log_weights
from .mean_field import MeanFieldELBO
from .noise_contrastive import NoiseContrastiveEstimation
from .objective import Objective
from .pseudo_likelihood import PseudoLikelihood
from .ratio_matching import RatioMatching
from .score_matching import DenoisingScoreMatching, ScoreMatching, SlicedScoreMatching
from .self_supervised_boosting import BoostingRound, SelfSupervisedBoosting

__all__ = [
    "AutoFlow",
    "BoostingRound",
    "CompiledLoss",
    "CompiledSVI",
    "DenoisingScoreMatching",
    "EnergyObjective",
    "ImportanceWeightedELBO",
    "LogWeights",
    "MeanFieldELBO",
    "NoiseContrastiveEstimation",
    "Objective",
    "PseudoLikelihood",
    "RatioMatching",
    "ScoreMatching",
    "SelfSupervisedBoosting",
    "SlicedScoreMatching",
    "log_weights",
]
