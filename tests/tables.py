# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""One table a kind: a small instance of every public class, for the tests that all share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from torch import nn
from torch.nn.functional import one_hot

from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.infer import ImportanceWeightedELBO, MeanFieldELBO
from pyro_deepgen.latent import (
    VAE,
    CategoricalLikelihood,
    CholeskyNormalPosterior,
    ConditionalVAE,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    HierarchicalVAE,
    Pair,
    SemiSupervisedVAE,
    conditional_vae,
    hierarchical_vae,
    semi_supervised_vae,
    vae,
)
from pyro_deepgen.nn import MLP, ConvDecoder, ConvEncoder
from pyro_deepgen.transforms import cholesky_affine, planar
from tests.distributions.table import DISTRIBUTIONS as DISTRIBUTIONS
from tests.distributions.table import DistributionRow as DistributionRow
from tests.energy.table import ENERGIES as ENERGIES
from tests.mcmc.kernel_row import KernelRow as KernelRow
from tests.mcmc.table import KERNELS as KERNELS
from tests.transforms.table import TRANSFORMS as TRANSFORMS

Shape = Sequence[int]


def named(rows: Sequence[Any]) -> dict[str, Any]:
    """Return the arguments of `parametrize` that run a test once a row, under the row's name."""
    return {"argvalues": rows, "ids": [row.name for row in rows]}


# ---------------------------------------------------------------- model/guide pairs


def binary(shape: Shape) -> torch.Tensor:
    return torch.bernoulli(torch.full(tuple(shape), 0.4))


def real(shape: Shape) -> torch.Tensor:
    return torch.randn(tuple(shape))


def counts(shape: Shape) -> torch.Tensor:
    return torch.poisson(torch.full(tuple(shape), 2.0))


def integers(num: int, shape: Shape) -> torch.Tensor:
    return torch.randint(num, tuple(shape))


def levels(num: int, shape: Shape) -> torch.Tensor:
    return integers(num, shape).to(torch.get_default_dtype()) / (num - 1)


def one_hot_vectors(num: int, shape: Shape) -> torch.Tensor:
    return one_hot(integers(num, shape), num).to(torch.get_default_dtype())


def partly_known(num: int, shape: Shape) -> torch.Tensor:
    return integers(num + 1, shape) - 1


@dataclass(frozen=True)
class PairRow:
    """A model/guide pair and data for it.

    `data` makes data of a shape, `context` the further arguments for a batch shape. Parameters are
    random: a zero would hide a wrong sign. `reparametrized` says that every latent is, `has_means`
    that the distributions have means in closed form.
    """

    name: str
    cls: type
    build: Callable[[], Pair]
    data: Callable[[Shape], torch.Tensor]
    context: tuple[Callable[[Shape], torch.Tensor], ...] = field(default=())
    reparametrized: bool = True
    has_means: bool = True

    def make(self) -> Any:
        return self.build()

    def make_batch(self, batch_shape: Shape = (4,)) -> tuple[torch.Tensor, ...]:
        """Return the arguments of model and guide for a batch shape."""
        shape = (*batch_shape, *self.make().data_shape)
        return (self.data(shape), *(make(batch_shape) for make in self.context))


class Poisson(nn.Module):
    """A likelihood by protocol, without params_shape."""

    def condition(self, context: torch.Tensor) -> Any:
        return dist.Poisson(context.exp())


def trained_prior() -> Any:
    base = dist.Normal(nn.Parameter(torch.zeros(2)), torch.ones(2)).to_event(1)
    flow = dist.transforms.Spline(2, count_bins=4, bound=8.0)
    return dist.TransformedDistribution(base, [flow])


def student_posterior(context: torch.Tensor) -> Any:
    loc, scale = context.chunk(2, -1)
    return dist.StudentT(5.0, loc, scale.exp())


def conditional_flow_vae() -> VAE:
    """Return a pair whose posterior is one of Pyro's conditional flows, which are no modules."""
    base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    warp = dist.transforms.conditional_affine_autoregressive(2, context_dim=5, hidden_dims=[8])
    swap = dist.transforms.Permute(torch.tensor([1, 0]))
    flow = dist.ConditionalTransformedDistribution(base, [warp, swap])
    return VAE(MLP(3, (8,), 5, activation=nn.Tanh), MLP(2, (8,), 3), 2, posterior=flow)


def flow_vae() -> VAE:
    """Return a pair with flows as prior and as posterior."""
    base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    prior = FlowDistribution(base, [planar(2), cholesky_affine(2)])
    context: dict[str, Any] = {"context_dim": 5, "hidden_dims": (8,)}
    steps = [cholesky_affine(2, **context), planar(2, **context), planar(2)]
    posterior = FlowDistribution(base, steps)
    encoder = MLP(3, (8,), 5, activation=nn.Tanh)
    return VAE(encoder, MLP(2, (8,), 3), 2, prior=prior, posterior=posterior)


def poisson_vae() -> VAE:
    return VAE(
        MLP(3, (8,), 4),
        MLP(2, (8,), 3),
        2,
        likelihood=Poisson(),
        prior=trained_prior(),
        posterior=student_posterior,
    )


def conv_vae(upsampling: Any) -> VAE:
    size: dict[str, Any] = {"channels": (2, 3), "hidden_dim": 8, "activation": nn.Tanh}
    return VAE(
        ConvEncoder((1, 8, 8), 4, **size),
        ConvDecoder(2, (1, 8, 8), upsampling=upsampling, **size),
        2,
    )


def conditional_conv_vae() -> ConditionalVAE:
    size: dict[str, Any] = {"channels": (2,), "hidden_dim": 8, "context_dim": 3}
    return ConditionalVAE(
        ConvEncoder((1, 4, 4), 4, **size),
        ConvDecoder(2, (1, 4, 4), params_per_pixel=2, **size),
        2,
        3,
        likelihood=GaussianLikelihood("decoded"),
        prior=dist.MultivariateNormal(torch.ones(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]])),
    )


# All smooth, so that finite differences and long chains behave.
NET: dict[str, Any] = {"hidden_dims": (8,), "activation": nn.Tanh}

PAIRS = [
    PairRow("vae_bernoulli", VAE, lambda: vae(6, 2, **NET), binary),
    PairRow(
        "vae_gaussian_fixed_cholesky",
        VAE,
        lambda: vae(
            3,
            2,
            likelihood=GaussianLikelihood("fixed", scale=0.7),
            posterior=CholeskyNormalPosterior(),
            **NET,
        ),
        real,
    ),
    PairRow(
        "vae_gaussian_shared",
        VAE,
        lambda: vae((2, 2), 2, likelihood=GaussianLikelihood("shared"), **NET),
        real,
    ),
    PairRow(
        "vae_gaussian_decoded",
        VAE,
        lambda: vae((2, 2), 2, likelihood=GaussianLikelihood("decoded"), **NET),
        real,
    ),
    PairRow(
        "vae_categorical",
        VAE,
        lambda: vae(4, 2, likelihood=CategoricalLikelihood(3), **NET),
        partial(integers, 3),
    ),
    PairRow(
        "vae_discretized_logistic",
        VAE,
        lambda: vae(4, 2, likelihood=DiscretizedLogisticLikelihood(num_levels=5), **NET),
        partial(levels, 5),
    ),
    PairRow("vae_poisson_trained_prior", VAE, poisson_vae, counts),
    PairRow("vae_conditional_flow", VAE, conditional_flow_vae, binary, has_means=False),
    PairRow("vae_flow_prior_and_posterior", VAE, flow_vae, binary, has_means=False),
    PairRow("vae_conv_transposed", VAE, partial(conv_vae, "transposed"), binary),
    PairRow("vae_conv_unpool", VAE, partial(conv_vae, "unpool"), binary),
    PairRow(
        "conditional_vae",
        ConditionalVAE,
        lambda: conditional_vae((1, 2, 2), 2, 3, **NET),
        binary,
        (lambda batch: one_hot_vectors(3, batch),),
    ),
    PairRow(
        "conditional_vae_learned_prior",
        ConditionalVAE,
        lambda: conditional_vae(4, 2, 3, learn_prior=True, **NET),
        binary,
        (lambda batch: one_hot_vectors(3, batch),),
    ),
    PairRow(
        "conditional_vae_conv",
        ConditionalVAE,
        conditional_conv_vae,
        real,
        (lambda batch: one_hot_vectors(3, batch),),
    ),
    PairRow(
        "semi_supervised_vae",
        SemiSupervisedVAE,
        lambda: semi_supervised_vae(5, 2, 3, class_probs=torch.tensor([0.5, 0.3, 0.2]), **NET),
        binary,
        (lambda batch: partly_known(3, batch),),
        reparametrized=False,
    ),
    PairRow(
        "hierarchical_vae",
        HierarchicalVAE,
        lambda: hierarchical_vae(5, (3, 2), ((8,), (6,))),
        binary,
    ),
    PairRow(
        "hierarchical_vae_three_layers",
        HierarchicalVAE,
        lambda: hierarchical_vae(
            (2, 2), (3, 2, 1), ((8,), (6,), (4,)), likelihood=GaussianLikelihood("shared")
        ),
        real,
    ),
]


# ---------------------------------------------------------------- objectives


@dataclass(frozen=True)
class ObjectiveRow:
    """An objective; `reparametrized` says that it needs reparametrised latents."""

    name: str
    cls: type
    make: Callable[[], Any]
    reparametrized: bool = True


OBJECTIVES = [
    ObjectiveRow("iwae", ImportanceWeightedELBO, lambda: ImportanceWeightedELBO(3, "iwae")),
    ObjectiveRow("stl", ImportanceWeightedELBO, lambda: ImportanceWeightedELBO(3, "stl")),
    ObjectiveRow("dreg", ImportanceWeightedELBO, lambda: ImportanceWeightedELBO(3, "dreg")),
    ObjectiveRow(
        "vimco", ImportanceWeightedELBO, lambda: ImportanceWeightedELBO(3, "vimco"), False
    ),
    ObjectiveRow("mean_field", MeanFieldELBO, lambda: MeanFieldELBO(2)),
    ObjectiveRow("mean_field_stl", MeanFieldELBO, lambda: MeanFieldELBO(2, "stl")),
]
