# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Plates, masks, scales and factors: each bound against a formula written by hand."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_deepgen.infer import ImportanceWeightedELBO
from tests.infer.toys import K, agree, normal

Program = Callable[..., Any]


def test_no_plate() -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=torch.tensor(0.4))

    def guide() -> None:
        pyro.sample("z", dist.Normal(torch.ones(2), 2.0).to_event(1))

    z = torch.randn(K, 2)
    weight = (normal(z) - normal(z, 1.0, 2.0)).sum(-1) + normal(0.4 - z.sum(-1))
    agree(model, guide, {"z": z}, weight, 0)


def test_a_plate_inside_each_datum() -> None:
    x = torch.randn(4, 5)

    def model() -> None:
        pixels = pyro.plate("pixels", 5, dim=-1)
        with pyro.plate("data", 4, dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            with pixels:
                u = pyro.sample("u", dist.Normal(z, 1.0))
                pyro.sample("x", dist.Normal(u, 0.5), obs=x)

    def guide() -> None:
        pixels = pyro.plate("pixels", 5, dim=-1)
        with pyro.plate("data", 4, dim=-2):
            pyro.sample("z", dist.Normal(torch.ones(()), 1.0))
            with pixels:
                pyro.sample("u", dist.Normal(x, 1.0))

    z, u = torch.randn(K, 4, 1), torch.randn(K, 4, 5)
    inner = (normal(u, z) + normal(x, u, 0.5) - normal(u, x)).sum(-1)
    weight = (normal(z) - normal(z, 1.0)).squeeze(-1) + inner
    agree(model, guide, {"z": z, "u": u}, weight, 2)


@pytest.mark.parametrize("batch", [(4,), (2, 3)])
@pytest.mark.parametrize("first", [-1, -2])
def test_plates_of_data(batch: tuple[int, ...], first: int) -> None:
    # The last data plate may lie at any dimension: dimensions of 1 behind it are no data.
    shape = batch + (1,) * (-first - 1)
    x = torch.randn(shape)

    def plates() -> list[Any]:
        dims = range(first - len(batch) + 1, first + 1)
        return [pyro.plate(f"data{d}", n, dim=d) for d, n in zip(dims, batch, strict=True)]

    def inside(run: Program) -> Program:
        def program() -> None:
            made = plates()
            with made[0], made[-1] if len(made) > 1 else poutine.mask(mask=True):
                run()

        return program

    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide() -> None:
        pyro.sample("z", dist.Normal(x, 1.5))

    z = torch.randn(K, *shape)
    weight = (normal(z) + normal(x, z, 0.5) - normal(z, x, 1.5)).reshape(K, *batch)
    agree(inside(model), inside(guide), {"z": z}, weight, len(shape))


X = torch.linspace(-1.0, 2.0, 4, dtype=torch.float64)


def data() -> torch.Tensor:
    return X.to(torch.zeros(()).device)


def pair_of(
    outer: Callable[[], Any], latent: Callable[[], Any], observed: Callable[[], Any]
) -> tuple[Program, Program]:
    """A model and a guide with handlers around everything, the latent and the observed site."""

    def model() -> None:
        with pyro.plate("data", 4), outer():
            with latent():
                z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.deterministic("double", 2 * z)
            with observed():
                pyro.sample("x", dist.Normal(z, 0.5), obs=data())

    def guide() -> None:
        with pyro.plate("data", 4), outer(), latent():
            pyro.sample("z", dist.Normal(data(), 1.5))

    return model, guide


def nothing() -> Any:
    return poutine.mask(mask=True)


def test_masks() -> None:
    mask = torch.tensor([True, False, True, False])
    z = torch.randn(K, 4)
    latent, observed = normal(z) - normal(z, data(), 1.5), normal(data(), z, 0.5)
    for given, factor in ((mask, mask.double()), (False, torch.zeros(4)), (True, torch.ones(4))):
        handler = lambda given=given: poutine.mask(mask=given)  # noqa: E731
        agree(*pair_of(handler, nothing, nothing), {"z": z}, factor * (latent + observed), 1)
        agree(*pair_of(nothing, nothing, handler), {"z": z}, latent + factor * observed, 1)
        agree(*pair_of(nothing, handler, nothing), {"z": z}, factor * latent + observed, 1)


def test_scales() -> None:
    z = torch.randn(K, 4)
    latent, observed = normal(z) - normal(z, data(), 1.5), normal(data(), z, 0.5)

    def by(scale: float | torch.Tensor) -> Callable[[], Any]:
        return lambda: poutine.scale(scale=scale)

    # What all sites share weighs the bound; what some have tempers them, inside the logarithm.
    agree(*pair_of(by(3.0), nothing, nothing), {"z": z}, latent + observed, 1, scale=3.0)
    agree(*pair_of(nothing, by(0.3), nothing), {"z": z}, 0.3 * latent + observed, 1)
    agree(*pair_of(nothing, nothing, by(0.3)), {"z": z}, latent + 0.3 * observed, 1)
    agree(*pair_of(nothing, by(torch.tensor(0.3)), nothing), {"z": z}, 0.3 * latent + observed, 1)
    each = torch.tensor([0.1, 1.0, 0.5, 2.0])
    agree(*pair_of(nothing, nothing, by(each)), {"z": z}, latent + each * observed, 1)
    model, guide = pair_of(by(torch.tensor(3.0)), nothing, nothing)
    with pytest.raises(ValueError, match="tensor as scale"):
        ImportanceWeightedELBO(K).loss(model, guide)


def test_a_tempered_site_of_a_minibatch() -> None:
    def model() -> None:
        with pyro.plate("data", 8, subsample=torch.arange(4)):
            with poutine.scale(scale=0.3):
                z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=data())

    def guide() -> None:
        with pyro.plate("data", 8, subsample=torch.arange(4)), poutine.scale(scale=0.3):
            pyro.sample("z", dist.Normal(data(), 1.5))

    z = torch.randn(K, 4)
    weight = 0.3 * (normal(z) - normal(z, data(), 1.5)) + normal(data(), z, 0.5)
    agree(model, guide, {"z": z}, weight, 1, scale=2.0)


def test_factors_and_loops() -> None:
    def model() -> None:
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.factor("penalty", -z.square())
            for i in pyro.plate("looks", 3):
                pyro.sample(f"x{i}", dist.Normal(z, 0.5 + i), obs=data())

    def guide() -> None:
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(data(), 1.5))
            pyro.factor("volume", z, has_rsample=True)

    z = torch.randn(K, 4)
    seen = sum(normal(data(), z, 0.5 + i) for i in range(3))
    agree(model, guide, {"z": z}, normal(z) - z.square() + seen - normal(z, data(), 1.5) - z, 1)


def test_partly_observed_sites() -> None:
    mask = torch.tensor([True, False, True, True])

    def model() -> None:
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=data(), obs_mask=mask)

    def guide() -> None:
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(data(), 1.5))
            with poutine.mask(mask=~mask):
                pyro.sample("x_unobserved", dist.Normal(z, 2.0))

    z, u = torch.randn(K, 4), torch.randn(K, 4)
    unseen = normal(u, z, 0.5) - normal(u, z, 2.0)
    weight = normal(z) - normal(z, data(), 1.5) + torch.where(mask, normal(data(), z, 0.5), unseen)
    agree(model, guide, {"z": z, "x_unobserved": u}, weight, 1)


def test_arguments_of_another_number_of_dimensions() -> None:
    def model(x: torch.Tensor) -> None:
        with pyro.plate("rows", len(x), dim=-x.dim()):
            if x.dim() == 2:
                with pyro.plate("columns", x.shape[1], dim=-1):
                    z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
                    pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            else:
                z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: torch.Tensor) -> None:
        with pyro.plate("rows", len(x), dim=-x.dim()):
            if x.dim() == 2:
                with pyro.plate("columns", x.shape[1], dim=-1):
                    pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
            else:
                pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    bound = ImportanceWeightedELBO(K, "dreg")
    for shape in ((4,), (2, 3), (4,)):
        x = torch.randn(shape)
        evidence = normal(x, 0.0, 2**0.5)
        assert torch.allclose(bound.loss(model, guide, x), -evidence.sum())
        assert bound.log_weights(model, guide, x).shape == (K, *shape)
