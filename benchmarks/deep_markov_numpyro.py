# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The deep Markov model of `deep_markov.py` in NumPyro, with its `scan` over the time steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import torch
from numpyro.contrib.control_flow import scan
from numpyro.handlers import mask as masked
from numpyro.infer import Trace_ELBO

from .harness import Array, Contestant, NotHereError
from .with_numpyro import InjectedNoise, numpyro_svi


def numpyro_contestant(
    data: Sequence[torch.Tensor],
    names: Sequence[str],
    values: Sequence[Array],
    *,
    in_loop: bool,
) -> Contestant:
    """NumPyro's `SVI`.

    Args:
        data: what each step is given.
        names: the names that the parameters have in the PyTorch networks.
        values: parameters to start from.
        in_loop: run all steps of a sample inside one compiled loop.
    """
    if jax.default_backend() != "cpu":
        raise NotHereError(f"JAX computes on {jax.default_backend()}")
    start = {name: value.T for name, value in zip(names, values, strict=True)}
    batch = len(data[0])

    def parameters() -> Any:
        return {name: numpyro.param(name, jnp.asarray(start[name])) for name in names}

    def linear(p: Any, name: str, x: Any) -> Any:
        return x @ p[f"{name}.weight"] + p[f"{name}.bias"]

    def states(p: Any, name: str) -> Any:
        return jnp.broadcast_to(p[name], (batch, *p[name].shape))

    def model(x: Any, mask: Any, *others: Any) -> None:
        p = parameters()

        def step(z: Any, given: Any) -> Any:
            x_t, mask_t = given
            gate = jax.nn.sigmoid(linear(p, "gate_2", jax.nn.relu(linear(p, "gate_1", z))))
            move = linear(p, "move_2", jax.nn.relu(linear(p, "move_1", z)))
            loc = (1 - gate) * linear(p, "prior_loc", z) + gate * move
            scale = jax.nn.softplus(linear(p, "prior_scale", jax.nn.relu(move)))
            with numpyro.plate("data", batch), masked(mask=mask_t):
                z = numpyro.sample("z", dist.Normal(loc, scale).to_event(1))
                emitted = jax.nn.relu(linear(p, "emit_1", z))
                logits = linear(p, "emit_3", jax.nn.relu(linear(p, "emit_2", emitted)))
                numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x_t)
            return z, None

        scan(step, states(p, "prior_start"), (x.swapaxes(0, 1), mask.T))

    def guide(x: Any, mask: Any, backwards: Any, order: Any, noise: Any = None) -> None:
        p = parameters()

        def recur(h: Any, x_t: Any) -> Any:
            hidden = h @ p["recurrent.weight_hh_l0"] + p["recurrent.bias_hh_l0"]
            h = jax.nn.relu(x_t + hidden)
            return h, h

        inputs = backwards @ p["recurrent.weight_ih_l0"] + p["recurrent.bias_ih_l0"]
        first = states(p, "recurrent_start")
        h = jax.lax.scan(recur, first, inputs.swapaxes(0, 1))[1]
        h = jnp.take_along_axis(h, order.T[:, :, None], 0)

        def step(z: Any, given: Any) -> Any:
            h_t, mask_t, *rows = given
            combined = 0.5 * (jnp.tanh(linear(p, "combine", z)) + h_t)
            loc = linear(p, "posterior_loc", combined)
            scale = jax.nn.softplus(linear(p, "posterior_scale", combined))
            noisy = InjectedNoise(None, rows, False) if rows else nullcontext()
            with numpyro.plate("data", batch), masked(mask=mask_t), noisy:
                z = numpyro.sample("z", dist.Normal(loc, scale).to_event(1))
            return z, None

        rows = () if noise is None else (noise,)
        scan(step, states(p, "posterior_start"), (h, mask.T, *rows))

    elbo, given = Trace_ELBO(), [d.numpy() for d in data]
    contestant = numpyro_svi(model, guide, elbo, given, names, values, in_loop=in_loop)

    def evaluate(noise: Sequence[Array]) -> tuple[float, list[Array]]:
        noisy = partial(guide, noise=jnp.asarray(np.stack(noise)))
        loss = partial(elbo.loss, jax.random.key(0))
        now = {n: jnp.asarray(v.T) for n, v in zip(names, contestant.parameters(), strict=True)}
        value, found = jax.value_and_grad(loss)(now, model, noisy, *map(jnp.asarray, given))
        return float(value), [np.asarray(found[name]).T for name in names]

    return replace(contestant, evaluate=evaluate)
