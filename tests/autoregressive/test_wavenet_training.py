# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""WaveNets that learn, in plates, in graphs, and as parts of other models."""

import copy
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from pyro_deepgen.autoregressive import BinaryOutput, CategoricalOutput, WaveNet
from pyro_deepgen.latent import vae
from tests.autoregressive.models import changed
from tests.autoregressive.rows_wavenet import ALL, BINARY, CONTEXTS, TERNARY, conditioned

pytestmark = pytest.mark.usefixtures("float64")


class Observed(nn.Module):
    """A model that observes sequences."""

    def __init__(self, net: WaveNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, *contexts: torch.Tensor | None) -> None:
        pyro.module("net", self.net)
        net = self.net.condition(*contexts) if contexts else self.net
        with pyro.plate("data", len(x)):
            pyro.sample("x", net, obs=x)


def empty(*args: Any) -> None:
    pass


def contexts_for(net: WaveNet, num: int) -> list[torch.Tensor | None]:
    if not net.context_dim:
        return []
    context = torch.randn(num, net.global_dim) if net.global_dim else None
    local = torch.randn(num, net.num_frames, net.local_dim) if net.local_dim else None
    return [context, local]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", ALL)
def test_a_step_moves_every_parameter(name: str, context: str) -> None:
    model = changed(ALL[name](8, **CONTEXTS[context]), 0.3).train()
    contexts = contexts_for(model, 40)
    data = model.condition(*contexts).sample() if contexts else model.sample((40,))
    before = copy.deepcopy(dict(model.named_parameters()))
    svi = SVI(Observed(model), empty, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    svi.step(data, *contexts)
    assert before
    for parameter_name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[parameter_name]), parameter_name


def test_learning_finds_what_only_long_lags_show() -> None:
    # A fair bit, repeated eight steps later: half of the steps are certain.
    bits = torch.randint(2, (200, 8)).double()
    data = torch.cat([bits, bits], -1)

    def learned(dilations: tuple[int, ...]) -> float:
        sizes: dict[str, Any] = {"channels": 16, "skip_channels": 16, "dilations": dilations}
        model = WaveNet(16, BinaryOutput(), context_dim=1, **sizes).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(80):
            optimizer.zero_grad()
            (-model.condition(torch.ones(1)).log_prob(data).mean()).backward()
            optimizer.step()
        with torch.no_grad():
            return float(-model.condition(torch.ones(1)).log_prob(data).mean())

    exact = 8 * 0.6931
    assert learned((1, 2, 4)) < 1.2 * exact
    assert learned((1, 2)) > 1.6 * exact  # sees five steps back


@pytest.mark.parametrize("name", ["binary_taps", "ternary", "levels", "mixture"])
def test_gradients_are_those_of_the_value(name: str) -> None:
    model = changed(ALL[name](4, **CONTEXTS["both"]), 0.3)
    context = torch.randn(model.context_dim)
    x = model.condition(context).sample((2,))
    names = [n for n, _ in model.named_parameters()]

    def score(*values: torch.Tensor) -> torch.Tensor:
        given = {f"net.{n}": v for n, v in zip(names, values, strict=True)}
        call = torch.func.functional_call(Scored(model), given, (x, context))
        return torch.as_tensor(call)

    values = tuple(p.detach().clone().requires_grad_() for p in model.parameters())
    assert torch.autograd.gradcheck(score, values, fast_mode=True)


class Scored(nn.Module):
    """Log-probabilities given contexts as a forward pass."""

    def __init__(self, net: WaveNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return self.net.condition(context).log_prob(x)


@pytest.mark.parametrize("name", ["binary", "ternary", "mixture"])
def test_the_score_is_one_graph(name: str) -> None:
    model = changed(ALL[name](6, **CONTEXTS["both"], validate_args=False), 0.4)
    context = torch.randn(5, model.context_dim)
    x = model.condition(context).sample()
    scored = Scored(model)
    compiled = torch.compile(scored, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, context), scored(x, context))


def test_inside_plates() -> None:
    model = conditioned(changed(BINARY["binary"](6, **CONTEXTS["both"]), 0.4), (2, 5))
    with pyro.plate("outer", 2, dim=-2), pyro.plate("inner", 5, dim=-1):
        assert pyro.sample("x", model).shape == (2, 5, 6)
    total = model.log_prob(model.enumerate_support()).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(2, 5))


@pytest.mark.parametrize("context", ["global", "local_slow", "both"])
def test_as_the_likelihood_of_a_vae(context: str) -> None:
    pyro.settings.set(module_local_params=True)
    likelihood = TERNARY["ternary"](8, **CONTEXTS[context])
    pair = vae(8, 2, (8,), likelihood=likelihood)
    x = torch.randint(3, (9, 8))
    Trace_ELBO()(pair.model, pair.guide)(x).backward()
    for name, parameter in pair.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name
    assert pair.sample(4).shape == (4, 8)


def test_classes_enter_as_one_hot_vectors() -> None:
    """Looking up the weights of classes is the product with their one-hot vectors."""
    model = WaveNet(9, CategoricalOutput(5), channels=4, kernel_size=3, dilations=(1,))
    x = torch.randint(5, (4, 9))
    first = model.network.first
    encoded = model.output.encode(x, torch.zeros(()))
    torch.testing.assert_close(first.of_classes(x), first(encoded))
    # Their weights begin as large as those of few inputs, not of five.
    assert float(first.linear.weight.detach().abs().max()) > 15**-0.5


def test_devices_and_precisions(device: torch.device) -> None:
    for make in (BINARY["binary"], TERNARY["ternary"], ALL["gaussian"]):
        model = make(6, **CONTEXTS["both"]).float().to(device)
        context = torch.randn(3, model.context_dim, device=device, dtype=torch.float32)
        given = model.condition(context)
        x = given.sample()
        assert x.device.type == device.type
        score = given.log_prob(x)
        assert (score.dtype, score.device.type) == (torch.float32, device.type)
        known = torch.arange(6, device=device) < 3
        assert torch.equal(given.impute(x, known).value[:, :3], x[:, :3])
