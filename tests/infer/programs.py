# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Pyro programs of all kinds, small, for the tests that hold recorded losses against eager ones."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import (
    AutoDiagonalNormal,
    AutoIAFNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from torch import nn

from pyro_deepgen.infer import ImportanceWeightedELBO, MeanFieldELBO
from pyro_deepgen.latent import VAE, conditional_vae, hierarchical_vae, semi_supervised_vae, vae
from pyro_deepgen.nn import ConvDecoder, ConvEncoder
from tests.infer.small_programs import (
    GuideModule,
    bayesian_net,
    binary,
    flow_guide,
    hidden_markov,
    legacy,
    markov,
    mixture,
    nested_plates,
    partly_observed,
    regression,
    score_function,
    with_params,
)

NET: dict[str, Any] = {"hidden_dims": (8,), "activation": nn.Tanh}


@dataclass(frozen=True)
class Program:
    """A model, a guide, an ELBO and arguments, made anew at each call of `build`.

    `local`: that both are modules, whose parameters are also trained without Pyro's store.
    """

    name: str
    build: Callable[[], tuple[Any, Any, Any, tuple[Any, ...]]]
    local: bool = False

    def make(self) -> tuple[Any, Any, Any, tuple[Any, ...]]:
        """Return the same program at each call, with an empty store and all parameters made."""
        pyro.clear_param_store()
        torch.manual_seed(5)
        model, guide, elbo, args = self.build()
        for program in (guide, model):
            if not isinstance(program, VAE):
                poutine.trace(program).get_trace(*args)
        return model, guide, elbo, args


def pair(make: Callable[[], Any], elbo: Callable[[], Any], *shape: int) -> Any:
    made = make()
    return made.model, made.guide, elbo(), (binary(*shape),)


def conv() -> VAE:
    size: dict[str, Any] = {"channels": (2, 3), "hidden_dim": 8, "activation": nn.Tanh}
    return VAE(ConvEncoder((1, 8, 8), 4, **size), ConvDecoder(2, (1, 8, 8), **size), 2)


def norm_and_dropout() -> VAE:
    encoder = nn.Sequential(
        nn.Linear(6, 8, bias=False),  # its gradient would be 0, but for rounding
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(8, 4),
    )
    decoder = nn.Sequential(
        nn.Linear(2, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 6)
    )
    return VAE(encoder, decoder, 2)


def conditional() -> Any:
    made = conditional_vae(6, 2, 3, learn_prior=True, **NET)
    y = nn.functional.one_hot(torch.randint(3, (5,)), 3).to(torch.get_default_dtype())
    return made.model, made.guide, Trace_ELBO(), (binary(5, 6), y)


def m2(elbo: Callable[[], Any]) -> Any:
    made = semi_supervised_vae(6, 2, 3, **NET)
    y = torch.tensor([0, 2, -1, -1, 1, -1])
    return made.model, made.guide, elbo(), (binary(6, 6), y)


small, layered = partial(vae, 6, 2, **NET), partial(hierarchical_vae, 6, (3, 2), ((8,), (6,)))
particles = partial(ImportanceWeightedELBO, 4)
parallel = partial(Trace_ELBO, num_particles=3, vectorize_particles=True, max_plate_nesting=1)
enumerated = partial(TraceEnum_ELBO, max_plate_nesting=1)

PROGRAMS = [
    Program("vae", partial(pair, small, Trace_ELBO, 5, 6), True),
    Program("vae_closed_form", partial(pair, small, TraceMeanField_ELBO, 5, 6), True),
    Program("vae_three_particles", partial(pair, small, partial(Trace_ELBO, 3), 5, 6), True),
    Program("vae_parallel_particles", partial(pair, small, parallel, 5, 6), True),
    Program("vae_mean_field", partial(pair, small, MeanFieldELBO, 5, 6), True),
    Program("vae_stl", partial(pair, small, partial(particles, "stl"), 5, 6), True),
    Program("vae_dreg", partial(pair, small, partial(particles, "dreg"), 5, 6), True),
    Program("vae_conv", partial(pair, conv, Trace_ELBO, 3, 1, 8, 8), True),
    Program(
        "iwae_two_layers_50",
        partial(pair, layered, partial(ImportanceWeightedELBO, 50), 4, 6),
        True,
    ),
    Program("norm_and_dropout", partial(pair, norm_and_dropout, Trace_ELBO, 5, 6), True),
    Program("conditional_vae", conditional, True),
    Program("m2", partial(m2, enumerated), True),
    Program("m2_vimco", partial(m2, partial(particles, "vimco")), True),
    Program("m2_score_function", partial(m2, Trace_ELBO), True),
    Program("modules_by_name", legacy),
    Program("params", with_params),
    Program("guide_module", partial(regression, lambda model: GuideModule()), True),
    Program("bayesian_net", bayesian_net, True),
    Program("auto_normal", partial(regression, AutoNormal), True),
    Program("auto_diagonal", partial(regression, AutoDiagonalNormal), True),
    Program("auto_multivariate", partial(regression, AutoMultivariateNormal), True),
    Program("auto_iaf", partial(regression, partial(AutoIAFNormal, hidden_dim=[8])), True),
    Program("auto_flow", partial(regression, flow_guide), True),
    Program("subsampled", partial(regression, AutoNormal, 5), True),
    Program("nested_plates_mask_scale", nested_plates, True),
    Program(
        "nested_plates_parallel",
        partial(nested_plates, num_particles=2, vectorize_particles=True),
        True,
    ),
    Program("partly_observed", partly_observed, True),
    Program("deep_markov", markov),
    Program("mixture", mixture),
    Program("hidden_markov", hidden_markov),
    Program("score_function", score_function),
    Program("score_function_parallel", partial(score_function, parallel)),
]
