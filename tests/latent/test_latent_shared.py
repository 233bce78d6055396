# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What every model/guide pair must do, beside learning."""

import copy
import io
import pickle
from itertools import combinations, product
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive, Trace_ELBO, TraceEnum_ELBO
from pyro.infer.autoguide import AutoNormal

from tests.latent.scoring import latents_of, log_prob, log_weight, pick
from tests.tables import PAIRS, PairRow, named

every = pytest.mark.parametrize("row", **named(PAIRS))
reparametrized = pytest.mark.parametrize("row", **named([r for r in PAIRS if r.reparametrized]))


def elbo(row: PairRow, batch_dim: int = 1) -> Any:
    if row.reparametrized:
        return Trace_ELBO()
    return TraceEnum_ELBO(max_plate_nesting=batch_dim)


@every
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_the_loss_of_a_batch_is_the_sum_over_its_data(
    row: PairRow, batch: tuple[int, ...], float64: torch.dtype
) -> None:
    pair, args = row.make(), row.make_batch(batch)
    pyro.settings.set(module_local_params=True)
    assert bool(elbo(row, len(batch))(pair.model, pair.guide)(*args).isfinite())
    latents = latents_of(pair, *args)
    whole = log_weight(pair, latents, *args)
    parts = [
        log_weight(pair, pick(latents, i), *pick(args, i)) for i in product(*map(range, batch))
    ]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


@every
def test_a_part_of_the_data_stands_for_all(row: PairRow, float64: torch.dtype) -> None:
    pair, args = row.make(), row.make_batch((4,))
    latents = latents_of(pair, *args)

    def gradient(value: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad(value, list(pair.parameters())))

    full = log_weight(pair, latents, *args)
    subsets = [list(s) for s in combinations(range(4), 2)]
    values = [log_weight(pair, pick(latents, s), *pick(args, s), data_size=4) for s in subsets]
    mean = torch.stack(values).mean()
    torch.testing.assert_close(mean, full)
    torch.testing.assert_close(gradient(mean), gradient(full))
    unscaled = [log_weight(pair, pick(latents, s), *pick(args, s)) for s in subsets]
    assert not torch.allclose(torch.stack(unscaled).mean(), full)  # what forgetting it gives


@every
def test_shapes_of_draws(row: PairRow, device: torch.device) -> None:
    pair = row.make().to(device)
    for batch in [(), (3,), (2, 3)]:
        x, *context = (a.to(device) for a in row.make_batch(batch))
        for sample in (False, True) if row.has_means else (True,):
            again = pair.reconstruct(x, *context, sample=sample)
            assert again.shape == x.shape
            assert again.device == x.device
            assert not again.requires_grad
    _, *context = (a.to(device) for a in row.make_batch((5,)))
    for mean in (False, True):
        draws = pair.sample(5, *(c.clamp(min=0) for c in context), mean=mean)
        assert draws.shape == (5, *pair.data_shape)
    trace = poutine.trace(pair.model).get_trace(None, *context)
    assert trace.nodes["x"]["value"].shape[-len(pair.data_shape) :] == pair.data_shape


@pytest.mark.parametrize("row", **named([r for r in PAIRS if r.has_means]))
def test_reconstructions_are_means_unless_draws_are_asked_for(row: PairRow) -> None:
    pair, args = row.make(), row.make_batch((30,))
    assert torch.equal(pair.reconstruct(*args), pair.reconstruct(*args))
    first, second = pair.reconstruct(*args, sample=True), pair.reconstruct(*args, sample=True)
    assert not torch.equal(first, second)


@every
def test_predictive_and_handlers(row: PairRow) -> None:
    pair, args = row.make(), row.make_batch((4,))
    x, *context = args
    prior = Predictive(pair.model, num_samples=3)(None, *context)
    assert prior["x"].shape[-len(x.shape[1:]) :] == x.shape[1:]
    assert len(prior["x"]) == 3
    posterior = Predictive(
        pair.model, guide=pair.guide, num_samples=3, return_sites=["x", *latents_of(pair, *args)]
    )(*args)
    assert all(value.shape[:2] == (3, 4) for value in posterior.values())

    latents = latents_of(pair, *args)
    replayed = poutine.replay(pair.model, poutine.trace(pair.guide).get_trace(*args))
    total = poutine.trace(replayed).get_trace(*args).log_prob_sum()
    assert bool(total.isfinite())
    scaled = poutine.scale(pair.model, scale=3.0)
    torch.testing.assert_close(
        log_prob(scaled, latents, *args), 3 * log_prob(pair.model, latents, *args)
    )
    free = poutine.trace(poutine.uncondition(pair.model)).get_trace(*args)
    assert not free.nodes["x"]["is_observed"]


@reparametrized
def test_an_autoguide_takes_the_model(row: PairRow) -> None:
    pair, args = row.make(), row.make_batch((4,))
    pyro.settings.set(module_local_params=True)
    guide = AutoNormal(pair.model)
    guide(*args)
    loss = Trace_ELBO()(pair.model, guide)
    loss(*args).backward()
    gradients = {n: p.grad for n, p in guide.named_parameters()}
    assert gradients
    assert all(g is not None and bool(g.any()) for n, g in gradients.items() if "pair." not in n)


@every
def test_copies_and_saved_parameters_give_the_same_density(row: PairRow) -> None:
    pair, args = row.make(), row.make_batch((4,))
    pyro.settings.set(module_local_params=True)
    elbo(row)(pair.model, pair.guide)(*args).backward()  # leaves gradients, contexts, caches
    latents = latents_of(pair, *args)
    expected = log_weight(pair, latents, *args)
    fresh = row.make()
    assert not torch.allclose(log_weight(fresh, latents, *args), expected)
    file = io.BytesIO()
    torch.save(pair.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair)), fresh):
        torch.testing.assert_close(log_weight(other, latents, *args), expected)
        assert set(other.parameters()).isdisjoint(pair.parameters())


@every
def test_double_precision_and_device(row: PairRow, device: torch.device) -> None:
    pair, args = row.make(), row.make_batch((4,))
    latents = latents_of(pair, *args)
    single = log_weight(pair, latents, *args)

    def moved(value: torch.Tensor) -> torch.Tensor:
        return (value.double() if value.is_floating_point() else value).to(device)

    pair = pair.double().to(device)
    args = tuple(map(moved, args))
    double = log_weight(pair, {n: moved(z) for n, z in latents.items()}, *args)
    assert double.dtype == torch.float64
    assert double.device.type == device.type
    torch.testing.assert_close(double.cpu().float(), single, rtol=1e-4, atol=1e-4)
    assert all(z.dtype == torch.float64 for z in latents_of(pair, *args).values())


@every
def test_the_views_share_mode_and_parameters_with_the_pair(row: PairRow) -> None:
    pair = row.make()
    for view in (pair.model, pair.guide):
        assert set(view.parameters()) == set(pair.parameters())
        view.eval()
        assert not pair.training
        assert not pair.model.training
        view.train()
        assert pair.training
    pair.eval()
    assert not pair.model.training
    assert not pair.guide.training


@every
def test_a_pair_is_imputed_to_its_own_shape(row: PairRow) -> None:
    pair, args = row.make(), row.make_batch((4,))
    x, *context = args
    mask = torch.rand(x.shape) < 0.5
    holes = torch.where(mask, x.double(), torch.nan).to(x.dtype) if x.is_floating_point() else x
    filled = pair.impute(holes, mask, *context, num_steps=3)
    assert filled.dtype == x.dtype
    assert torch.equal(filled[mask], x[mask])
    assert bool(filled.isfinite().all())
