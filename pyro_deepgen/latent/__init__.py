# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Model/guide pairs: directed models with latent variables, ready for SVI and every ELBO."""

from .conditional import Conditional, ConditionsOnContext
from .conditional_vae import ConditionalVAE, conditional_vae
from .hierarchical_vae import HierarchicalVAE, hierarchical_vae
from .likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
)
from .pair import Pair, PairView
from .posteriors import CholeskyNormalPosterior, DiagonalNormalPosterior
from .semi_supervised_vae import SemiSupervisedVAE, semi_supervised_vae
from .vae import VAE, vae

__all__ = [
    "VAE",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "CholeskyNormalPosterior",
    "Conditional",
    "ConditionalVAE",
    "ConditionsOnContext",
    "DiagonalNormalPosterior",
    "DiscretizedLogisticLikelihood",
    "GaussianLikelihood",
    "HierarchicalVAE",
    "Pair",
    "PairView",
    "SemiSupervisedVAE",
    "conditional_vae",
    "hierarchical_vae",
    "semi_supervised_vae",
    "vae",
]
