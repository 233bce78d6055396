# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""When a loss is recorded anew, and what is an input of its graph."""

import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import (
    AutoDiagonalNormal,
    AutoMultivariateNormal,
    AutoNormal,
    init_to_value,
)
from pyro.optim import Adam

from pyro_deepgen.infer import CompiledLoss, CompiledSVI
from pyro_deepgen.latent import VAE, vae
from tests.infer.weighted import Weighted, compiled, data, eager, evaluated


@pytest.fixture
def pair() -> VAE:
    return vae(6, 2, (8,))


def test_a_last_smaller_batch_costs_one_graph(pair: VAE) -> None:
    svi = compiled(pair)
    x = data(13, 6)
    for _ in range(3):
        for batch in x.split(5):
            svi.step(batch)
    assert svi.compiled.num_graphs == svi.compiled.num_recordings == 2


def test_the_graph_that_was_not_used_for_longest_goes(pair: VAE) -> None:
    svi = compiled(pair, max_graphs=2)
    for size in (3, 4, 3, 5):
        svi.step(data(size, 6))
    assert svi.compiled.num_graphs == 2
    assert svi.compiled.num_recordings == 3
    svi.step(data(3, 6))
    assert svi.compiled.num_recordings == 3
    svi.step(data(4, 6))
    assert svi.compiled.num_recordings == 4


def test_one_graph_for_steps_and_one_for_evaluations(pair: VAE) -> None:
    svi = compiled(pair)
    x = data(5, 6)
    for seed in range(3):
        svi.step(x)
        before = [p.clone() for p in pair.parameters()]
        assert evaluated(svi, seed, x) == pytest.approx(eager(pair, seed, x), rel=1e-10)
        assert all(map(torch.equal, before, pair.parameters()))
    assert svi.compiled.num_recordings == 2


def test_floats_are_inputs() -> None:
    program = Weighted()
    svi = compiled(program)
    x = torch.randn(4)
    values = {w: evaluated(svi, 1, x, weight=w) for w in (0.1, 0.5, 2.0)}
    assert svi.compiled.num_recordings == 1
    for weight, value in values.items():
        assert value == pytest.approx(eager(program, 1, x, weight=weight), rel=1e-10)
    assert len(set(values.values())) == 3


def test_floats_keep_single_precision_single() -> None:
    torch.set_default_dtype(torch.float32)
    svi = compiled(Weighted(), as_tensor=True)
    loss = svi.step(torch.randn(4), weight=0.3)
    assert isinstance(loss, torch.Tensor)
    assert loss.dtype == torch.float32


@pytest.mark.parametrize(
    "args",
    [(1,), (True,), (None,), ("a",), ([1, 2],), ({"a": 1},), (torch.zeros(1),), (1.5,), (2,)],
    ids=str,
)
def test_any_other_argument_is_recorded_anew(args: tuple[Any, ...]) -> None:
    svi = compiled(Weighted())
    x = torch.randn(4)
    for expected in (0, 1, 1):
        svi.step(x, 0)
        assert svi.compiled.num_recordings == expected
    svi.step(x, *args)
    assert svi.compiled.num_recordings == 2
    svi.step(x, *args)
    assert svi.compiled.num_recordings == 2


def test_flags_change_what_is_computed() -> None:
    program = Weighted()
    svi = compiled(program)
    x = torch.randn(4)
    for wide in (False, True, False):
        value = evaluated(svi, 2, x, wide=wide)
        assert value == pytest.approx(eager(program, 2, x, wide=wide), rel=1e-10)
    assert svi.compiled.num_recordings == 2


def test_the_order_of_keywords_is_no_change() -> None:
    svi = compiled(Weighted())
    svi.step(torch.randn(4), weight=0.5, wide=True)
    svi.step(torch.randn(4), wide=True, weight=0.7)
    assert svi.compiled.num_recordings == 1


def test_layout_and_dtype_of_arguments() -> None:
    program = Weighted()
    svi = compiled(program)
    square = torch.randn(4, 4)
    for x in (square[0], square[:, 0], square[0].float()):
        assert evaluated(svi, 3, x) == pytest.approx(eager(program, 3, x), rel=1e-6)
    assert svi.compiled.num_recordings == 3


def test_parameters_that_appear_for_other_arguments() -> None:
    def model(x: torch.Tensor, more: bool) -> None:
        loc = pyro.param("loc", torch.tensor(0.1))
        if more:
            loc = loc + pyro.param("shift", torch.tensor(0.2))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    def guide(x: torch.Tensor, more: bool) -> None:
        """No latent variables."""

    svi = CompiledSVI(model, guide, Adam({"lr": 0.1}), Trace_ELBO(), backend=None)
    x = torch.randn(4)
    svi.step(x, False)
    svi.step(x, True)
    assert float(pyro.param("shift")) != pytest.approx(0.2)


def test_lazily_made_parameters_start_where_their_initial_value_is() -> None:
    def model(x: torch.Tensor) -> None:
        loc = pyro.param("loc", lambda: torch.randn(()))
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    def guide(x: torch.Tensor) -> None:
        """No latent variables."""

    x, ends = torch.tensor(2.0), []
    for kind, options in ((SVI, {}), (CompiledSVI, {"backend": None})):
        pyro.clear_param_store()
        torch.manual_seed(1)
        svi = kind(model, guide, Adam({"lr": 0.1}), Trace_ELBO(), **options)
        losses = [svi.step(x) for _ in range(5)]
        ends.append((losses, float(pyro.param("loc"))))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-10)
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-10)


@pytest.mark.parametrize("make", [AutoNormal, AutoDiagonalNormal, AutoMultivariateNormal])
def test_an_autoguide_that_has_not_run_yet(make: Any) -> None:
    def model(x: torch.Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    x, ends = torch.randn(8), []
    for kind, options in ((SVI, {}), (CompiledSVI, {"backend": None})):
        pyro.clear_param_store()
        torch.manual_seed(1)
        guide = make(model, init_loc_fn=init_to_value(values={"loc": torch.tensor(0.4)}))
        svi = kind(model, guide, Adam({"lr": 0.1}), Trace_ELBO(), **options)
        for seed in range(5):
            torch.manual_seed(seed)
            svi.step(x)
        ends.append([p.detach() for _, p in pyro.get_param_store().named_parameters()])
    for ours, theirs in zip(*ends, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9)


def test_a_tensor_given_twice_is_two_inputs() -> None:
    loss = CompiledLoss(lambda x, y: (x - y).square().sum(), [], backend=None)
    x = torch.randn(3)
    assert float(loss.value(x, x)) == 0.0
    assert float(loss.value(x, x + 1)) == pytest.approx(3.0)
    assert loss.num_graphs == 1


def test_an_argument_that_the_program_also_reaches_by_itself() -> None:
    mine = torch.zeros(3)
    loss = CompiledLoss(lambda x: (x - mine).sum(), [], backend=None)
    assert float(loss.value(mine)) == 0.0
    assert float(loss.value(mine + 1)) == pytest.approx(3.0)


def test_arguments_that_cannot_be_hashed_are_told_apart_by_identity() -> None:
    class Bag(set[int]):
        """Unhashable, and freed as soon as nobody holds it."""

    loss = CompiledLoss(lambda x, bag: x.sum() * len(bag), [], backend=None, max_graphs=50)
    x = torch.ones(2)
    for size in range(1, 20):
        assert float(loss.value(x, Bag(range(size)))) == 2 * size


def test_ever_new_recordings_are_told() -> None:
    loss = CompiledLoss(lambda x, epoch: x.sum() * epoch, [], backend=None, max_graphs=2)
    with pytest.warns(UserWarning, match="has been recorded 8 times"):
        for epoch in range(8):
            loss.value(torch.ones(2), epoch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss.value(torch.ones(2), 9)


def test_two_in_one_process() -> None:
    one, two = vae(6, 2, (8,)), vae(5, 3, (4,))
    both = [compiled(one), compiled(two)]
    for _ in range(3):
        for svi, size in zip(both, (6, 5), strict=True):
            svi.step(data(4, size))
    assert [svi.compiled.num_recordings for svi in both] == [1, 1]
    assert evaluated(both[0], 1, data(4, 6).zero_()) == pytest.approx(
        eager(one, 1, torch.zeros(4, 6)), rel=1e-10
    )


def test_seeds_reproduce_and_draws_are_fresh(pair: VAE) -> None:
    start = {n: v.clone() for n, v in pair.state_dict().items()}
    x, runs = data(5, 6), []
    for _ in range(2):
        pair.load_state_dict(start)
        svi = CompiledSVI(
            pair.model, pair.guide, pyro.optim.SGD({"lr": 0.0}), Trace_ELBO(), backend=None
        )
        torch.manual_seed(12)
        runs.append([svi.step(x) for _ in range(6)])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 6


def test_subsampled_rows_are_fresh() -> None:
    def model(x: torch.Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(()))
        with pyro.plate("data", len(x), subsample_size=2) as rows:
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x[rows])

    def guide(x: torch.Tensor) -> None:
        """No latent variables."""

    svi = CompiledSVI(model, guide, pyro.optim.SGD({"lr": 0.0}), Trace_ELBO(), backend=None)
    seen = {round(float(svi.step(torch.arange(4.0) ** 2)), 6) for _ in range(60)}
    assert len(seen) == 6  # all pairs of four
