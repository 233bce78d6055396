# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Changes of the program beside its arguments: those that are seen, and those that are checked."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_deepgen.latent import VAE, vae
from tests.infer.weighted import Weighted, compiled, data, eager, evaluated


@pytest.fixture
def pair() -> VAE:
    return vae(6, 2, (8,))


def test_training_mode_is_seen_in_modules_that_nobody_passed() -> None:
    """Bound methods and `pyro.module`: the networks are found when they are called."""

    class Legacy:
        def __init__(self) -> None:
            self.encoder = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))

        def model(self, x: torch.Tensor) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 4), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x.sum(-1))

        def guide(self, x: torch.Tensor) -> None:
            pyro.module("encoder", self.encoder)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.encoder(x), 0.1).to_event(1))

    program = Legacy()
    svi = compiled(program)
    x, norm = torch.randn(5, 6), program.encoder[1]
    svi.step(x)
    svi.step(x)
    assert int(norm.num_batches_tracked) == 2
    program.encoder.eval()
    mean = norm.running_mean.clone()
    svi.step(x)
    assert torch.equal(norm.running_mean, mean)
    before = svi.compiled.num_recordings
    program.encoder.train()
    svi.step(x)
    assert int(norm.num_batches_tracked) == 3
    assert svi.compiled.num_recordings == before  # the first graph is still there


def test_evaluation_mode_is_the_eager_value(pair: VAE) -> None:
    dropped = VAE(nn.Sequential(pair.encoder, nn.Dropout(0.5)), pair.decoder, 2)
    svi = compiled(dropped)
    x = data(5, 6)
    for mode in (True, False, True):
        dropped.train(mode)
        assert evaluated(svi, 6, x) == pytest.approx(eager(dropped, 6, x), rel=1e-10)
    assert svi.compiled.num_recordings == 2


def test_frozen_and_thawed_parameters(pair: VAE) -> None:
    svi = compiled(pair)
    x = data(5, 6)
    svi.step(x)
    weights = list(pair.encoder.parameters())
    before = [w.clone() for w in weights]
    pair.encoder.requires_grad_(False)
    svi.step(x)
    assert all(map(torch.equal, before, weights))
    pair.encoder.requires_grad_(True)
    svi.step(x)
    assert not any(map(torch.equal, before, weights))


def test_a_model_of_another_dtype(pair: VAE) -> None:
    svi = compiled(pair)
    svi.evaluate_loss(data(5, 6))
    pair.float()
    x = data(5, 6).float()
    assert evaluated(svi, 7, x) == pytest.approx(eager(pair, 7, x), rel=1e-6)


def test_a_replaced_parameter_and_a_cleared_store() -> None:
    program = Weighted()
    svi = compiled(program)
    x = torch.randn(4)
    svi.step(x)
    pyro.clear_param_store()
    program.loc = nn.Parameter(torch.tensor(0.9))
    assert evaluated(svi, 8, x) == pytest.approx(eager(program, 8, x), rel=1e-10)
    svi.step(x)
    assert float(program.loc) != 0.9
    before = float(program.loc)
    state = pyro.get_param_store().get_state()
    svi.step(x)
    pyro.get_param_store().set_state(state)
    svi.step(x)
    stored = pyro.param("weighted$$$loc")
    assert evaluated(svi, 9, x) == pytest.approx(eager(program, 9, x), rel=1e-10)
    assert float(stored) != before


def frozen_attribute(program: Weighted) -> None:
    program.temperature = 2.0


def no_change(program: Weighted) -> None:
    """Leave the program as it is."""


@pytest.mark.parametrize("change", [frozen_attribute, no_change])
def test_check_every(change: Callable[[Weighted], None]) -> None:
    program = Weighted()
    svi = compiled(program, check_every=3)
    x = torch.randn(4)
    for _ in range(3):
        svi.step(x)
    change(program)
    svi.step(x)
    svi.step(x)
    if change is no_change:
        svi.step(x)
    else:
        with pytest.raises(RuntimeError, match=r"at step 6 the recorded loss is .* is neither"):
            svi.step(x)


def test_checks_change_nothing() -> None:
    ends = []
    for check_every in (None, 1):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.2))
        program = VAE(encoder, nn.Linear(2, 6), 2)
        svi = compiled(program, check_every=check_every)
        x = data(5, 6)
        torch.manual_seed(3)
        losses = [svi.step(x) for _ in range(4)]
        ends.append((losses, [v.clone() for v in program.state_dict().values()]))
    assert ends[0][0] == ends[1][0]
    assert all(map(torch.equal, ends[0][1], ends[1][1]))
