# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The contestants that every case has, from the programs of the case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .harness import Array, Contestant, NotHereError
from .with_pyro import compiled_svi, pyro_svi
from .with_torch import arrays, by_hand


@dataclass(frozen=True)
class Work:
    """One piece of work, written three times; every function makes new objects.

    Args:
        data: what each step is given.
        noise_shapes: shape of the noise of every random site.
        by_hand: makes the module of the loss, whose initial parameters all contestants start
            from: first the guide's, then the model's.
        in_pyro: makes a Pyro model and guide.
        in_numpyro: makes a NumPyro model, guide, ELBO and the parameters' names.
        our_elbo: makes the ELBO for ``CompiledSVI``.
        pyro_elbo: makes the ELBO for Pyro's ``SVI``.
    """

    data: Sequence[torch.Tensor]
    noise_shapes: tuple[tuple[int, ...], ...]
    by_hand: Callable[[], nn.Module]
    in_pyro: Callable[[], tuple[Any, Any]]
    in_numpyro: Callable[[], tuple[Any, Any, Any, Sequence[str]]]
    our_elbo: Callable[[], Any]
    pyro_elbo: Callable[[], Any]


def contestants(work: Work, device: str = "cpu") -> Mapping[str, Callable[[], Contestant]]:
    """The usual contestants, ours first."""
    torch.manual_seed(0)
    values: list[Array] = arrays(list(work.by_hand().parameters()))

    def data() -> list[torch.Tensor]:
        if device == "cuda" and not torch.cuda.is_available():
            raise NotHereError("no CUDA device")
        return [d.to(device) for d in work.data]

    def ours() -> Contestant:
        return compiled_svi(work.in_pyro, work.our_elbo(), data(), values, work.noise_shapes)

    def pyros() -> Contestant:
        return pyro_svi(work.in_pyro, work.pyro_elbo(), data(), values)

    def hand(fused: bool) -> Contestant:
        return by_hand(work.by_hand(), data(), values, fused=fused)

    def numpyros(in_loop: bool) -> Contestant:
        given = [d.cpu().numpy() for d in data()]
        from .with_numpyro import jax, numpyro_svi

        if jax.default_backend() != {"cpu": "cpu", "cuda": "gpu"}[device]:
            raise NotHereError(f"JAX computes on {jax.default_backend()}")
        model, guide, elbo, names = work.in_numpyro()
        return numpyro_svi(model, guide, elbo, given, names, values, in_loop=in_loop)

    return {
        "CompiledSVI": ours,
        "Pyro SVI": pyros,
        "PyTorch by hand": lambda: hand(False),
        "PyTorch by hand, fused Adam": lambda: hand(True),
        "NumPyro": lambda: numpyros(False),
        "NumPyro, steps in a compiled loop": lambda: numpyros(True),
    }
