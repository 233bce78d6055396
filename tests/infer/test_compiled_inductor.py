# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Recorded losses through the compiler."""

from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI
from pyro.optim import Adam

from pyro_deepgen.infer import CompiledSVI
from tests.infer.programs import PROGRAMS

ROWS = ("norm_and_dropout", "guide_module", "mixture")


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_compiled_training_is_that_of_svi(name: str) -> None:
    """With the draws of eager PyTorch, the same losses, parameters and buffers."""
    program = next(program for program in PROGRAMS if program.name == name)
    ends: list[Any] = []
    for kind in (SVI, CompiledSVI):
        model, guide, elbo, args = program.make()
        svi = kind(model, guide, Adam({"lr": 1e-2}), elbo)
        torch.manual_seed(3)
        with torch._inductor.config.patch(fallback_random=True):
            losses = [svi.step(*args) for _ in range(5)]
        parameters = [p.detach() for _, p in pyro.get_param_store().named_parameters()]
        buffers = list(model.buffers()) if isinstance(model, torch.nn.Module) else []
        ends.append([torch.tensor(losses), *parameters, *buffers])
    for theirs, ours in zip(*ends, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_the_compilers_own_draws() -> None:
    """Fresh at every step, reproducible by the seed, and of the right law."""
    program = next(program for program in PROGRAMS if program.name == "vae")
    model, guide, elbo, args = program.make()
    svi = CompiledSVI(model, guide, Adam({"lr": 0.0}), elbo)
    svi.step(*args)  # the one step that is not compiled
    runs = []
    for _ in range(2):
        torch.manual_seed(1)
        runs.append(torch.tensor([svi.step(*args) for _ in range(400)]))
    assert torch.equal(*runs)
    assert len(runs[0].unique()) == 400
    eager = torch.tensor([float(elbo.loss(model, guide, *args)) for _ in range(400)])
    error = (runs[0].var() / 400 + eager.var() / 400).sqrt()
    assert float((runs[0].mean() - eager.mean()).abs() / error) < 4
    assert 0.6 < float(runs[0].std() / eager.std()) < 1.6


def test_a_missing_compiler() -> None:
    program = next(program for program in PROGRAMS if program.name == "params")
    model, guide, elbo, args = program.make()
    svi = CompiledSVI(model, guide, Adam({"lr": 0.1}), elbo)
    svi.step(*args)
    cxx = torch._inductor.config.patch({"cpp.cxx": ("there-is-no-such-compiler",)})
    with cxx, pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler.*backend=None"):
        svi.step(*args)
