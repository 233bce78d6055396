# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Images made pixel by pixel: learning, compiling, and as the likelihood of a VAE."""

import copy
import math
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from pyro_deepgen.autoregressive import CategoricalOutput, GatedPixelCNN, LogisticMixtureOutput
from pyro_deepgen.latent import VAE, vae
from pyro_deepgen.nn import MLP, ConvDecoder
from tests.autoregressive.rows_pixels import NETWORKS, SETTINGS, changed, pixels

pytestmark = pytest.mark.usefixtures("float64")


def empty(*args: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("setting", "kwargs"),
    [
        *((name, {}) for name in SETTINGS),
        ("colour", {"context_dim": 2}),
        ("mixture", {"context_channels": 2}),
    ],
)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_moves_every_parameter(network: str, setting: str, kwargs: Any) -> None:
    model = pixels(network, setting, **kwargs).train()
    if kwargs:
        model = model.condition(torch.randn(30, *model.context_shape))
    data = model.sample(() if kwargs else (30,))

    def observed(x: torch.Tensor) -> None:
        pyro.module("d", model)
        with pyro.plate("data", len(x)):
            pyro.sample("x", model, obs=x)

    before = copy.deepcopy(dict(model.named_parameters()))
    SVI(observed, empty, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO()).step(data)
    assert before
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("network", NETWORKS)
def test_learning_finds_rows_that_repeat(network: str) -> None:
    rows = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    data = rows[:, None, None].expand(8, 1, 3, 3)  # 3 bits, where independent variables need 9
    model = NETWORKS[network]((1, 3, 3)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        loss = -model.log_prob(data).mean()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert float(-model.log_prob(data).mean()) < 1.25 * 3 * math.log(2)
    draws = model.sample((100,))
    assert float((draws == draws[:, :, :1]).all(-1).double().mean()) > 0.8


@pytest.mark.parametrize(
    ("network", "output"),
    [
        ("cnn", None),
        ("gated", LogisticMixtureOutput(2, 3)),
        ("diagonal", None),
        ("row", CategoricalOutput(3)),
    ],
)
def test_under_the_compiler(network: str, output: Any) -> None:
    model = changed(NETWORKS[network]((2, 2, 2), output, validate_args=False))
    torch.compiler.reset()
    compiled = torch.compile(model.log_prob, fullgraph=True, backend="eager")
    x = model.sample((3,))
    torch.testing.assert_close(compiled(x), model.log_prob(x))


@pytest.mark.parametrize("network", NETWORKS)
def test_copies_and_saved_states(network: str) -> None:
    model, other = pixels(network, "colour"), pixels(network, "colour")
    x = model.sample((6,))
    exact = model.log_prob(x)
    assert torch.equal(copy.deepcopy(model).log_prob(x), exact)
    assert not torch.allclose(other.log_prob(x), exact)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.log_prob(x), exact)
    torch.manual_seed(0)
    draws = model.sample((6,))
    torch.manual_seed(0)
    assert torch.equal(copy.deepcopy(other).sample((6,)), draws)


def test_inside_plates() -> None:
    model = pixels("gated", "colour", context_dim=1)
    context = torch.randn(2, 5, 1)
    with pyro.plate("outer", 2, dim=-2), pyro.plate("inner", 5, dim=-1):
        assert pyro.sample("x", model.condition(context)).shape == (2, 5, 3, 2, 2)


@pytest.mark.parametrize("network", NETWORKS)
def test_devices_and_precisions(network: str, device: torch.device) -> None:
    output = LogisticMixtureOutput(2, 4) if network == "gated" else None
    model = NETWORKS[network]((2, 3, 3), output, context_dim=2).float().to(device).eval()
    given = model.condition(torch.randn(3, 2, dtype=torch.float32, device=device))
    x = given.sample()
    assert (x.dtype, x.device.type) == (torch.float32, device.type)
    assert given.log_prob(x).device.type == device.type
    done = given.impute(x, x > 0.5, num_particles=3)
    assert done.value.device.type == device.type
    assert torch.equal(done.value[x > 0.5], x[x > 0.5])


# ---------------------------------------------------------------- with a latent code


@pytest.mark.parametrize("output", [None, LogisticMixtureOutput(2, 4)])
@pytest.mark.parametrize("network", NETWORKS)
def test_as_the_likelihood_of_a_vae(network: str, output: Any) -> None:
    pyro.settings.set(module_local_params=True)
    shape = (1, 4, 4)
    likelihood = NETWORKS[network](shape, output, context_dim=5)
    by_map = NETWORKS[network](shape, output, context_channels=3)
    x = torch.randint(2, (9, *shape)).double()
    for pair in (
        vae(shape, 2, (8,), likelihood=likelihood),
        VAE(MLP(shape, (8,), (4,)), ConvDecoder(2, (3, 4, 4)), 2, likelihood=by_map),
    ):
        Trace_ELBO()(pair.model, pair.guide)(x).backward()
        for name, parameter in pair.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.any()), name
        assert pair.sample(4).shape == (4, *shape)
        assert pair.decode(torch.zeros(3, 2)).batch_shape == (3,)


def test_svi_trains_a_vae_with_pixels_that_depend_on_each_other() -> None:
    # Two kinds of images, each with rows that alternate from a fair first pixel.
    kind, start = torch.randint(2, (2, 120)).double()
    stripes = (torch.arange(4) % 2 + start[:, None]) % 2
    rows = stripes[:, None, :, None].expand(120, 1, 4, 4)
    data = torch.where(kind[:, None, None, None] > 0, rows, rows.mT)
    likelihood = GatedPixelCNN(
        (1, 4, 4), num_layers=2, num_channels=8, first_kernel_size=3, context_dim=4
    )
    pair = vae((1, 4, 4), 2, (16,), likelihood=likelihood)
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    before = copy.deepcopy(dict(pair.named_parameters()))
    losses = [svi.step(data) / 120 for _ in range(150)]
    for name, parameter in pair.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    assert sum(losses[-10:]) / 10 < 0.4 * 16 * math.log(2)  # independent pixels need all of it
    assert isinstance(pair.likelihood, nn.Module)
