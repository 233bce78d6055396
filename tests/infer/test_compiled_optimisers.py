# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""CompiledSVI with the optimisers, schedulers and clippings of Pyro and PyTorch."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceGraph_ELBO
from torch import nn

from pyro_deepgen.infer import CompiledSVI
from pyro_deepgen.latent import VAE, vae

Parameters = list[torch.Tensor]


def data() -> torch.Tensor:
    return torch.bernoulli(torch.full((8, 6), 0.3))


def trained(kind: Any, make_optim: Callable[[], Any], each_step: Any = None) -> Parameters:
    pyro.clear_param_store()
    torch.manual_seed(0)
    pair = vae(6, 2, (8,))
    optim, x = make_optim(), data()
    svi = kind(pair.model, pair.guide, optim, Trace_ELBO())
    for _ in range(8):
        svi.step(x)
        if each_step is not None:
            each_step(optim)
    return [p.detach() for p in pair.parameters()]


def recorded(*args: Any) -> CompiledSVI:
    return CompiledSVI(*args, backend=None)


def by_name(name: str) -> dict[str, float]:
    return {"lr": 0.1 if name.endswith("bias") else 0.01}


EXPONENTIAL = {"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.1}, "gamma": 0.5}
PLATEAU = {"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.1}, "patience": 1}


@pytest.mark.parametrize(
    "make_optim,each_step",
    [
        (lambda: pyro.optim.ClippedAdam({"lr": 0.05, "clip_norm": 0.1, "lrd": 0.9}), None),
        (lambda: pyro.optim.SGD({"lr": 0.1, "momentum": 0.9}, {"clip_norm": 0.5}), None),
        (lambda: pyro.optim.SGD({"lr": 0.1}, {"clip_value": 0.05}), None),
        (lambda: pyro.optim.Adam(by_name), None),
        (lambda: pyro.optim.ExponentialLR(dict(EXPONENTIAL)), lambda optim: optim.step()),
        (lambda: pyro.optim.ReduceLROnPlateau(dict(PLATEAU)), lambda optim: optim.step(1.0)),
        (lambda: pyro.optim.AdagradRMSProp({}), None),
    ],
    ids=[
        *("clipped_adam", "clip_norm", "clip_value", "by_name", "exponential", "plateau"),
        "adagrad_rmsprop",
    ],
)
def test_optimisers_of_pyro(make_optim: Callable[[], Any], each_step: Any) -> None:
    expected = trained(SVI, make_optim, each_step)
    for ours, theirs in zip(trained(recorded, make_optim, each_step), expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_gradients_are_not_left_behind() -> None:
    pair = vae(6, 2, (8,))
    svi = recorded(pair.model, pair.guide, pyro.optim.Adam({}), Trace_ELBO())
    svi.step(data())
    assert all(p.grad is None for p in pair.parameters())


def test_the_loss_as_a_number_and_as_a_tensor() -> None:
    pair, x = vae(6, 2, (8,)), data()
    svi = recorded(pair.model, pair.guide, pyro.optim.Adam({}), Trace_ELBO())
    assert isinstance(svi.step(x), float)
    assert isinstance(svi.evaluate_loss(x), float)
    svi.as_tensor = True
    first = svi.step(x)
    assert isinstance(first, torch.Tensor)
    assert not first.requires_grad
    kept = float(first)
    svi.step(x)
    assert float(first) == kept


def test_parameters_of_the_same_name_in_model_and_guide() -> None:
    """Both modules call theirs `scale`: both are trained."""

    class Side(nn.Module):
        def __init__(self, guide: bool) -> None:
            super().__init__()
            self.scale, self.guide = nn.Parameter(torch.tensor(1.0)), guide

        def forward(self, x: torch.Tensor) -> None:
            with pyro.plate("data", len(x)):
                if self.guide:
                    pyro.sample("z", dist.Normal(x, self.scale.exp()))
                else:
                    z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
                    pyro.sample("x", dist.Normal(z, self.scale.exp()), obs=x)

    pyro.settings.set(module_local_params=True)
    model, guide = Side(False), Side(True)
    optim = torch.optim.SGD([model.scale, guide.scale], lr=0.1)
    svi = CompiledSVI(model, guide, optim, Trace_ELBO(), backend=None)
    svi.step(torch.randn(5))
    assert float(model.scale) != 1.0
    assert float(guide.scale) != 1.0


@pytest.mark.parametrize("local", [False, True], ids=["store", "local"])
def test_an_optimiser_that_lacks_parameters(local: bool) -> None:
    pyro.settings.set(module_local_params=local)
    pair = vae(6, 2, (8,))
    optim = torch.optim.Adam(pair.decoder.parameters())
    svi = CompiledSVI(pair.model, pair.guide, optim, Trace_ELBO(), backend=None)
    with pytest.raises(ValueError, match=r"it lacks \[.*encoder.*both model and guide"):
        svi.step(data())
    pair.encoder.requires_grad_(False)
    svi.step(data())


def test_parameters_without_a_gradient() -> None:
    pair = vae(6, 2, (8,))
    encoder: Any = pair.encoder
    encoder.unused = nn.Parameter(torch.zeros(3))
    svi = CompiledSVI(pair.model, pair.guide, pyro.optim.Adam({}), Trace_ELBO(), backend=None)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"unused'\] get no gradient"):
            svi.step(data())
    encoder.unused.requires_grad_(False)
    svi.step(data())


def test_no_parameters() -> None:
    def model(x: torch.Tensor) -> None:
        pyro.sample("x", dist.Normal(torch.zeros(()), 1.0), obs=x)

    svi = CompiledSVI(model, lambda x: None, pyro.optim.Adam({}), Trace_ELBO(), backend=None)
    with pytest.raises(ValueError, match="no parameters to train"):
        svi.step(torch.zeros(()))
    assert svi.evaluate_loss(torch.zeros(())) == pytest.approx(0.5 * torch.tensor(6.2831853).log())


@pytest.mark.parametrize("elbo", [RenyiELBO(0.5), TraceGraph_ELBO()], ids=["renyi", "graph"])
def test_an_elbo_that_has_no_differentiable_loss(elbo: Any) -> None:
    pair = vae(6, 2, (8,))
    with pytest.raises(ValueError, match=r"differentiable_loss.*train with pyro\.infer\.SVI"):
        CompiledSVI(pair.model, pair.guide, pyro.optim.Adam({}), elbo)


def test_optimisers_that_do_not_go() -> None:
    pair: VAE = vae(6, 2, (8,))
    with pytest.raises(ValueError, match=r"pyro\.optim or torch\.optim, got str"):
        CompiledSVI(pair.model, pair.guide, "adam", Trace_ELBO())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_graphs of 1 or more, got 0"):
        CompiledSVI(pair.model, pair.guide, pyro.optim.Adam({}), Trace_ELBO(), max_graphs=0)
