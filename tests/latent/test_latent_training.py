# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Both of Pyro's routes train every parameter of every pair, and what goes wrong is said."""

import copy
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import nn
from torch.distributions import kl_divergence

from pyro_deepgen.infer import MeanFieldELBO
from pyro_deepgen.latent import VAE, GaussianLikelihood, vae
from tests.tables import PAIRS, PairRow, named

every = pytest.mark.parametrize("row", **named(PAIRS))


def elbo(row: PairRow) -> Any:
    return Trace_ELBO() if row.reparametrized else TraceEnum_ELBO(max_plate_nesting=1)


def values(pair: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in pair.named_parameters()}


def unmoved(pair: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, p in pair.named_parameters() if torch.equal(p, before[name])}


@every
def test_elbo_module_with_a_torch_optimiser(row: PairRow, device: torch.device) -> None:
    pyro.settings.set(module_local_params=True)
    pairs = [row.make().to(device) for _ in range(2)]
    args = [a.to(device) for a in row.make_batch((16,))]
    for pair in pairs:
        loss = elbo(row)(pair.model, pair.guide)
        assert set(loss.parameters()) == set(pair.parameters())
        before = values(pair)
        optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            loss(*args).backward()
            optimizer.step()
        assert unmoved(pair, before) == set()


@every
def test_svi_with_the_global_store(row: PairRow, device: torch.device) -> None:
    pairs = [row.make().to(device) for _ in range(2)]
    args = [a.to(device) for a in row.make_batch((16,))]
    starts = [values(pair) for pair in pairs]
    for i, pair in enumerate(pairs):
        svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-2}), elbo(row))
        for _ in range(3):
            assert svi.step(*args) < float("inf")
        assert unmoved(pair, starts[i]) == set()
        for other, start in list(zip(pairs, starts, strict=True))[i + 1 :]:
            assert unmoved(other, start) == set(start)  # not yet its turn
    stored = {id(p) for p in dict(pyro.get_param_store().named_parameters()).values()}
    assert stored == {id(p) for pair in pairs for p in pair.parameters()}


class PlainMethods(PyroModule):
    """What a pair would be without module views."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(3, 2), nn.Linear(2, 3)

    def model(self, x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


def test_plain_methods_train_nothing_without_a_word() -> None:
    pair, x = PlainMethods(), torch.randn(16, 3)
    before = values(pair)
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    for _ in range(3):
        svi.step(x)
    assert unmoved(pair, before) == set(before)
    pyro.settings.set(module_local_params=True)
    assert list(Trace_ELBO()(pair.model, pair.guide).parameters()) == []


def test_svi_refuses_a_copy_and_a_namesake() -> None:
    x = torch.zeros(4, 3)
    pair = vae(3, 2, (4,), name="digits")
    pair.guide(x)
    assert any(name.startswith("digits.encoder") for name in pyro.get_param_store())
    for other in (copy.deepcopy(pair), vae(3, 2, (4,), name="digits")):
        with pytest.raises(ValueError, match=r"clear_param_store.*name of its own.*name=.*load_st"):
            other.model(x)
        with pyro.settings.context(module_local_params=True):
            other.model(x)
    pyro.clear_param_store()
    copy.deepcopy(pair).model(x)


class Program(PyroModule):
    """A pair inside another module."""

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.pair = vae(3, 2, (4,))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pair.model(x)


def test_the_ways_out_of_a_shared_name_are_right_inside_another_module() -> None:
    x = torch.zeros(4, 3)
    Program()(x)
    with pytest.raises(ValueError, match=r"name to the outermost, super\(\).__init__\(name\)"):
        Program()(x)
    Program("second")(x)
    assert any(name.startswith("second.pair.decoder") for name in pyro.get_param_store())


def test_a_loaded_store_is_refused_and_a_loaded_state_is_not(tmp_path: Path) -> None:
    x = torch.bernoulli(torch.full((4, 3), 0.5))
    trained = vae(3, 2, (4,), name="digits")
    SVI(trained.model, trained.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(x)
    pyro.get_param_store().save(str(tmp_path / "store"))
    pyro.clear_param_store()
    pyro.get_param_store().load(str(tmp_path / "store"))
    pair = vae(3, 2, (4,), name="digits")
    with pytest.raises(ValueError, match=r"the store was loaded.*use load_state_dict"):
        pair.model(x)
    pyro.clear_param_store()
    pair.load_state_dict(trained.state_dict())
    torch.testing.assert_close(pair.encode(x).mean, trained.encode(x).mean)
    before = values(pair)
    SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(x)
    assert unmoved(pair, before) == set()


class Annealed(poutine.messenger.Messenger):
    """The handler of the docstring of `Pair`."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.beta


@pytest.mark.parametrize("objective", [Trace_ELBO, TraceMeanField_ELBO, MeanFieldELBO])
def test_a_scaled_divergence_is_the_textbook_loss(objective: Any, float64: torch.dtype) -> None:
    pyro.settings.set(module_local_params=True)
    decoder = nn.Linear(2, 3)
    scale = 3.0  # wide, so that the divergence shows above the noise
    pair = VAE(nn.Linear(3, 4), decoder, 2, likelihood=GaussianLikelihood(scale=scale))
    x, beta = torch.randn(5, 3), 0.3
    q = pair.encode(x)
    divergence = kl_divergence(q, dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)).sum()
    spread = decoder.weight**2 @ q.variance.T  # (3, 5): E|x - Wz - b|^2 is a closed form
    normal = pair.decode(q.mean)
    error = -normal.log_prob(x).sum() + spread.sum() / (2 * scale**2)
    exact = float((error + beta * divergence).detach())
    with Annealed(beta), torch.no_grad():
        loss = objective()(pair.model, pair.guide)
        losses = torch.stack([loss(x) for _ in range(400)])
    error_of_mean = float(losses.std()) / len(losses) ** 0.5
    assert abs(float(losses.mean()) - exact) < 4 * error_of_mean
    assert abs(float((error + divergence).detach()) - exact) > 8 * error_of_mean  # without beta


def test_a_pair_inside_another_module_trains() -> None:
    pyro.settings.set(module_local_params=True)  # before the module is made, as Pyro wants it
    program, x = Program(), torch.bernoulli(torch.full((16, 3), 0.5))
    before = values(program)
    loss = Trace_ELBO()(program, program.pair.guide)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    loss(x).backward()
    optimizer.step()
    assert unmoved(program, before) == set()


def test_batch_normalisation_and_dropout_keep_their_mode() -> None:
    encoder = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    pair = VAE(encoder, nn.Linear(2, 3), 2)
    statistics = encoder[1].running_mean.clone()
    assert torch.equal(statistics, torch.zeros(8)), "the constructor must not move statistics"
    assert encoder.training and encoder[1].training
    x = torch.bernoulli(torch.full((16, 3), 0.5))
    pair.eval()
    pair.guide(x)
    assert torch.equal(encoder[1].running_mean, statistics)
    means = [poutine.trace(pair.guide).get_trace(x).nodes["z"]["fn"].mean for _ in range(2)]
    torch.testing.assert_close(means[0], means[1])
    pair.train()
    pair.guide(x)
    assert not torch.equal(encoder[1].running_mean, statistics)
