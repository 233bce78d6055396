# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The contestants that train a NumPyro model and guide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI
from numpyro.primitives import Messenger

from .harness import Array, Contestant
from .with_torch import LEARNING_RATE

Program = Callable[..., Any]


class InjectedNoise(Messenger):
    """Makes the draws of normal sites from given noise, of which a particle takes its row."""

    def __init__(self, fn: Program, noise: Sequence[jax.Array], particles: bool) -> None:
        super().__init__(fn)
        self.noise, self.particles = noise, particles
        self._left: Iterator[jax.Array] = iter(())

    def __enter__(self) -> Any:
        self._left = iter(self.noise)
        return super().__enter__()

    def process_message(self, msg: Any) -> None:
        """Set the value of a normal site that has none."""
        base = msg.get("fn")
        while isinstance(base, dist.Independent):
            base = base.base_dist
        if msg["type"] == "sample" and msg["value"] is None and isinstance(base, dist.Normal):
            noise = next(self._left)
            noise = noise[jax.lax.axis_index("particles")] if self.particles else noise
            msg["value"] = base.loc + base.scale * noise


def dense(name: str, h: jax.Array, sizes: Sequence[int], activation: Program) -> jax.Array:
    """Dense layers whose parameters are ``name.i.weight`` and ``name.i.bias``."""
    for i, (size_in, size_out) in enumerate(pairwise(sizes)):
        h = activation(h) if i else h
        weight = numpyro.param(f"{name}.{i}.weight", jnp.zeros((size_in, size_out)))
        h = h @ weight + numpyro.param(f"{name}.{i}.bias", jnp.zeros(size_out))
    return h


def numpyro_svi(
    model: Program,
    guide: Program,
    elbo: Any,
    data: Sequence[Array],
    names: Sequence[str],
    values: Sequence[Array],
    *,
    in_loop: bool,
) -> Contestant:
    """NumPyro's `SVI` with its Adam.

    Args:
        model: a model.
        guide: its guide.
        elbo: the loss.
        data: what each step is given.
        names: names of the parameters, in the order of the values.
        values: parameters to start from, unconstrained; matrices as PyTorch has them, (out, in).
        in_loop: run all steps of a sample inside one compiled loop, without Python between them;
            otherwise call a compiled update for each, as the others do.
    """
    given = [jnp.asarray(d) for d in data]
    svi = SVI(model, guide, numpyro.optim.Adam(LEARNING_RATE), elbo)
    initial = svi.init(jax.random.key(0), *given)
    start = {name: jnp.asarray(v.T) for name, v in zip(names, values, strict=True)}
    state = initial._replace(optim_state=svi.optim.init(start))
    update = jax.jit(svi.update)

    @jax.jit
    def loop(state: Any, steps: Any, *given: jax.Array) -> Any:
        def body(_: Any, carry: Any) -> Any:
            return svi.update(carry[0], *given)

        return jax.lax.fori_loop(0, steps, body, (state, jnp.float32(0)))

    def run(steps: int) -> float:
        nonlocal state
        if in_loop:
            state, loss = loop(state, steps, *given)
            return float(loss)
        value = float("nan")
        for _ in range(steps):
            state, loss = update(state, *given)
            value = float(loss)
        return value

    def evaluate(noise: Sequence[Array]) -> tuple[float, list[Array]]:
        by_rows = elbo.num_particles > 1
        noisy = InjectedNoise(guide, [jnp.asarray(n) for n in noise], by_rows)
        vectorize = elbo.vectorize_particles_fn
        if by_rows:
            elbo.vectorize_particles_fn = lambda f, keys: jax.vmap(f, axis_name="particles")(keys)
        key = jax.random.key(0)

        def loss(parameters: Any) -> Any:
            return elbo.loss(key, svi.constrain_fn(parameters), model, noisy, *given)

        value, gradients = jax.value_and_grad(loss)(svi.optim.get_params(state.optim_state))
        elbo.vectorize_particles_fn = vectorize
        return float(value), [np.asarray(gradients[name]).T for name in names]

    def parameters() -> list[Array]:
        now = svi.optim.get_params(state.optim_state)
        return [np.asarray(now[name]).T for name in names]

    return Contestant(run, evaluate, parameters)
