# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""NumPyro's NUTS with all chains in one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from numpyro.infer import MCMC, NUTS

from .harness import NotHereError
from .mcmc_harness import Draws, Sampler
from .mcmc_samplers import Length


def numpyros(
    model: Callable[..., Any],
    data: Sequence[torch.Tensor],
    length: Length,
    device: str = "cpu",
    *,
    in_jit: bool,
    rounds: int = 1000,
) -> Sampler:
    """NumPyro's NUTS, vectorised.

    Args:
        model: a NumPyro model.
        data: its arguments.
        length: how much is drawn.
        device: where JAX must compute.
        in_jit: call the warm-up and the draws inside of ``jax.jit``, which compiles each once.
            Otherwise call them as they are, where each call compiles its loop again.
        rounds: in how many rounds it takes part at most.
    """
    if jax.default_backend() != {"cpu": "cpu", "cuda": "gpu"}[device]:
        raise NotHereError(f"JAX computes on {jax.default_backend()}")
    given = [jnp.asarray(d.numpy()) for d in data]
    mcmc = MCMC(
        NUTS(model),
        num_warmup=length.warmup,
        num_samples=length.draws,
        num_chains=length.chains,
        chain_method="vectorized",
        progress_bar=False,
    )

    def warm_up(key: Any, *given: jax.Array) -> Any:
        mcmc.warmup(key, *given)
        return mcmc.post_warmup_state

    def go_on(state: Any, *given: jax.Array) -> Any:
        mcmc.post_warmup_state = state
        mcmc.run(state.rng_key, *given)
        return mcmc.get_samples(group_by_chain=True)

    if in_jit:
        warm_up, go_on = jax.jit(warm_up), jax.jit(go_on)

    def draw(seed: int) -> Draws:
        state = jax.block_until_ready(warm_up(jax.random.key(seed), *given))
        warmed_up = time.perf_counter()
        samples = jax.block_until_ready(go_on(state, *given))
        return Draws({name: np.asarray(value) for name, value in samples.items()}, warmed_up)

    return Sampler(draw, rounds=rounds)
